package seccomp

import (
	"encoding/binary"
	"slices"
)

// span is a run of call numbers, up to the next span, with one rule.
type span struct {
	from uint32
	rule Rule
}

// spans covers all numbers; neighbours of one fate are one span.
func spans(rules map[uint32]Rule, limit uint32) []span {
	rest := Rule{Else: Errno(enosys)}
	out := []span{{0, rest}}
	put := func(n uint32, r Rule) {
		last := &out[len(out)-1]
		switch {
		case len(r.Cases) == 0 && len(last.rule.Cases) == 0 && last.rule.Else == r.Else:
		case last.from == n:
			last.rule = r
		default:
			out = append(out, span{n, r})
		}
	}
	numbers := make([]uint32, 0, len(rules))
	for n := range rules {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	next := uint32(0)
	for _, n := range numbers {
		if n > next {
			put(next, rest)
		}
		put(n, rules[n])
		next = n + 1
	}
	put(next, rest)
	if limit != 0 {
		put(limit, Rule{Else: Kill})
	}
	return out
}

// Classic BPF, as far as a filter needs it.
const (
	opLoad  = 0x20 // A = data[k]
	opAnd   = 0x54 // A &= k
	opJump  = 0x05
	opEqual = 0x15 // if A == k
	opAbove = 0x35 // if A >= k
	opRet   = 0x06
)

type code []byte

func (c *code) put(op uint16, jt, jf uint8, k uint32) {
	*c = binary.LittleEndian.AppendUint16(*c, op)
	*c = append(*c, jt, jf)
	*c = binary.LittleEndian.AppendUint32(*c, k)
}

func (c code) len() uint32 { return uint32(len(c) / 8) }

// assemble looks at the architecture and finds the span of the number by halving, which is
// at most nine comparisons.
func assemble(m machine, rules map[uint32]Rule) []byte {
	var c code
	c.put(opLoad, 0, 0, 4) // arch
	c.put(opEqual, 1, 0, m.audit)
	c.put(opRet, 0, 0, uint32(Kill))
	c.put(opLoad, 0, 0, 0) // nr
	return append(c, search(spans(rules, m.limit))...)
}

func search(s []span) code {
	if len(s) == 1 {
		return answer(s[0].rule)
	}
	half := len(s) / 2
	low, high := search(s[:half]), search(s[half:])
	var c code
	c.put(opAbove, 0, 1, s[half].from)
	c.put(opJump, 0, 0, low.len())
	return append(append(c, low...), high...)
}

// answer tries the cases one after another. A condition that does not hold goes to the next case.
func answer(r Rule) code {
	var c code
	for _, k := range r.Cases {
		var body code
		for i := range k.If {
			cond := k.If[i]
			left := uint8(1) // the answer
			for _, later := range k.If[i+1:] {
				left += uint8(later.size())
			}
			at := uint32(16 + 8*cond.Arg)
			if cond.High {
				at += 4
			}
			body.put(opLoad, 0, 0, at)
			if cond.Mask != ^uint32(0) {
				body.put(opAnd, 0, 0, cond.Mask)
			}
			body.put(opEqual, 0, left, cond.Value)
		}
		body.put(opRet, 0, 0, uint32(k.Then))
		c = append(c, body...)
	}
	c.put(opRet, 0, 0, uint32(r.Else))
	return c
}

func (c Cond) size() int {
	if c.Mask != ^uint32(0) {
		return 3
	}
	return 2
}
