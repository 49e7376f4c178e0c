package battery

import (
	"os"

	"golang.org/x/sys/unix"
)

func openedWithoutCloexec(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	if fd < 10 { // not one of those a jail is started with
		if fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD, 40); err != nil {
			return nil, err
		}
	}
	return os.NewFile(uintptr(fd), name), nil
}
