package span

import "github.com/spile-dev/spile/sidecar/exchange"

// Instrument is one of the duration histograms of the conventions.
type Instrument uint8

// The instruments: http.server.request.duration and its kin.
const (
	HTTPServer Instrument = iota
	HTTPClient
	RPCServer
	RPCClient
	NumInstruments = iota
)

// Measurement says which series the duration of an exchange belongs to: the
// attributes that the conventions give the instrument, with the values that
// the span has. It is comparable; strings are empty and numbers 0 where the
// exchange lacks the attribute.
type Measurement struct {
	Instrument Instrument
	Container  string // of the resource

	Method        string // http.request.method or rpc.method
	Route         string // http.route
	Scheme        string // url.scheme
	StatusCode    string // rpc.response.status_code
	Status        uint16 // http.response.status_code
	ErrorType     string // error.type
	Version       string // network.protocol.version
	ServerAddress string // server.address
	ServerPort    uint16 // server.port
}

// Measurement returns the measurement of the exchange that was last described,
// and its duration in nanoseconds: the span's. ok is false where the end of the
// exchange was not seen, so that it has no duration.
// The measurement is valid until the next is described.
func (b *Builder) Measurement() (m *Measurement, ns uint64, ok bool) {
	r := &b.rec
	return &r.measure, r.end - r.start, r.measured
}

// ended reports whether the end of an exchange was seen.
func ended(o exchange.Outcome) bool {
	switch o {
	case exchange.OneSided, exchange.Evicted, exchange.Unfinished:
		return false
	}
	return true
}
