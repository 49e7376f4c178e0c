package policies

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/writ-gateway/writ"
)

// Contents is what a bundle holds, found out without compiling it.
type Contents struct {
	Digest   string         // of Bundle
	Bundle   []byte         // canonical tar
	Packed   []byte         // the same, compressed
	Packs    []writ.PackVer // by id; without a version where pack.yaml cannot be read
	Policy   string         // revisions it would have here; empty where a pack.yaml cannot be read
	Bindings string
	bound    []row
}

// Bound is who the roles' file of the bundle binds in a tenant; nobody, when the
// file cannot be read.
func (c Contents) Bound(tenant writ.Tenant) writ.BindingSet { return boundBy(c.bound, tenant) }

// maxUpload is how large a bundle that somebody sends may be, uncompressed. It
// is seven times what 200 packs of a usual size come to.
const maxUpload = 4 << 20

var (
	gzipMagic = []byte{0x1f, 0x8b}
	fileName  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$`)
)

// OpenBundle takes a bundle apart as somebody sent it: a tar, plain or with
// gzip, with packs/<id>/… and perhaps roles/…. Files no decision depends on
// (tests, prose, OPA's .manifest) are left out; role files it does not have are
// taken from the bundle in force, if there is one; with add, so are the packs it
// does not have. Errors are *writ.Error with
// code too_large or input_invalid and repeat nothing that was sent.
func OpenBundle(sent, inForce []byte, add bool) (Contents, error) {
	plain, err := inflate(sent)
	if err != nil {
		return Contents{}, err
	}
	f, err := readUpload(plain)
	if err != nil {
		return Contents{}, err
	}
	if len(inForce) > 0 {
		old, err := readBundle(inForce)
		if err != nil {
			return Contents{}, writ.Fault(writ.CodeInternal, opOpen, err)
		}
		has := packFiles(f)
		for name, b := range old {
			id, _, pack := inPackDir(name)
			if !pack && f[name] == nil || pack && add && has[id] == nil {
				f[name] = b
			}
		}
	}
	for _, name := range []string{modelFile, rowsFile} {
		if f[name] == nil {
			return Contents{}, badBundle(name + " is missing, and there are no roles in force to keep")
		}
	}
	b, err := writeBundle(f)
	if err != nil {
		return Contents{}, badBundle("it holds a file that a bundle cannot name")
	}
	return contents(f, b)
}

// OpenCanonical is OpenBundle for the bytes (*Engine).Bundle gives.
func OpenCanonical(b []byte) (Contents, error) {
	f, err := readBundle(b)
	if err != nil {
		return Contents{}, badBundle("it is not in canonical form")
	}
	return contents(f, b)
}

func contents(f files, b []byte) (Contents, error) {
	c := Contents{Digest: digest(b), Bundle: b, Bindings: bindingsRevision(f)}
	if rows, err := parseRows(f[rowsFile]); err == nil {
		c.bound = rows
	}
	groups := packFiles(f)
	var packs []*pack
	legible := true
	for id, g := range groups {
		p := &pack{digest: g.digest()}
		m, err := parseManifest(id, g["pack.yaml"])
		if legible = legible && err == nil; err == nil {
			p.manifest = *m
		}
		p.ID = id
		packs = append(packs, p)
	}
	slices.SortFunc(packs, func(a, b *pack) int { return strings.Compare(a.ID, b.ID) })
	for _, p := range packs {
		c.Packs = append(c.Packs, p.ver())
	}
	if legible {
		c.Policy = revision(packs)
	}
	var err error
	c.Packed, err = packed(c.Digest, b)
	return c, err
}

// compressed is a canonical bundle in fewer bytes, which nobody changes.
type compressed struct {
	digest string // of the bundle
	bytes  []byte
}

// lastPacked is what was compressed last: a bundle is, when it is proposed, and again when that is taken.
var lastPacked atomic.Pointer[compressed]

func packed(digest string, b []byte) ([]byte, error) {
	if last := lastPacked.Load(); last != nil && last.digest == digest {
		return last.bytes, nil
	}
	out, err := deflate(b)
	if err == nil {
		lastPacked.Store(&compressed{digest, out})
	}
	return out, err
}

const opOpen = "policies.OpenBundle"

func badBundle(why string) *writ.Error {
	return &writ.Error{
		Code: writ.CodeInputInvalid, Op: opOpen, Msg: "this is not a policy bundle",
		Hint:   "send a tar, plain or gzip'd, with packs/<id>/… and perhaps roles/…; writ policy stage DIR makes one",
		Fields: []writ.FieldError{{Pointer: "/bundle", Msg: why}},
	}
}

func largeBundle(what string) *writ.Error {
	return writ.Refuse(writ.CodeTooLarge, opOpen, "the bundle is over its limits: "+what, "stage fewer or smaller packs")
}

func deflate(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w := gzip.NewWriter(&out) // the best compression takes twice as long and saves a hundredth
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	err := w.Close()
	return out.Bytes(), err
}

// inflate undoes gzip, if there is any, up to a limit.
func inflate(b []byte) ([]byte, error) {
	if !bytes.HasPrefix(b, gzipMagic) {
		if len(b) > maxUpload {
			return nil, largeBundle("more than " + strconv.Itoa(maxUpload) + " bytes")
		}
		return b, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, badBundle("it is damaged: gzip cannot be read")
	}
	out, err := io.ReadAll(io.LimitReader(r, maxUpload+1))
	switch {
	case err != nil:
		return nil, badBundle("it is damaged: gzip cannot be read")
	case len(out) > maxUpload:
		return nil, largeBundle("more than " + strconv.Itoa(maxUpload) + " bytes uncompressed")
	}
	return out, nil
}

// Unpack gives the canonical bundle back that Contents.Packed holds, and checks
// that it is the one its digest names.
func Unpack(packed []byte, want string) ([]byte, error) {
	b, err := inflate(packed)
	if err != nil {
		return nil, err
	}
	if digest(b) != want {
		return nil, errors.New("the stored bundle is not the one its digest names")
	}
	return b, nil
}

// readUpload reads the files that decide.
func readUpload(b []byte) (files, error) {
	out, total, r := files{}, 0, tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, badBundle("the tar cannot be read")
		}
		name := inPacks(path.Clean("/" + strings.TrimPrefix(h.Name, "./"))[1:])
		switch {
		case h.Typeflag == tar.TypeDir:
			continue
		case h.Typeflag != tar.TypeReg:
			return nil, badBundle("it holds something that is neither a file nor a directory")
		case strings.Contains(h.Name, ".."):
			return nil, badBundle("it holds a path that leads upwards")
		}
		keep, err := wanted(name)
		if err != nil {
			return nil, err
		}
		if !keep {
			continue
		}
		if out[name] != nil {
			return nil, badBundle(name + " is in it twice")
		}
		body, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
		if err != nil {
			return nil, badBundle(name + " cannot be read")
		}
		if total += len(body); len(body) > maxFileBytes || total > maxTotalBytes || len(out) == maxFiles {
			return nil, largeBundle(fmt.Sprintf("a file of more than %d bytes, or more than %d bytes or %d files in all", maxFileBytes, maxTotalBytes, maxFiles))
		}
		out[name] = body
	}
}

// inPacks is where a file lies in a source. Bundles that OPA loads too, as
// writ policy bundle makes them, have their packs at the top.
func inPacks(name string) string {
	id, _, pack := inPackDir("packs/" + name)
	if pack && id != "packs" && id != "roles" && packID.MatchString(id) {
		return "packs/" + name
	}
	return name
}

// wanted says whether a decision depends on a file of an uploaded bundle.
func wanted(name string) (bool, error) {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	switch {
	case name == modelFile, name == rowsFile:
		return true, nil
	case dir == "" && strings.HasPrefix(base, "."), dir == "roles" && path.Ext(base) == ".md": // .manifest, .signatures.json
		return false, nil
	}
	id, base, pack := inPackDir(name)
	if dir == "packs" {
		if decides, err := decides(path.Base(name)); decides || err != nil {
			return false, badBundle("packs/ holds a file that belongs to no pack")
		}
		return false, nil
	}
	if !pack || !packID.MatchString(id) {
		return false, badBundle("it holds a file that is neither a pack's nor the roles'; packs are packs/<id>/, and `opa build` drops what they need (pack.yaml)")
	}
	is, err := decides(base)
	switch {
	case err != nil:
		return false, badBundle("packs/" + id + ": " + err.Error())
	case is && !fileName.MatchString(path.Base(name)):
		return false, badBundle("packs/" + id + " holds a file with a strange name")
	}
	return is, nil
}

// PackDirectory is a directory laid out like the shipped policies as a
// compressed bundle, to be sent to a gateway. It may lack roles/, or a file of
// it: the gateway keeps the ones in force.
func PackDirectory(dir string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := readSome(root.FS(), false)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	b, err := writeBundle(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return deflate(b)
}

// PackFile is a bundle in a file as it can be sent to a gateway: compressed, and
// found to be one.
func PackFile(name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	plain, err := inflate(b)
	if err == nil {
		_, err = readUpload(plain)
	}
	if err != nil || bytes.HasPrefix(b, gzipMagic) {
		return b, err
	}
	return deflate(plain)
}

// Pack is a source as a compressed bundle, to be sent to a gateway. It does not
// compile it.
func Pack(src Source) (packed []byte, digest string, err error) {
	f, err := src.read()
	if err != nil {
		return nil, "", err
	}
	b, err := writeBundle(f)
	if err != nil {
		return nil, "", err
	}
	c, err := contents(f, b)
	return c.Packed, c.Digest, err
}
