package boltstore

import "github.com/writ-gateway/writ"

// callMs is how long a call id is remembered at least; at most twice that.
const callMs = 10 * 60 * 1000

// Call ids go to one of two buckets. When the one in use is ten minutes old
// the other, which holds older ids only, is dropped whole and used next: no
// record is ever deleted singly.

// call finds what was committed under an id.
func (x *shardTx) call(id writ.CallID) (writ.Committed, bool) {
	if id == "" {
		return writ.Committed{}, false
	}
	for _, name := range bucketCalls {
		if v := x.root.Bucket(name).Get([]byte(id)); len(v) == 24 {
			return writ.Committed{Epoch: x.head.epoch, Seq: intOf(v), RunSeq: intOf(v[8:]), At: intOf(v[16:])}, true
		}
	}
	return writ.Committed{}, false
}

// remember notes a commit under its call id.
func (x *shardTx) remember(id writ.CallID, c writ.Committed) {
	if c.At-x.head.callsSince >= callMs {
		x.head.calls = 1 - x.head.calls
		x.head.callsSince = c.At
		name := bucketCalls[x.head.calls]
		x.must(x.root.DeleteBucket(name))
		_, err := x.root.CreateBucket(name)
		x.must(err)
	}
	if id != "" && x.err == nil {
		v := appendInt(appendInt(appendInt(make([]byte, 0, 24), c.Seq), c.RunSeq), c.At)
		x.put(x.root.Bucket(bucketCalls[x.head.calls]), []byte(id), v)
	}
}
