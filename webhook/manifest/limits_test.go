package manifest

import (
	"testing"

	"github.com/spile-dev/spile/webhook"
)

// A LimitRange in a file lacks the defaults that the API server gives it.
func TestLimitRangeDefaults(t *testing.T) {
	const pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: cart}\nspec: {containers: [{name: cart}]}\n"
	for limits, want := range map[string]webhook.Reason{
		"{type: Container, max: {cpu: 2}}":                       webhook.Injected, // the default limit is 2
		"{type: Container, min: {cpu: 100m}}":                    webhook.Injected, // the default request is 100m
		"{type: Container, max: {cpu: 2}, default: {memory: 1}}": webhook.Injected,
		"{type: Container, min: {cpu: 2}, default: {cpu: 100m}}": webhook.ReasonLimitRange,
		"{type: PersistentVolumeClaim, max: {storage: 10Gi}}":    webhook.Injected,
	} {
		in := "apiVersion: v1\nkind: LimitRange\nmetadata: {name: limits}\nspec: {limits: [" + limits + "]}\n" + pod
		_, results, err := Inject([]byte(in), testOptions)
		if err != nil || len(results) != 1 || results[0].Reason != want {
			t.Errorf("%s: %+v, error %v, want reason %q", limits, results, err, want)
		}
	}
}
