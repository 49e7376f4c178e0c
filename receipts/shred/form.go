package shred

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
)

// A file of keys is
//
//	"writkey1", number of its first key uint64, CRC-32C of both,
//	up to 1,024 slots
//
// and a slot
//
//	owner     'r' and a run's ULID, or 'd' and a day since 1970 as 16 bytes
//	from      uint64, the first sequence it is used for
//	place     uint16, its position in the group that was synced with it
//	state     1 live, 2 shredded
//	key       live: nonce, and the key encrypted (AES-256-GCM);
//	          shredded: ULID of the receipt that says so, and zeros
//	CRC-32C of all that
//
// all big-endian. A file is appended to, and synced, before its last key is
// used; it is replaced as a whole when one is destroyed.
const (
	fileMagic = "writkey1"
	fileHead  = 8 + 8 + 4
	perFile   = 1024

	ownerBytes  = 1 + 16
	nonceBytes  = 12
	sealedBytes = 32 + 16
	slotBytes   = ownerBytes + 8 + 2 + 1 + nonceBytes + sealedBytes + 4

	live     = 1
	shredded = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// owner is whose key it is.
type owner [ownerBytes]byte

type slot struct {
	owner owner
	from  int64
	place int
	state byte
	key   [nonceBytes + sealedBytes]byte
}

func (s slot) append(b []byte) []byte {
	start := len(b)
	b = append(b, s.owner[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.from))
	b = binary.BigEndian.AppendUint16(b, uint16(s.place))
	b = append(b, s.state)
	b = append(b, s.key[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

func parseSlot(b []byte) (s slot, ok bool) {
	if len(b) < slotBytes || crc32.Checksum(b[:slotBytes-4], castagnoli) != binary.BigEndian.Uint32(b[slotBytes-4:]) {
		return s, false
	}
	s.owner = owner(b)
	b = b[ownerBytes:]
	s.from, s.place, s.state = int64(binary.BigEndian.Uint64(b)), int(binary.BigEndian.Uint16(b[8:])), b[10]
	copy(s.key[:], b[11:])
	return s, s.from >= 0 && (s.state == live || s.state == shredded)
}

func fileName(n int64) string { return fmt.Sprintf("%08d.keys", n) }

func header(file int64) []byte {
	b := append(make([]byte, 0, fileHead+perFile*slotBytes), fileMagic...)
	b = binary.BigEndian.AppendUint64(b, uint64(file*perFile+1))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// parseFile reads the slots of a file. Only the last one may have a torn end;
// cut is where that begins, or the file's size.
func parseFile(b []byte, file int64, last bool) (slots []slot, cut int, err error) {
	damaged := func(at int) ([]slot, int, error) {
		return nil, 0, fmt.Errorf("%s is damaged at byte %d", fileName(file), at)
	}
	if len(b) < fileHead || !slices.Equal(b[:fileHead], header(file)) || len(b) > fileHead+perFile*slotBytes {
		return damaged(0)
	}
	for cut = fileHead; cut < len(b); cut += slotBytes {
		s, ok := parseSlot(b[cut:])
		if !ok {
			break
		}
		slots = append(slots, s)
	}
	if cut == len(b) {
		return slots, cut, nil
	}
	if !last {
		return damaged(cut)
	}
	// A later group was written when this place was already synced.
	for at := cut + slotBytes; at+slotBytes <= len(b); at += slotBytes {
		if s, ok := parseSlot(b[at:]); ok && (at-cut)/slotBytes > s.place {
			return damaged(cut)
		}
	}
	return slots, cut, nil
}
