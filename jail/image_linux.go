package jail

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// image is the first process of every jail as a file in memory that nobody can change: not an
// agent that finds it running, and not somebody on the host who may write where our binary lies.
var image = sync.OnceValues(func() (*os.File, error) {
	if len(packed) == 0 {
		return nil, refuse(FeaturePlatform, nil, "there are jails on amd64 and arm64 only", "run the agent on such a machine")
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	program, err := io.ReadAll(z)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("jail-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // a kernel before 6.3, where every such file can be executed
		fd, err = unix.MemfdCreate("jail-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, refuse(FeatureInit, err, "no executable file in memory can be made", "set the sysctl vm.memfd_noexec to 0 or 1")
	}
	f := os.NewFile(uintptr(fd), "jail-init")
	if _, err := f.Write(program); err != nil {
		return nil, err
	}
	if err := f.Chmod(0o555); err != nil {
		return nil, err
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
	return f, err
})
