package ledger

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"

	"github.com/writ-gateway/writ"
)

// A record is
//
//	magic  "wrcp"
//	length uint32 of the body
//	crc    uint32 CRC-32C over length and body
//	body   seq uint64, place uint32, receipt ULID 16 bytes, run ULID 16 bytes
//	       (zero: none), key id, signature, payload, sealed evidence,
//	       each with its length as uint32; then, if the evidence was sealed
//	       once more when it was filed, 8 and the number of that key as uint64;
//	       or, of a foreign one, the length and the key that signed it as DER
//
// all big-endian. Place is the record's position in the group that was synced
// with it: it tells a group torn by a crash from damage to an older one.
const (
	magic      = "wrcp"
	headBytes  = 4 + 4 + 4
	fixedBytes = 8 + 4 + 16 + 16
	maxBody    = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errRecord = errors.New("no whole record")

type record struct {
	Entry
	place int64
	size  int64 // with its head
}

// appendRecord appends e as the place-th record of its group and notes its ids.
func appendRecord(b []byte, e Entry, place int, x *entry) ([]byte, error) {
	if !e.ID.Valid() || e.Seq < 0 || e.Run != "" && !e.Run.Valid() {
		return nil, errors.New("a receipt without a valid id, run or sequence")
	}
	x.id = Binary(string(e.ID))
	if e.Run != "" {
		x.run = Binary(string(e.Run))
	}
	parts := [][]byte{[]byte(e.KeyID), e.Sig, e.Payload, e.Evidence}
	if e.EvidenceKey != 0 {
		parts = append(parts, binary.BigEndian.AppendUint64(nil, uint64(e.EvidenceKey)))
	}
	if len(e.Public) > 0 {
		if len(e.Public) <= 8 || e.EvidenceKey != 0 {
			return nil, errors.New("a foreign receipt with evidence of its own, or without a whole key")
		}
		parts = append(parts, e.Public)
	}
	size := fixedBytes
	for _, p := range parts {
		size += 4 + len(p)
	}
	if size > maxBody {
		return nil, errors.New("a receipt larger than any can be")
	}
	b = slices.Grow(b, headBytes+size)
	start := len(b)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Seq))
	b = binary.BigEndian.AppendUint32(b, uint32(place))
	b = append(b, x.id[:]...)
	b = append(b, x.run[:]...)
	for _, p := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	binary.BigEndian.PutUint32(b[start+8:], sum(b[start:]))
	return b, nil
}

// sum is the checksum of a whole record.
func sum(rec []byte) uint32 {
	c := crc32.Update(0, castagnoli, rec[4:8])
	return crc32.Update(c, castagnoli, rec[headBytes:])
}

// readRecord reads the record at the start of b. It keeps nothing of b.
func readRecord(b []byte) (record, error) {
	if len(b) < headBytes+fixedBytes || string(b[:4]) != magic {
		return record{}, errRecord
	}
	n := int64(binary.BigEndian.Uint32(b[4:]))
	if n > maxBody || headBytes+n > int64(len(b)) {
		return record{}, errRecord
	}
	b = b[:headBytes+n]
	if n < fixedBytes || sum(b) != binary.BigEndian.Uint32(b[8:]) {
		return record{}, errRecord
	}
	r := record{size: headBytes + n}
	body := b[headBytes:]
	r.Seq = int64(binary.BigEndian.Uint64(body))
	r.place = int64(binary.BigEndian.Uint32(body[8:]))
	r.ID = writ.ReceiptID(writ.PrefixReceipt + Text([16]byte(body[12:28])))
	if run := [16]byte(body[28:44]); run != [16]byte{} {
		r.Run = writ.RunID(writ.PrefixRun + Text(run))
	}
	var parts [4][]byte
	body = body[fixedBytes:]
	for i := range parts {
		if len(body) < 4 {
			return record{}, errRecord
		}
		n := int64(binary.BigEndian.Uint32(body))
		if body = body[4:]; n > int64(len(body)) {
			return record{}, errRecord
		}
		if n > 0 {
			parts[i] = slices.Clone(body[:n])
		}
		body = body[n:]
	}
	if len(body) == 12 && binary.BigEndian.Uint32(body) == 8 {
		r.EvidenceKey = int64(binary.BigEndian.Uint64(body[4:]))
		if body = nil; r.EvidenceKey <= 0 {
			return record{}, errRecord
		}
	}
	if len(body) > 12 && binary.BigEndian.Uint32(body) == uint32(len(body)-4) {
		r.Public, body = slices.Clone(body[4:]), nil
	}
	if len(body) > 0 || r.Seq < 0 {
		return record{}, errRecord
	}
	r.KeyID, r.Sig, r.Payload, r.Evidence = string(parts[0]), parts[1], parts[2], parts[3]
	return r, nil
}

const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// Binary is the binary form of a valid id with a four-letter prefix.
func Binary(id string) (out [16]byte) {
	var hi, lo uint64
	for _, c := range []byte(id[4:]) {
		var v uint64
		for i := range len(crockford) {
			if crockford[i] == c {
				v = uint64(i)
			}
		}
		hi, lo = hi<<5|lo>>59, lo<<5|v
	}
	binary.BigEndian.PutUint64(out[:8], hi)
	binary.BigEndian.PutUint64(out[8:], lo)
	return out
}

// Text is the inverse of Binary, without a prefix.
func Text(b [16]byte) string {
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	var out [26]byte
	for i := 25; i >= 0; i-- {
		out[i] = crockford[lo&31]
		hi, lo = hi>>5, lo>>5|hi<<59
	}
	return string(out[:])
}
