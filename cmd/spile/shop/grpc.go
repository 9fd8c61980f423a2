package shop

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"time"
)

// quoteMethod is the path of the unary gRPC method Quote of the service
// shop.v1.Pricing. Its request is a message with the coupon as field 1, its
// response one with the total in cents as field 1.
const quoteMethod = "/shop.v1.Pricing/Quote"

// Status codes of gRPC.
const (
	grpcOK              = "0"
	grpcInvalidArgument = "3"
	grpcInternal        = "13"
)

const maxMessage = 1 << 20 // bytes

// serveQuote answers a call. Quotes take a while, and an expired coupon is more
// than it can handle.
func serveQuote(w http.ResponseWriter, r *http.Request) {
	message, err := readMessage(r.Body)
	if !work(r.Context(), 60*time.Millisecond) {
		return
	}
	w.Header().Set("Content-Type", "application/grpc")
	code, text := grpcOK, ""
	switch {
	case err != nil:
		code, text = grpcInvalidArgument, err.Error()
	case bytes.Contains(message, []byte("EXPIRED")):
		code, text = grpcInternal, "coupon table is empty"
	default:
		const total = 0x2f // below 128: one byte of a varint
		_, _ = w.Write(frameMessage([]byte{1 << 3, total}))
	}
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", code)
	w.Header().Set(http.TrailerPrefix+"Grpc-Message", text)
}

// quotes is a client of pricing.
type quotes struct{ client http.Client }

// newQuotes returns a client that connects as transport does, by HTTP/2 without
// TLS.
func newQuotes(transport *http.Transport) *quotes {
	t := transport.Clone()
	t.Protocols = new(http.Protocols)
	t.Protocols.SetUnencryptedHTTP2(true)
	return &quotes{http.Client{Transport: t}}
}

// ask calls Quote on behalf of another request.
func (q *quotes) ask(behalf *http.Request, coupon string) error {
	const lengthDelimited = 2
	message := append([]byte{1<<3 | lengthDelimited, byte(min(len(coupon), 127))}, coupon[:min(len(coupon), 127)]...)
	url := "http://" + Pricing + ":" + servicePort + quoteMethod
	req, err := http.NewRequestWithContext(behalf.Context(), http.MethodPost, url, bytes.NewReader(frameMessage(message)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	if parent := behalf.Header.Get("traceparent"); parent != "" {
		req.Header.Set("traceparent", parent)
	}
	resp, err := q.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if code := resp.Trailer.Get("Grpc-Status"); code != grpcOK {
		return fmt.Errorf("gRPC status %s: %s", code, resp.Trailer.Get("Grpc-Message"))
	}
	return nil
}

// frameMessage puts the prefix of gRPC before a message: not compressed, length.
func frameMessage(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

func readMessage(r io.Reader) ([]byte, error) {
	var prefix [5]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, fmt.Errorf("reading the prefix of a message: %w", err)
	}
	n := binary.BigEndian.Uint32(prefix[1:])
	if n > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes; the largest is %d", n, maxMessage)
	}
	message := make([]byte, n)
	if _, err := io.ReadFull(r, message); err != nil {
		return nil, fmt.Errorf("reading a message: %w", err)
	}
	return message, nil
}
