package shred

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"

	"github.com/writ-gateway/writ"
)

// Open reads the keys in a directory, making it if needed, and carries out the
// shreddings of the log that are not done. A torn end of the last file, as a
// crash leaves it, is cut off: nothing was filed under its keys. Any other
// damage, and another secret than the keys were wrapped with, is refused.
func Open(dir string, secret [32]byte, log Log) (*Keys, error) {
	return open(dir, secret, log, false)
}

// Read opens keys to read evidence with, and changes nothing in the directory: what
// the log says is to be destroyed cannot be read, and is not destroyed.
func Read(dir string, secret [32]byte, log Log) (*Keys, error) {
	return open(dir, secret, log, true)
}

func open(dir string, secret [32]byte, log Log, reading bool) (*Keys, error) {
	k := &Keys{files: files{dir: dir}, latest: map[owner]int64{}, opened: map[int64][]byte{}}
	if reading {
		k.ordered = map[int64]writ.ReceiptID{}
	}
	if err := k.open(secret, log); err != nil {
		return nil, &writ.Error{
			Code: writ.CodeNotReady, Op: "shred.Open", Msg: "the keys of evidence in " + dir + " cannot be used", Err: err,
			Hint: "restore the directory, or evidence.key, from a backup of the same gateway",
		}
	}
	return k, nil
}

func (k *Keys) open(secret [32]byte, log Log) error {
	prk, err := hkdf.Key(sha256.New, secret[:], nil, "writ evidence keys v1", 32)
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(prk)
	if err != nil {
		return err
	}
	if k.wrap, err = cipher.NewGCM(block); err != nil {
		return err
	}
	err = k.files.open(k.reading(), func(file int64, slots []slot) {
		k.known = append(k.known, make([]key, file*perFile-int64(len(k.known)))...)
		for _, s := range slots {
			k.learn(s)
		}
	})
	if err != nil {
		return err
	}
	for n := int64(len(k.known)); n > 0; n-- { // one tells whether the secret is theirs
		if k.known[n-1].state == live {
			if _, err := k.secret(n); err != nil {
				return err
			}
			break
		}
	}
	if k.noted, err = k.files.processed(); err != nil {
		return err
	}
	k.done = min(k.noted, log.Last())
	return k.catchUp(log)
}

// catchUp carries out what the log says and was not done: after a crash, and
// when the keys come from a backup that is older than the log. In that case the
// log may name keys that are not here: their numbers are not used again.
func (k *Keys) catchUp(log Log) error {
	used := int64(0)
	for r, err := range log.All(k.done, log.Last()) {
		if err != nil {
			return err
		}
		if used = max(used, r.EvidenceKey); r.EvidenceKey > 0 && k.state(r.EvidenceKey) == 0 {
			k.missed++
		}
		o, is, err := shredding(r.Payload, r.ID)
		if err != nil {
			return err
		}
		if is {
			if err := k.destroy(o); err != nil {
				return err
			}
		}
		k.done = r.Seq
	}
	if used > int64(len(k.known)) && !k.reading() { // the next is the first of another file
		k.known = append(k.known, make([]key, (used-1)/perFile*perFile+perFile-int64(len(k.known)))...)
		if err := k.files.begin(int64(len(k.known)) / perFile); err != nil { // the next start does not look back so far
			return err
		}
	}
	return k.note()
}

// Missing is how many receipts, of those filed since the keys were last in
// order, have evidence whose key is not here.
func (k *Keys) Missing() int64 { return k.missed }
