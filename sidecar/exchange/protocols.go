package exchange

import (
	"bytes"
	"encoding/binary"
)

// sniffOther names protocols other than HTTP by the first bytes of a direction:
// 16 of them at most, or a line if they are one. Which ask for fewer come first,
// so that the answer does not depend on how many there are.
func sniffOther(b []byte) (guess, Kind) {
	for _, s := range [...]struct {
		kind Kind
		is   func(b []byte) bool
	}{
		{KindRedis, func(b []byte) bool { return len(b) >= 2 && b[0] == '*' && isDigit(b[1]) }},
		{KindPOP3, prefix("+OK")},
		{KindIMAP, prefix("* OK")},
		{KindSSH, prefix("SSH-")},
		{KindAMQP, prefix("AMQP")},
		{KindMemcached, memcachedText},
		{KindMySQL, at(3, "\x00\x0a")}, // the server's greeting, protocol 10
		{KindNATS, prefix("INFO {")},
		{KindTLS, isTLS},
		{KindPostgres, at(4, "\x00\x03\x00")},     // startup message, protocol 3
		{KindPostgres, at(4, "\x04\xd2\x16\x2e")}, // CancelRequest
		{KindPostgres, at(4, "\x04\xd2\x16\x2f")}, // SSLRequest
		{KindPostgres, at(4, "\x04\xd2\x16\x30")}, // GSSENCRequest
		{KindMSSQL, isTDS},
		{KindCassandra, isCQL},
		{KindMQTT, isMQTT},
		{KindMemcached, memcachedBinary},
		{KindKafka, isKafka},
		{KindMongoDB, at(12, "\xdd\x07\x00\x00")}, // OP_MSG
		{KindMongoDB, at(12, "\xd4\x07\x00\x00")}, // OP_QUERY
		{KindSMTP, greets("SMTP")},
		{KindFTP, greets("FTP")},
	} {
		if s.is(b) {
			return guessOther, s.kind
		}
	}
	const maxGreeting = 512 // RFC 5321, section 4.5.3.1.5
	greeting := string(b[:min(len(b), len(reply))]) == reply[:min(len(b), len(reply))]
	if len(b) < 16 || greeting && len(b) < maxGreeting && bytes.IndexByte(b, '\n') < 0 {
		return guessMore, KindUndecided
	}
	return guessOther, KindOther
}

const reply = "220" // service ready

func prefix(s string) func([]byte) bool { return at(0, s) }

func at(offset int, s string) func([]byte) bool {
	return func(b []byte) bool { return len(b) >= offset+len(s) && string(b[offset:offset+len(s)]) == s }
}

// greets tells the greeting of a server that replies by RFC 5321, section 4.2,
// or RFC 959, section 4.2, and says what it speaks.
func greets(what string) func([]byte) bool {
	return func(b []byte) bool {
		line, _, ok := bytes.Cut(b, []byte{'\n'})
		return ok && bytes.HasPrefix(line, []byte(reply)) && bytes.Contains(bytes.ToUpper(line), []byte(what))
	}
}

// isTLS recognises a handshake record with a ClientHello or ServerHello
// (RFC 8446, sections 4 and 5.1), of which the shortest has 42 bytes.
func isTLS(b []byte) bool {
	return len(b) >= 6 && b[0] == 22 && b[1] == 3 && b[2] <= 4 && (b[3] > 0 || b[4] >= 42) && (b[5] == 1 || b[5] == 2)
}

// memcachedText recognises a command line (memcached's doc/protocol.txt).
func memcachedText(b []byte) bool {
	line, _, ok := bytes.Cut(b, []byte{'\n'})
	if !ok || len(line) == 0 || line[len(line)-1] != '\r' {
		return false
	}
	command, _, _ := bytes.Cut(line[:len(line)-1], []byte{' '})
	switch string(command) {
	case "get", "gets", "gat", "gats", "set", "add", "replace", "append", "prepend", "cas", "incr", "decr",
		"delete", "touch", "stats", "version", "verbosity", "flush_all", "mg", "ms", "md", "ma", "mn":
		return true
	}
	return false
}

// memcachedBinary recognises a request (memcached's doc/protocol-binary).
func memcachedBinary(b []byte) bool {
	return len(b) >= 12 && b[0] == 0x80 && b[5] == 0 &&
		int64(binary.BigEndian.Uint32(b[8:])) >= int64(binary.BigEndian.Uint16(b[2:]))+int64(b[4]) && b[8] == 0
}

// isTDS recognises the PRELOGIN packet of Microsoft's MS-TDS, section 2.2.3.1.
func isTDS(b []byte) bool {
	return len(b) >= 8 && b[0] == 0x12 && b[1] <= 1 && b[2] < 0x10 && b[4] == 0 && b[5] == 0 && b[7] == 0
}

// isCQL recognises STARTUP or OPTIONS, the first frame of Cassandra's native
// protocol, version 3 to 5.
func isCQL(b []byte) bool {
	return len(b) >= 9 && b[0] >= 3 && b[0] <= 5 && b[1] <= 0x1f && (b[4] == 1 || b[4] == 5) && b[5] == 0 && b[6] == 0
}

// isMQTT recognises CONNECT (MQTT 3.1.1 and 5.0, section 3.1; 3.1).
func isMQTT(b []byte) bool {
	if len(b) < 2 || b[0] != 0x10 {
		return false
	}
	n := 1 // of the remaining length
	for n < 4 && n < len(b) && b[n]&0x80 != 0 {
		n++
	}
	return at(n+1, "\x00\x04MQTT")(b) || at(n+1, "\x00\x06MQIs")(b)
}

// isKafka recognises the header of a request that clients begin with: Produce,
// Fetch, Metadata, FindCoordinator, SaslHandshake, ApiVersions.
func isKafka(b []byte) bool {
	const maxSize, maxVersion, maxClient = 100 << 20, 20, 255
	if len(b) < 14 {
		return false
	}
	size, key := binary.BigEndian.Uint32(b), binary.BigEndian.Uint16(b[4:])
	version, client := binary.BigEndian.Uint16(b[6:]), int16(binary.BigEndian.Uint16(b[12:]))
	switch key {
	case 0, 1, 3, 10, 17, 18:
		return size >= 10 && size < maxSize && version <= maxVersion && client >= -1 && client <= maxClient
	}
	return false
}
