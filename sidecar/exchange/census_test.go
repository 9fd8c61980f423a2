package exchange_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// TestKinds has the first bytes of protocols that are not followed.
func TestKinds(t *testing.T) {
	for _, tt := range []struct {
		want  exchange.Kind
		first step
	}{
		{exchange.KindSSH, s("SSH-2.0-OpenSSH_9.2\r\n")},
		{exchange.KindPostgres, c("\x00\x00\x00\x08\x04\xd2\x16\x2f")},
		{exchange.KindPostgres, c("\x00\x00\x00\x08\x04\xd2\x16\x30")},
		{exchange.KindPostgres, c("\x00\x00\x00\x54\x00\x03\x00\x00user\x00app\x00database\x00shop\x00")},
		{exchange.KindMySQL, s("\x4a\x00\x00\x00\x0a8.0.36\x00\x0b\x00\x00\x00abcdefgh\x00")},
		{exchange.KindRedis, c("*1\r\n$4\r\nPING\r\n")},
		{exchange.KindMongoDB, c("\x2a\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00\x00")},
		{exchange.KindMongoDB, c("\x2a\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xd4\x07\x00\x00\x00")},
		{exchange.KindAMQP, c("AMQP\x00\x00\x09\x01")},
		{exchange.KindMSSQL, c("\x12\x01\x00\x2f\x00\x00\x01\x00\x00\x00\x1a\x00\x06")},
		{exchange.KindCassandra, c("\x04\x00\x00\x00\x05\x00\x00\x00\x00")},
		{exchange.KindCassandra, c("\x05\x00\x00\x01\x01\x00\x00\x00\x16\x00\x01\x00\x0bCQL_VERSION\x00\x053.0.0")},
		{exchange.KindMemcached, c("get session:1\r\n")},
		{exchange.KindMemcached, c("version\r\n")},
		{exchange.KindMemcached, c("\x80\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00Hello")},
		{exchange.KindKafka, c("\x00\x00\x00\x1f\x00\x12\x00\x03\x00\x00\x00\x01\x00\x08producer\x00\x12apache-kafka")},
		{exchange.KindNATS, s(`INFO {"server_id":"NA","version":"2.10.4","proto":1}` + "\r\n")},
		{exchange.KindMQTT, c("\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04demo")},
		{exchange.KindSMTP, s("220 mail.example ESMTP Postfix\r\n")},
		{exchange.KindFTP, s("220 (vsFTPd 3.0.3)\r\n")},
		{exchange.KindFTP, s("220-Welcome to the FTP server\r\n220 ready\r\n")},
		{exchange.KindIMAP, s("* OK [CAPABILITY IMAP4rev1] ready.\r\n")},
		{exchange.KindPOP3, s("+OK Dovecot ready.\r\n")},
		{exchange.KindOther, c("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10")},
		{exchange.KindOther, s("220 something else\r\n")},
		{exchange.KindOther, c("OPTIONS sip:a@b.example SIP/2.0\r\n\r\n")},
	} {
		for _, size := range []int{0, 1, 3} {
			r := run(t, exchange.Limits{}, []step{tt.first}, size)
			if got := r.conn.Kind(); got != tt.want {
				t.Errorf("%q in segments of %d: %s, want %s", tt.first.data, size, got, tt.want)
			}
		}
	}
}

// TestCensus counts by server, which is the end that did not open the connection,
// and no more of them than the bound.
func TestCensus(t *testing.T) {
	e := exchange.NewEngine(exchange.Limits{}, nil)
	open := func(client, server string, opened bool) {
		conn := e.NewConn([2]netip.AddrPort{netip.MustParseAddrPort(client), netip.MustParseAddrPort(server)}, opened)
		if opened {
			conn.OpenedBy(0)
		}
		conn.Data(0, exchange.Segment{At: 1, Aligned: true}, []byte("*1\r\n"))
		conn.Close(exchange.Truncated, 2)
	}
	open("10.0.0.1:5000", "10.0.0.2:6379", true)
	open("10.0.0.1:6379", "10.0.0.2:50000", true)
	open("10.0.0.1:5001", "10.0.0.2:6379", true)
	const more = 300
	for i := range more {
		open("10.0.0.1:5000", fmt.Sprintf("10.1.%d.%d:6379", i/256, i%256), true)
	}
	all := e.Stats.Unseen.Counts()
	if got := fmt.Sprint(all[0], all[1]); got != "redis elsewhere"+fmt.Sprint(all[0].N)+"redis 10.0.0.2:6379" && all[1].N != 2 {
		t.Errorf("%v", all[:2])
	}
	sum := uint64(0)
	for _, u := range all {
		sum += u.N
	}
	if len(all) != 257 || sum != more+3 || all[0].Server.IsValid() || all[0].N != more+2-256 {
		t.Errorf("%d entries, %d connections, first %v (%d)", len(all), sum, all[0], all[0].N)
	}
}
