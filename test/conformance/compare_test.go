//go:build conformance && linux

package conformance

import (
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spile-dev/spile/sidecar/exchange"
)

// byClient groups what is compared by the client's address and port, which is one
// connection or one after the other.
func byClient[T any](all []T, client func(T) netip.AddrPort) map[netip.AddrPort][]T {
	groups := make(map[netip.AddrPort][]T)
	for _, x := range all {
		groups[client(x)] = append(groups[client(x)], x)
	}
	return groups
}

func clientOf(x exchanged) netip.AddrPort { return x.client }

// keys returns the clients of two groupings, in order.
func keys[A, B any](a map[netip.AddrPort][]A, b map[netip.AddrPort][]B) []netip.AddrPort {
	all := make(map[netip.AddrPort]bool)
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return slices.SortedFunc(maps.Keys(all), netip.AddrPort.Compare)
}

// compareLog tests, connection by connection, that the complete exchanges are
// those of the access log. Of an exchange that is not complete, because the
// client went away or the server closed the connection, the log may have an entry
// or not: the server can have answered what nobody received. What only a server has,
// as a bad request, is a head in which rawClient reset the connection, whose port
// another may have had before: there are no more of them than those. A log that does
// not name clients is compared as if it were of one.
func compareLog(t *testing.T, s server, logged []entry, exchanges []exchanged) {
	t.Helper()
	entries := byClient(logged, func(e entry) netip.AddrPort { return e.client })
	seen := byClient(exchanges, func(x exchanged) netip.AddrPort {
		if !s.namesClients() {
			return netip.AddrPort{}
		}
		return x.client
	})
	cut, cutLogged, headsCut, faults := 0, 0, 0, 0
	for _, client := range keys(entries, seen) {
		want, got := tally(lines(entries[client], s.line)), make(map[string]int)
		unfinished := make(map[string]int)
		for _, x := range seen[client] {
			if x.outcome == "complete" {
				got[s.line(x.entry)]++
			} else {
				unfinished[request(x.entry)]++
				cut++
			}
		}
		for _, e := range entries[client] { // those that only the log has
			l := s.line(e)
			if want[l] <= got[l] {
				continue
			}
			want[l]--
			if r := request(e); unfinished[r] > 0 {
				unfinished[r]--
				cutLogged++
				continue
			}
			if cut := request(e); e.status == 400 && (cut == "- -" || cut == "GET "+resetTarget) {
				headsCut++
				continue
			}
			faults++
			t.Errorf("%s: only in the access log: %s", client, l)
		}
		for l, n := range got {
			if n > want[l] {
				faults++
				t.Errorf("%s: %d times in the access log, %d times seen: %s", client, want[l], n, l)
			}
		}
		if faults > 20 {
			t.Fatal("and so on")
		}
	}
	if headsCut > resetHeads(exchanges) {
		t.Errorf("only the log has %d bad requests, %d at most were reset in a head", headsCut, resetHeads(exchanges))
	}
	t.Logf("%d entries in the access log, %d of heads cut off; %d exchanges not complete, %d of these logged", len(logged), headsCut, cut, cutLogged)
}

func request(e entry) string { return e.method + " " + e.target }

// compareCaptures tests that two captures of the same packets give the same
// exchanges. Packets of opposite directions that cross may be in another order in
// the other capture: of a connection that was reset, what was in progress may have
// ended before.
func compareCaptures(t *testing.T, live, file []exchanged) {
	t.Helper()
	a, b := byClient(live, clientOf), byClient(file, clientOf)
	for _, client := range keys(a, b) {
		as, bs := a[client], b[client]
		if len(as) != len(bs) {
			t.Errorf("%s: live %q, in the file %q", client, lines(as, exchangeLine), lines(bs, exchangeLine))
			continue
		}
		for i := range as {
			reset := as[i].outcome == "reset" || bs[i].outcome == "reset"
			if as[i] != bs[i] && (!reset || request(as[i].entry) != request(bs[i].entry)) {
				t.Errorf("live and in the file:\n%s\n%s", exchangeLine(as[i]), exchangeLine(bs[i]))
			}
		}
	}
}

// message is a request or a final response that tshark shows.
type message struct {
	client   netip.AddrPort
	response bool
	text     string // method and target, or status
}

// tshark returns the messages of a file. After RST a connection is over: what
// crossed it is for nobody.
func tshark(t *testing.T, file string) []message {
	t.Helper()
	names := []string{
		"tcp.stream", "ip.src", "ipv6.src", "tcp.srcport", "ip.dst", "ipv6.dst", "tcp.dstport", "tcp.flags.reset",
		"http.request.method", "http.request.uri", "http.response.code",
	}
	args := []string{
		"-n", "-r", file, "-o", "tcp.reassemble_out_of_order:TRUE", "-d", fmt.Sprintf("tcp.port==%d,http", port), "-Y", "http.request || http.response || tcp.flags.reset == 1",
		"-T", "fields", "-E", "separator=/t", "-E", "aggregator=|",
	}
	for _, n := range names {
		args = append(args, "-e", n)
	}
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	var all []message
	reset := make(map[string]bool)
	for l := range strings.Lines(string(out)) {
		f := make(map[string]string)
		for i, value := range strings.Split(strings.TrimSuffix(l, "\n"), "\t") {
			f[names[i]] = value
		}
		if reset[f["tcp.stream"]] {
			continue
		}
		reset[f["tcp.stream"]] = f["tcp.flags.reset"] == "1" || f["tcp.flags.reset"] == "True"
		if f["http.request.method"] != "" {
			methods, targets := strings.Split(f["http.request.method"], "|"), strings.Split(f["http.request.uri"], "|")
			client := tsharkAddr(t, f["ip.src"]+f["ipv6.src"], f["tcp.srcport"])
			for i := range methods {
				all = append(all, message{client, false, methods[i] + " " + targets[i]})
			}
		}
		if f["http.response.code"] != "" {
			client := tsharkAddr(t, f["ip.dst"]+f["ipv6.dst"], f["tcp.dstport"])
			for code := range strings.SplitSeq(f["http.response.code"], "|") {
				if code >= "200" || code == "101" {
					all = append(all, message{client, true, code})
				}
			}
		}
	}
	return all
}

func tsharkAddr(t *testing.T, ip, port string) netip.AddrPort {
	t.Helper()
	a, err := netip.ParseAddrPort("[" + ip + "]:" + port)
	if err != nil {
		a, err = netip.ParseAddrPort(ip + ":" + port)
	}
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	return a
}

// compareTshark tests that tshark sees the same requests and responses in the
// same order on each connection. It shows a message when it has seen all of it, so
// it may lack one that was cut off, after which there is no other.
func compareTshark(t *testing.T, file string, exchanges []exchanged) {
	t.Helper()
	messages := byClient(tshark(t, file), func(m message) netip.AddrPort { return m.client })
	seen := byClient(exchanges, clientOf)
	faults := 0
	for _, client := range keys(messages, seen) {
		want, got := [2][]string{{}, {}}, [2][]string{{}, {}} // requests, responses
		for _, m := range messages[client] {
			switch {
			case m.response:
				want[1] = append(want[1], m.text)
			case !strings.HasSuffix(m.text, bytewiseContent):
				want[0] = append(want[0], m.text)
			}
		}
		var cut [2]bool // the last of them
		for _, x := range seen[client] {
			unfinished := x.outcome != "complete"
			if x.target != bytewiseContent {
				got[0], cut[0] = append(got[0], request(x.entry)), unfinished && x.up > 0
			}
			if x.status != 0 {
				got[1], cut[1] = append(got[1], strconv.Itoa(x.status)), unfinished
			}
		}
		for i := range got {
			if n := len(got[i]); cut[i] && len(want[i]) == n-1 {
				got[i] = got[i][:n-1]
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-tshark +spile):\n%s\n%s", client, diff, strings.Join(lines(seen[client], exchangeLine), "\n"))
			if faults++; faults > 5 {
				t.Fatal("and so on")
			}
		}
	}
}

// compareDisturbed reads the file with its packets in disorder, twice, or not at
// all: what was not captured is missing, and counted, but nothing is different.
func compareDisturbed(t *testing.T, file string, exchanges []exchanged) {
	t.Helper()
	whole, sizeless := tally(lines(exchanges, exchangeLine)), tally(lines(exchanges, withoutSizes))
	for seed := range uint64(5) {
		d := disturbance{seed: seed, duplicate: 20, reorder: 10}
		disturbed, _ := read(t, file, &d)
		if diff := cmp.Diff(whole, tally(lines(disturbed, exchangeLine))); diff != "" {
			t.Errorf("disordered and duplicated, seed %d (-file +disturbed):\n%s", seed, diff)
		}
	}
	incomplete := func(x exchanged) bool { return x.outcome != "complete" }
	all := len(slices.DeleteFunc(slices.Clone(exchanges), incomplete))
	for seed := range uint64(10) {
		d := disturbance{seed: seed, lose: 50, duplicate: 50, reorder: 5}
		lossy, missed := read(t, file, &d)
		lossy = slices.DeleteFunc(lossy, incomplete)
		complete := len(lossy)
		checkFewer(t, seed, tally(lines(lossy, withoutSizes)), sizeless)
		lossy = slices.DeleteFunc(lossy, func(x exchanged) bool { return min(x.up, x.down) == exchange.UnknownSize })
		checkFewer(t, seed, tally(lines(lossy, exchangeLine)), whole)
		if complete < all && missed == 0 {
			t.Errorf("with loss, seed %d: %d exchanges are missing, and nothing was counted", seed, all-complete)
		}
		if seed == 0 {
			t.Logf("%d of %d exchanges at a loss of 2%%", complete, all)
		}
	}
}

func checkFewer(t *testing.T, seed uint64, some, all map[string]int) {
	t.Helper()
	for l, n := range some {
		if n > all[l] {
			t.Errorf("with loss, seed %d: %d times rather than %d: %s", seed, n, all[l], l)
		}
	}
}

// withoutSizes is exchangeLine but for the sizes, of which one is not known if chunks
// are missing.
func withoutSizes(x exchanged) string {
	x.up, x.down = 0, 0
	return exchangeLine(x)
}

func lines[T any](all []T, line func(T) string) []string {
	out := make([]string, len(all))
	for i, x := range all {
		out[i] = line(x)
	}
	return out
}

func tally(lines []string) map[string]int {
	n := make(map[string]int)
	for _, l := range lines {
		n[l]++
	}
	return n
}
