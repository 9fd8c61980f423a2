package span

import (
	"errors"
	"slices"
	"strings"
)

// optIn says which of the conventions' opt-in attributes spans carry.
type optIn struct {
	urlScheme, userAgent              bool // of clients; servers always have them
	clientPort                        bool // of servers
	localAddress, localPort           bool // of servers
	transport                         bool
	requestBodySize, responseBodySize bool
}

// flag returns the field that an attribute's name turns on, nil if it is not
// an opt-in attribute that can be told from the wire.
func (o *optIn) flag(name string) *bool {
	switch name {
	case keyURLScheme:
		return &o.urlScheme
	case keyUserAgent:
		return &o.userAgent
	case keyClientPort:
		return &o.clientPort
	case keyLocalAddress:
		return &o.localAddress
	case keyLocalPort:
		return &o.localPort
	case keyTransport:
		return &o.transport
	case keyRequestBodySize:
		return &o.requestBodySize
	case keyResponseBodySize:
		return &o.responseBodySize
	}
	return nil
}

var optInAttributes = []string{
	keyClientPort, keyRequestBodySize, keyResponseBodySize, keyLocalAddress, keyLocalPort,
	keyTransport, keyURLScheme, keyUserAgent,
}

func newOptIn(names []string) (o optIn) {
	for _, name := range names {
		if f := o.flag(name); f != nil {
			*f = true
		}
	}
	return o
}

func optInNames(getenv func(string) string) ([]string, error) {
	const name = "SPILE_OPT_IN_ATTRIBUTES"
	var out []string
	var faults []error
	for _, item := range items(getenv(name)) {
		if !slices.Contains(optInAttributes, item) {
			faults = append(faults, fault(name, item, "a list of "+strings.Join(optInAttributes, ", ")))
			continue
		}
		out = append(out, item)
	}
	return out, errors.Join(faults...)
}
