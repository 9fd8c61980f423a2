package exchange

// Kind is what the bytes of a connection turned out to be.
type Kind uint8

// All but the first three are ignored once recognised.
const (
	KindUndecided Kind = iota // too few bytes to tell
	KindHTTP1
	KindHTTP2
	KindTLS
	KindSSH
	KindPostgres
	KindMySQL
	KindRedis
	KindMongoDB
	KindAMQP
	KindMSSQL
	KindCassandra
	KindMemcached
	KindKafka
	KindNATS
	KindMQTT
	KindSMTP
	KindFTP
	KindIMAP
	KindPOP3
	KindOther     // none of the known ones
	KindUpgraded  // HTTP until 101 Switching Protocols
	KindTunnel    // HTTP until a successful CONNECT
	KindAmbiguous // HTTP until a message whose framing has two readings
	KindGivenUp   // HTTP until a bound was exceeded or no boundary was found

	numKinds
)

var kindNames = [...]string{
	"undecided", "http1", "http2", "tls", "ssh", "postgres", "mysql", "redis", "mongodb", "amqp", "mssql", "cassandra",
	"memcached", "kafka", "nats", "mqtt", "smtp", "ftp", "imap", "pop3",
	"other", "upgraded", "tunnel", "ambiguous", "given_up",
}

func (k Kind) String() string { return kindNames[k] }

func (k Kind) ignored() bool { return k > KindHTTP2 }

// Drop is why a request that was seen became no Exchange.
type Drop uint8

const (
	// DropGap: captured bytes of the connection are missing.
	DropGap Drop = iota
	// DropIncomplete: the connection ended within the head of the request.
	DropIncomplete
	// DropHeadTooLarge: a head is larger than Limits.Head.
	DropHeadTooLarge
	// DropMalformed: what followed on the connection is not HTTP.
	DropMalformed
	// DropGivenUp: the connection was given up after a message that is ambiguous.
	DropGivenUp
	// DropPipeline: more than Limits.Pipeline or Streams requests wait for a response.
	DropPipeline
	// DropMemory: the bytes of heads held exceed Limits.Buffered.
	DropMemory

	numDrops
)

var dropNames = [...]string{
	"gap", "incomplete", "head_too_large", "malformed", "given_up", "pipeline", "memory",
}

func (d Drop) String() string { return dropNames[d] }

// Stats counts what an Engine saw. Seen equals the sum of Outcomes and Dropped,
// plus the exchanges in progress.
type Stats struct {
	Seen     uint64              // requests
	Outcomes [numOutcomes]uint64 // exchanges emitted, by Outcome
	Dropped  [numDrops]uint64    // requests that became no exchange, by Drop

	Kinds     [numKinds]uint64 // connections by their last Kind
	Unseen    Census           // connections that are not followed, by server
	Gaps      uint64           // times that bytes which were needed are missing
	Resyncs   uint64           // times that a boundary was found again
	Orphans   uint64           // responses without a request
	InFlight  int64            // exchanges in progress
	HeldBytes int64            // bytes held: of incomplete heads, exchanges in progress and tables of fields
}

// Limits bound what connections may cost. Zero values mean the defaults.
type Limits struct {
	Head     int // bytes of a message head; 64 KiB
	Fields   int // header fields kept of a message; 256
	Pipeline int // requests of an HTTP/1 connection that wait for a response; 256
	Streams  int // streams of an HTTP/2 connection in progress; 4096
	Buffered int // Stats.HeldBytes, of which a connection has half at most; 8 MiB
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&l.Head, 64<<10)
	set(&l.Fields, 256)
	set(&l.Pipeline, 256)
	set(&l.Streams, 4096)
	set(&l.Buffered, 8<<20)
	return l
}

// Engine is what the connections of one capture share. It, its connections and
// its Stats belong to one goroutine.
type Engine struct {
	Stats Stats

	limits Limits
	emit   func(*Exchange)
	free   []*pending
}

// NewEngine returns an engine that hands each finished exchange to emit.
func NewEngine(l Limits, emit func(*Exchange)) *Engine {
	return &Engine{limits: l.withDefaults(), emit: emit}
}

// dropUnparsed counts a request whose head was not seen whole.
func (e *Engine) dropUnparsed(why Drop) {
	e.Stats.Seen++
	e.Stats.Dropped[why]++
}
