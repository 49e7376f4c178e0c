package jail

import (
	"debug/elf"
	"errors"
	"io"
	"os"
	"path/filepath"
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

// linksOf reads the headers of a program. A static one, and one that is no ELF file, needs nothing.
// What a program says of itself is believed for files of the system only: an agent could name
// anything of the host as its library, and read it. What lies elsewhere is declared as runtime. Of a
// library that cannot be found nothing is said: the loader will, by its name.
func linksOf(program string) (linked, error) {
	var out linked
	if st, err := os.Lstat(program); err != nil {
		return out, err
	} else if !st.Mode().IsRegular() {
		return out, nil // which mounting it refuses
	}
	seen := map[string]bool{}
	for queue := []string{program}; len(queue) > 0; queue = queue[1:] {
		f, err := elf.Open(queue[0])
		if err != nil {
			if _, ok := errors.AsType[*elf.FormatError](err); ok || errors.Is(err, io.EOF) {
				continue
			}
			return linked{}, err
		}
		needed, _ := f.ImportedLibraries()
		if queue[0] == program {
			out.loader = interpreterOf(f)
		}
		_ = f.Close()
		for _, lib := range needed {
			if at := findLibrary(lib); at != "" && !seen[lib] && len(seen) < maxLibraries {
				seen[lib] = true
				out.libraries = append(out.libraries, at)
				queue = append(queue, at)
			}
		}
	}
	return out, nil
}

const maxLibraries = 256

func findLibrary(name string) string {
	if strings.Contains(name, "/") {
		return ""
	}
	for _, dir := range usualDirs {
		if at := filepath.Join(dir, name); ofSystem(at) != "" {
			return at
		}
	}
	return ""
}

// ofSystem is the real path of a file, if both are the system's.
func ofSystem(name string) string {
	real, err := filepath.EvalSymlinks(name)
	if err != nil || !underSystem(filepath.Clean(name)) || !underSystem(real) {
		return ""
	}
	if st, err := os.Lstat(real); err != nil || !st.Mode().IsRegular() {
		return ""
	}
	return real
}

func underSystem(name string) bool {
	for _, dir := range []string{"/usr/", "/lib/", "/lib32/", "/lib64/", "/libx32/", "/bin/", "/sbin/"} {
		if strings.HasPrefix(name, dir) {
			return true
		}
	}
	return false
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
