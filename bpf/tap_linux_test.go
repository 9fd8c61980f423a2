package bpf

import "testing"

func TestLoad(t *testing.T) {
	tap, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	t.Log(tap.objects.Tap)
}
