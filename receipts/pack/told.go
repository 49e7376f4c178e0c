package pack

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// told is what the evidence of a receipt says of its call, as far as it is there. It is read
// as every other reader reads it: a name is the same in the same letters only, and what has
// one twice, or text that is none, says nothing.
type told struct {
	Object struct {
		Args    jsontext.Value `json:"args"`
		Limited []limited      `json:"limited"`
		Verdict jsontext.Value `json:"verdict"` // signed by who judges
	} `json:"object"`
}

// limited is an argument of which policy took no more.
type limited struct {
	Argument string  `json:"argument"`
	Max      float64 `json:"max"`
}

// taken is what was taken of a number that an argument asks for.
func (t *told) taken(argument string, n *float64) *float64 {
	for _, l := range t.Object.Limited {
		if n != nil && l.Argument == argument && l.Max < *n {
			n = &l.Max
		}
	}
	return n
}

// evidenceOf reads the evidence of a receipt, which was held to its digest before; nil where it is not there, or says
// nothing.
func (c *check) evidenceOf(seq int64) (*told, error) {
	if !c.p.has(evidenceName(seq)) {
		return nil, nil
	}
	text, err := c.p.read(evidenceName(seq))
	if err != nil {
		return nil, err
	}
	var t told
	if json.Unmarshal(text, &t) != nil {
		return nil, nil
	}
	return &t, nil
}

// says reads what v has of the arguments, and no more; false where nobody says, or in another
// form.
func (t *told) says(v any) bool {
	return t != nil && t.Object.Args.Kind() == '{' && json.Unmarshal(t.Object.Args, v) == nil
}
