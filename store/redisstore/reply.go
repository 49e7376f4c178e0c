package redisstore

import (
	"errors"
	"strconv"
)

var errReply = errors.New("the redis server answered in an unexpected form")

// reply reads a script's answer item by item. The first item of another form
// sets err; what follows is then zero.
type reply struct {
	list []any
	err  error
}

func (r *reply) next() any {
	if len(r.list) == 0 {
		r.err = errReply
		return nil
	}
	v := r.list[0]
	r.list = r.list[1:]
	return v
}

// str is a text; nil is "".
func (r *reply) str() string {
	switch v := r.next().(type) {
	case string:
		return v
	case nil:
	default:
		r.err = errReply
	}
	return ""
}

// int is a number, as such or in decimal; nil is 0.
func (r *reply) int() int64 {
	switch v := r.next().(type) {
	case int64:
		return v
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			r.err = errReply
		}
		return n
	case nil:
	default:
		r.err = errReply
	}
	return 0
}

// sub is a list within.
func (r *reply) sub() reply {
	if v, ok := r.next().([]any); ok {
		return reply{list: v}
	}
	r.err = errReply
	return reply{err: errReply}
}
