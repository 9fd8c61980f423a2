package flow

// list holds connections, least recently used first. It is a ring around root.
type list struct {
	root conn
	n    int
}

func (l *list) init() { l.root.newer, l.root.older = &l.root, &l.root }

// add makes c the most recently used.
func (l *list) add(c *conn) {
	c.older, c.newer = l.root.older, &l.root
	c.older.newer, c.newer.older = c, c
	l.n++
}

func (l *list) remove(c *conn) {
	c.older.newer, c.newer.older = c.newer, c.older
	c.older, c.newer = nil, nil
	l.n--
}

// oldest returns the least recently used, of which there must be one.
func (l *list) oldest() *conn { return l.root.newer }

func (c *conn) listed() bool { return c.newer != nil }
