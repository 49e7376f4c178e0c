package jail

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "build jail-init again")

// builtFrom names the toolchain and the sources of the committed programs.
const builtFrom = "image/built-from"

// The first process of a jail is what cmd/jail-init says, byte for byte. Another toolchain writes
// other bytes; with it at least the sources are those the programs were built from.
func TestImageIsUpToDate(t *testing.T) {
	now := runtime.Version() + " " + digestOf(t, "../go.mod", "../cmd/jail-init/*.go", "wire/coder.go", "wire/launch.go", "wire/wire.go") + "\n"
	if *update {
		if err := os.WriteFile(builtFrom, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	was, err := os.ReadFile(builtFrom)
	if err != nil {
		t.Fatal(err)
	}
	toolchain, sources, _ := strings.Cut(string(was), " ")
	if _, s, _ := strings.Cut(now, " "); s != sources {
		t.Error("the sources of jail-init have changed: run make generate")
	}
	if runtime.Version() != toolchain {
		t.Logf("built by %s; this is %s, and the bytes are not compared", toolchain, runtime.Version())
		return
	}
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			built := filepath.Join(t.TempDir(), "jail-init")
			build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", built, "../cmd/jail-init")
			build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=", "GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GOFIPS140=off")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatal(err, string(out))
			}
			want, err := os.ReadFile(built)
			if err != nil {
				t.Fatal(err)
			}
			name := "image/jail-init-" + arch + ".gz"
			if *update {
				var b bytes.Buffer
				z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
				if _, err := z.Write(want); err != nil || z.Close() != nil {
					t.Fatal(err)
				}
				if old, _ := unpacked(name); !bytes.Equal(old, want) { // another compressor is no other program
					if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			got, err := unpacked(name)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s is not what cmd/jail-init builds to: run make generate (%v)", name, err)
			}
		})
	}
}

// digestOf names files by their text. Of go.mod only the line of the one module matters.
func digestOf(t *testing.T, patterns ...string) string {
	t.Helper()
	sum := sha256.New()
	for _, pattern := range patterns {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatal(pattern, err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				if filepath.Base(name) != "go.mod" || strings.Contains(line, "golang.org/x/sys ") {
					fmt.Fprint(sum, line)
				}
			}
		}
	}
	return fmt.Sprintf("sha256:%x", sum.Sum(nil))
}

func unpacked(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}
