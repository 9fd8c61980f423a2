package exchange

import "unsafe"

// take counts n bytes as held for the connection, or reports that there is no
// room for them. A connection may hold as much as it leaves free for others
// (dynamic thresholds, Choudhury and Hahne 1998), so that those that want all
// that they can get leave room for those that do not.
func (c *Conn) take(n int64) bool {
	held := &c.e.Stats.HeldBytes
	if c.heldBytes+n > int64(c.e.limits.Buffered)-*held {
		return false
	}
	c.heldBytes += n
	*held += n
	return true
}

// takeUnproven is take of what is no message yet. It leaves half of the room to
// messages, so that those of others find some when many are begun and none is ended.
func (c *Conn) takeUnproven(n int64) bool {
	return c.e.Stats.HeldBytes+n <= int64(c.e.limits.Buffered/2) && c.take(n)
}

// give counts n bytes as not held any more.
func (c *Conn) give(n int64) {
	c.heldBytes -= n
	c.e.Stats.HeldBytes -= n
}

// pending is an exchange in progress.
type pending struct {
	x            Exchange
	requestDone  bool
	responseDone bool
	ambiguous    bool
	unsent       bool  // the client may never send the content: it awaits 100 (Continue)
	held         int64 // its part of Stats.HeldBytes
	// The heads, which the strings of x point into. Their memory is used again.
	request, response []byte
}

// keep copies a message head into memory that an earlier exchange may have left,
// and returns it as a string that is valid as long as the exchange.
func keep(memory *[]byte, b []byte) string {
	if cap(*memory) < len(b) {
		*memory = make([]byte, 0, len(b))
	}
	*memory = append((*memory)[:0], b...)
	return unsafe.String(unsafe.SliceData(*memory), len(b))
}

func (c *Conn) newPending() *pending {
	e := c.e
	e.Stats.Seen++
	e.Stats.InFlight++
	if n := len(e.free); n > 0 {
		p := e.free[n-1]
		e.free = e.free[:n-1]
		return p
	}
	return new(pending)
}

// charge counts a head among what is held for an exchange, or reports that there
// is no room for it.
func (c *Conn) charge(p *pending, bytes, fields int) bool {
	n := int64(bytes) + int64(fields)*int64(unsafe.Sizeof(Field{}))
	if p.held == 0 {
		n += int64(unsafe.Sizeof(*p))
	}
	if !c.take(n) {
		return false
	}
	p.held += n
	return true
}

// recycle keeps a few finished ones, with their memory, for the next.
func (c *Conn) recycle(p *pending) {
	const most, fields, bytes = 64, 64, 2 << 10
	e := c.e
	e.Stats.InFlight--
	c.give(p.held)
	if len(e.free) >= most {
		return
	}
	x := &p.x
	request, response := x.Request.Fields, x.Response.Fields
	if cap(request) > fields {
		request = nil
	}
	if cap(response) > fields {
		response = nil
	}
	if cap(p.request) > bytes {
		p.request = nil
	}
	if cap(p.response) > bytes {
		p.response = nil
	}
	*p = pending{request: p.request, response: p.response}
	x.Request.Fields, x.Response.Fields = request[:0], response[:0]
	e.free = append(e.free, p)
}

func (c *Conn) drop(p *pending, why Drop) {
	c.e.Stats.Dropped[why]++
	c.recycle(p)
}

// pop forgets the first exchange in progress.
func (c *Conn) pop() {
	if c.upload == c.pending[0] {
		c.upload = nil
	}
	copy(c.pending, c.pending[1:])
	c.pending[len(c.pending)-1] = nil
	c.pending = c.pending[:len(c.pending)-1]
}

func (c *Conn) dropPending(why Drop) {
	for len(c.pending) > 0 {
		p := c.pending[0]
		c.pop()
		c.drop(p, why)
	}
}
