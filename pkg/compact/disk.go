package compact

import (
	"fmt"
	"os"
	"syscall"
)

// FreeScratch is nine tenths of what is free, in bytes, on the file system of a directory, which is made if it is not
// there.
func FreeScratch(dir string) (int64, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return 0, err
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("ask for free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize) / 10 * 9, nil //nolint:unconvert // the types differ between systems
}
