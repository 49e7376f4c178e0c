package wire

// coder writes what it is shown, or reads into it.
type coder struct {
	buf        []byte
	reads, bad bool
}

func (c *coder) u64(all ...*uint64) {
	for _, p := range all {
		if !c.reads {
			for i := range 8 {
				c.buf = append(c.buf, byte(*p>>(8*i)))
			}
			continue
		}
		*p = 0
		if len(c.buf) < 8 {
			c.bad, c.buf = true, nil
			return
		}
		for i := range 8 {
			*p |= uint64(c.buf[i]) << (8 * i)
		}
		c.buf = c.buf[8:]
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
		case n > uint64(len(c.buf)):
			c.bad, c.buf = true, nil
		default:
			*p = string(c.buf[:n])
			c.buf = c.buf[n:]
		}
	}
}

// each walks a list. Nothing is made for what a message only claims to hold.
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
	for ; n > 0 && !c.bad; n-- {
		var v T
		walk(&v)
		*list = append(*list, v)
	}
}
