package client

import (
	"context"
	"io"
	"iter"

	"github.com/writ-gateway/writ"
)

// Receipt is a receipt as the gateway shows it. Envelope is what was signed;
// Statement is its payload, for reading.
type Receipt struct {
	ID        writ.ReceiptID `json:"receipt_id"`
	RunKey    string         `json:"run_key,omitempty"` // another name of it, for people
	Seq       int64          `json:"seq"`
	Kind      string         `json:"kind"` // writ.FactSealed, or writ.FactForeign: somebody else signed it
	Envelope  writ.RawObject `json:"envelope"`
	Statement writ.RawObject `json:"statement"`
}

// GetReceipt shows a receipt.
func (c *Client) GetReceipt(ctx context.Context, id writ.ReceiptID) (r Receipt, err error) {
	_, err = c.Invoke(ctx, "receipt.get", struct {
		ID writ.ReceiptID `json:"receipt_id"`
	}{id}, &r)
	return r, err
}

type page struct {
	After int64      `json:"after"`
	Limit int64      `json:"limit,omitempty"`
	Run   writ.RunID `json:"run_id,omitempty"`
}

// Receipts goes through the log after a sequence (-1: from the start), only a
// run's when one is given, until its present end. It stops at the first error.
func (c *Client) Receipts(ctx context.Context, after int64, run writ.RunID) iter.Seq2[Receipt, error] {
	return func(yield func(Receipt, error) bool) {
		for {
			var got struct {
				Receipts  []Receipt `json:"receipts"`
				NextAfter int64     `json:"next_after"`
				More      bool      `json:"more"`
			}
			if _, err := c.Invoke(ctx, "receipt.list", page{After: after, Limit: 200, Run: run}, &got); err != nil {
				yield(Receipt{}, err)
				return
			}
			for _, r := range got.Receipts {
				if !yield(r, nil) {
					return
				}
			}
			if !got.More || got.NextAfter <= after {
				return
			}
			after = got.NextAfter
		}
	}
}

// Export is a signed piece of the log: a header, envelopes without a gap, and
// a head signed over all of them.
type Export struct {
	Header    writ.RawObject   `json:"header"`
	Receipts  []writ.RawObject `json:"receipts"`
	Head      writ.RawObject   `json:"head"`
	NextAfter int64            `json:"next_after"`
	More      bool             `json:"more"`
}

// WriteTo writes the piece as JSON Lines, the form in which it is checked. The
// header is written with the first piece of a file only: set Header to nil for
// the others.
func (e Export) WriteTo(w io.Writer) (n int64, err error) {
	line := func(b writ.RawObject) {
		if err == nil {
			var k int
			k, err = w.Write(append(append([]byte{}, b...), '\n'))
			n += int64(k)
		}
	}
	if e.Header != nil {
		line(e.Header)
	}
	for _, r := range e.Receipts {
		line(r)
	}
	line(e.Head)
	return n, err
}

// Exports goes through the log after a sequence (-1: from the start) in signed
// pieces, until its present end. Written one after another they are one file;
// pieces after the first come without a header. It stops at the first error.
func (c *Client) Exports(ctx context.Context, after int64) iter.Seq2[Export, error] {
	return func(yield func(Export, error) bool) {
		for pieces := 0; ; {
			var e Export
			if _, err := c.Invoke(ctx, "receipt.export", page{After: after}, &e); err != nil {
				yield(Export{}, err)
				return
			}
			if pieces++; pieces > 1 {
				e.Header = nil
			}
			if !yield(e, nil) || !e.More || e.NextAfter <= after {
				return
			}
			after = e.NextAfter
		}
	}
}
