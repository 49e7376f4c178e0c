package wire

// coder writes what it is shown, or reads into it. What is read are pieces of one copy of the message: the first process of a jail
// keeps what it was sent as long as the agent runs, and each kind of small object has pages of its own.
type coder struct {
	buf        []byte // written
	text       string // not read yet
	reads, bad bool
}

func writer() coder { return coder{buf: make([]byte, 0, 256)} }

func reader(b []byte) coder { return coder{text: string(b), reads: true} }

// all says whether all of a message was read, and all was as it must be.
func (c *coder) all() bool { return !c.bad && c.text == "" }

func (c *coder) fail() { c.bad, c.text = true, "" }

func (c *coder) u64(all ...*uint64) {
	for _, p := range all {
		if !c.reads {
			for i := range 8 {
				c.buf = append(c.buf, byte(*p>>(8*i)))
			}
			continue
		}
		*p = 0
		if len(c.text) < 8 {
			c.fail()
			return
		}
		for i := range 8 {
			*p |= uint64(c.text[i]) << (8 * i)
		}
		c.text = c.text[8:]
	}
}

func (c *coder) u32(all ...*uint32) {
	for _, p := range all {
		v := uint64(*p)
		c.u64(&v)
		*p = uint32(v)
		c.bad = c.bad || v>>32 != 0
	}
}

func (c *coder) yes(p *bool) {
	var v uint64
	if *p {
		v = 1
	}
	c.u64(&v)
	*p = v == 1
	c.bad = c.bad || v > 1
}

func (c *coder) str(all ...*string) {
	for _, p := range all {
		n := uint64(len(*p))
		c.u64(&n)
		switch {
		case !c.reads:
			c.buf = append(c.buf, *p...)
		case n > uint64(len(c.text)):
			c.fail()
		default:
			*p, c.text = c.text[:n], c.text[n:]
		}
	}
}

// each walks a list. Nothing is made for what a message only claims to hold: each of a list is 8 bytes of it at least.
func each[T any](c *coder, list *[]T, walk func(*T)) {
	n := uint64(len(*list))
	c.u64(&n)
	if !c.reads {
		for i := range *list {
			walk(&(*list)[i])
		}
		return
	}
	*list = nil
	if n > uint64(len(c.text)/8) {
		c.fail()
		return
	}
	if n == 0 {
		return
	}
	*list = make([]T, n)
	for i := range *list {
		if !c.bad {
			walk(&(*list)[i])
		}
	}
}
