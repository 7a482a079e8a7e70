package block

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
)

// HashFunc names the function that makes the checksums in a block's list of files.
type HashFunc string

// The hash functions.
const (
	HashNone   HashFunc = ""
	HashSHA256 HashFunc = "SHA256"
)

// hashFile returns the checksum of a local file, nil for HashNone.
func hashFile(path string, fn HashFunc) (*Hash, error) {
	switch fn {
	case HashNone:
		return nil, nil
	case HashSHA256:
	default:
		return nil, fmt.Errorf("unknown hash function %q: use %q, or none", fn, HashSHA256)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, fmt.Errorf("hash %s: %w", path, err)
	}
	return &Hash{Func: fn, Value: hex.EncodeToString(h.Sum(nil))}, nil
}

// matches tells whether a local file has this checksum. A file that can't be read, or a hash that is unknown, does not
// match.
func (h *Hash) matches(path string) bool {
	if h == nil || h.Func == HashNone {
		return false
	}
	got, err := hashFile(path, h.Func)
	return err == nil && got.Value == h.Value
}
