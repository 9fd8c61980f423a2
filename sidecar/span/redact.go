package span

import (
	"net/url"
	"strings"
)

const redacted = "REDACTED"

// sensitiveExact are the query parameters that the conventions name (of 1.44
// and before), matched with regard to case as they say.
var sensitiveExact = set("X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token",
	"AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature")

// sensitiveFold are other names under which secrets are passed, matched
// without regard to case and with "_", "-" and "." left out.
var sensitiveFold = set("token", "accesstoken", "refreshtoken", "idtoken", "authtoken", "csrftoken",
	"sessiontoken", "securitytoken", "apitoken", "xapitoken", "privatetoken", "jobtoken",
	"password", "passwd", "passphrase", "passcode", "pass", "pwd", "pw", "newpassword", "oldpassword",
	"secret", "clientsecret", "appsecret", "sharedsecret", "secretkey", "privatekey",
	"key", "apikey", "xapikey", "accesskey", "accesskeyid", "awsaccesskeyid", "authkey", "subscriptionkey",
	"code", "codeverifier", "devicecode", "otp", "totp", "pin", "mfa", "ssn", "cvv", "cvc",
	"auth", "authorization", "xauth", "bearer", "jwt", "assertion", "clientassertion",
	"samlrequest", "samlresponse", "ticket",
	"session", "sessionid", "sid", "phpsessid", "jsessionid",
	"credential", "credentials", "signature", "sig", "hmac", "xgoogcredential", "xgoogsignature",
	"xamzsignature", "xamzcredential", "xamzsecuritytoken")

// sensitiveSuffixes are the ends of names of secrets, as in x_goog_iam_token,
// matched as sensitiveFold.
var sensitiveSuffixes = []string{
	"token", "password", "passwd", "secret", "apikey", "accesskey", "secretkey",
	"privatekey", "sharedkey", "credential", "credentials", "signature", "authorization", "jwt",
}

func set(names ...string) map[string]struct{} {
	m := make(map[string]struct{}, len(names))
	for _, n := range names {
		m[n] = struct{}{}
	}
	return m
}

// redactQuery replaces the value of every sensitive parameter of a query by
// REDACTED and keeps its name.
func redactQuery(q string) string {
	first := -1
	for at := 0; at < len(q); {
		end := paramEnd(q, at)
		if _, ok := sensitiveValue(q[at:end]); ok {
			first = at
			break
		}
		at = end + 1
	}
	if first < 0 {
		return q
	}
	var out strings.Builder
	out.Grow(len(q) + len(redacted))
	out.WriteString(q[:first])
	for at := first; at <= len(q); {
		end := paramEnd(q, at)
		param := q[at:end]
		if cut, ok := sensitiveValue(param); ok {
			out.WriteString(param[:cut])
			out.WriteString(redacted)
		} else {
			out.WriteString(param)
		}
		if end < len(q) {
			out.WriteByte('&')
		}
		at = end + 1
	}
	return out.String()
}

func paramEnd(q string, at int) int {
	if i := strings.IndexByte(q[at:], '&'); i >= 0 {
		return at + i
	}
	return len(q)
}

// sensitiveValue returns where the secret part of a parameter begins. Some
// servers take ";" as a separator too; the rest of the parameter after a
// sensitive name is then redacted as a whole, since a value may hold a ";".
func sensitiveValue(param string) (cut int, ok bool) {
	for at := 0; at < len(param); {
		eq := strings.IndexByte(param[at:], '=')
		if eq < 0 {
			return 0, false
		}
		eq += at
		name := param[at:eq]
		if semi := strings.LastIndexByte(name, ';'); semi >= 0 {
			name = name[semi+1:]
		}
		if isSensitive(name) {
			return eq + 1, true
		}
		next := strings.IndexByte(param[eq:], ';')
		if next < 0 {
			return 0, false
		}
		at = eq + next + 1
	}
	return 0, false
}

// maxNameLen is longer than any sensitive name, percent-encoded throughout.
const maxNameLen = 96

func isSensitive(name string) bool {
	name = name[max(len(name)-maxNameLen, 0):] // it may end in one
	if strings.IndexByte(name, '%') >= 0 || strings.IndexByte(name, '+') >= 0 {
		if decoded, err := url.QueryUnescape(name); err == nil {
			name = decoded
		}
	}
	if strings.IndexByte(name, '[') < 0 && strings.IndexByte(name, ']') < 0 {
		return isSensitiveWord(name)
	}
	// Of nested parameters, as in user[password], each name counts.
	for word := range strings.FieldsFuncSeq(name, func(r rune) bool { return r == '[' || r == ']' }) {
		if isSensitiveWord(word) {
			return true
		}
	}
	return false
}

func isSensitiveWord(name string) bool {
	if _, ok := sensitiveExact[name]; ok {
		return true
	}
	var buf [maxNameLen]byte
	n := 0
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '_' || c == '-' || c == '.':
		case 'A' <= c && c <= 'Z':
			buf[n] = c + 'a' - 'A'
			n++
		default:
			buf[n] = c
			n++
		}
	}
	if _, ok := sensitiveFold[string(buf[:n])]; ok {
		return true
	}
	for _, suffix := range sensitiveSuffixes {
		if n > len(suffix) && string(buf[n-len(suffix):n]) == suffix {
			return true
		}
	}
	return false
}
