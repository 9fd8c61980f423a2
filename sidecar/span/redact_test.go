package span

import (
	"strings"
	"testing"
)

// TestRedactQuery: names are kept, values of sensitive ones are not.
func TestRedactQuery(t *testing.T) {
	for query, want := range map[string]string{
		"":                                    "",
		"a=b&&c":                              "a=b&&c",
		"token=s":                             "token=REDACTED",
		"a=b&X-Auth-Token=s&c":                "a=b&X-Auth-Token=REDACTED&c",
		"a=b;pin=s;c=d&e=f":                   "a=b;pin=REDACTED&e=f",
		"%74oken=s":                           "%74oken=REDACTED",
		"user[password]=s":                    "user[password]=REDACTED",
		"user%5Bpassword%5D=s&b=c":            "user%5Bpassword%5D=REDACTED&b=c",
		"password[]=s&password[]=s":           "password[]=REDACTED&password[]=REDACTED",
		"login[pin][0]=s":                     "login[pin][0]=REDACTED",
		"session[user]=a&filter[key]=s":       "session[user]=REDACTED&filter[key]=REDACTED",
		"page[number]=1&q[name]=x":            "page[number]=1&q[name]=x",
		"[token=s":                            "[token=REDACTED",
		"token]=s&[]=b&]=c":                   "token]=REDACTED&[]=b&]=c",
		strings.Repeat("x", 200) + "_token=s": strings.Repeat("x", 200) + "_token=REDACTED",
	} {
		if got := redactQuery(query); got != want {
			t.Errorf("%s becomes %s, want %s", query, got, want)
		}
	}
}
