package jail

import (
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// linked is what a program needs to start: its loader, and the libraries it and they name.
type linked struct {
	loader    string
	libraries []string
}

// usualDirs is where a loader looks without a cache.
var usualDirs = []string{
	"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu",
	"/lib64", "/usr/lib64", "/lib", "/usr/lib",
}

// linksOf reads the headers of a program. A static one, and one that is no ELF file, needs nothing. Of a library
// that cannot be found nothing is said: the loader will, by its name.
func linksOf(program string) (linked, error) {
	var out linked
	seen := map[string]bool{}
	queue := []string{program}
	var paths []string // of the program, for all
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		f, err := elf.Open(name)
		if err != nil {
			if _, ok := errors.AsType[*elf.FormatError](err); ok {
				continue
			}
			return linked{}, err
		}
		needed, _ := f.ImportedLibraries()
		for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
			more, _ := f.DynString(tag)
			for _, m := range more {
				for dir := range strings.SplitSeq(m, ":") {
					dir = strings.NewReplacer("$ORIGIN", filepath.Dir(name), "${ORIGIN}", filepath.Dir(name)).Replace(dir)
					if filepath.IsAbs(dir) {
						paths = append(paths, filepath.Clean(dir))
					}
				}
			}
		}
		if name == program {
			out.loader = interpreterOf(f)
		}
		_ = f.Close()
		for _, lib := range needed {
			if seen[lib] || strings.Contains(lib, "/") {
				continue
			}
			seen[lib] = true
			for _, dir := range slices.Concat(paths, usualDirs) {
				at := filepath.Join(dir, lib)
				if _, err := os.Stat(at); err == nil {
					out.libraries = append(out.libraries, at)
					queue = append(queue, at)
					break
				}
			}
		}
	}
	return out, nil
}

func interpreterOf(f *elf.File) string {
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > 4096 {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err == nil {
			return strings.TrimRight(string(b), "\x00")
		}
	}
	return ""
}
