package reloader

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

type digest [sha256.Size]byte

// readConfig reads a configuration and unpacks it if it is compressed.
func readConfig(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := readBounded(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if !bytes.HasPrefix(text, []byte{0x1f, 0x8b}) {
		return text, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", file, err)
	}
	if text, err = readBounded(z); err != nil {
		return nil, fmt.Errorf("unpack %s: %w", file, err)
	}
	return text, nil
}

func readBounded(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, configBytesMax+1))
	if err == nil && len(text) > configBytesMax {
		err = fmt.Errorf("more than %d bytes", configBytesMax)
	}
	return text, err
}

// writeAtomic replaces file by one with these contents. Nobody ever sees a part of it. A file that has
// them already is left alone.
func writeAtomic(file string, contents []byte) error {
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, contents) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".tmp-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // Gone after the rename.
	_, err = tmp.Write(contents)
	if err == nil {
		// Prometheus may run as another user than its sidecar.
		err = tmp.Chmod(0o644)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", tmp.Name(), err)
	}
	return os.Rename(tmp.Name(), file)
}

// tree is what walking the watched files finds: a hash of all contents, and the directories that have
// to be watched to learn of changes.
type tree struct {
	hash hash.Hash
	dirs map[string]struct{}
}

func newTree() *tree { return &tree{hash: sha256.New(), dirs: map[string]struct{}{}} }

func (t *tree) sum() (d digest) {
	t.hash.Sum(d[:0])
	return d
}

// contents adds bytes under a name. Both are framed by their lengths: "ab"+"c" is not "a"+"bc".
func (t *tree) contents(name string, text []byte) {
	t.frame(int64(len(name)))
	t.hash.Write([]byte(name))
	t.frame(int64(len(text)))
	t.hash.Write(text)
}

func (t *tree) frame(n int64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	t.hash.Write(b[:])
}

// watchDirsOf adds the directories in which a change can change what path leads to: its own, and that
// of every symbolic link on the way and of where it leads to.
func (t *tree) watchDirsOf(path string) {
	const linksMax = 40 // As the kernel's.
	for range linksMax {
		dir := filepath.Dir(path)
		t.dirs[dir] = struct{}{}
		to, err := os.Readlink(path)
		if err != nil {
			// A link may also be a directory above the file: ..data of a mounted ConfigMap.
			if target, err := filepath.EvalSymlinks(dir); err == nil && target != filepath.Clean(dir) {
				t.dirs[target] = struct{}{}
				if to, err := os.Readlink(dir); err == nil && to != "" {
					t.dirs[filepath.Dir(dir)] = struct{}{}
				}
			}
			return
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(dir, to)
		}
		path = to
	}
}

// rules adds all files beneath dir. Symbolic links are followed; a directory is entered once however
// many links lead to it. Names that begin with ".." belong to the machinery of mounted ConfigMaps and
// are reached through the links beside them.
func (t *tree) rules(dir string) error {
	t.watchDirsOf(dir)
	return t.walk(dir, map[string]struct{}{})
}

func (t *tree) walk(dir string, seen map[string]struct{}) error {
	target, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	if _, ok := seen[target]; ok {
		return nil
	}
	seen[target] = struct{}{}
	t.dirs[dir] = struct{}{}

	entries, err := os.ReadDir(dir) // Sorted by name.
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		switch {
		case info.IsDir():
			err = t.walk(path, seen)
		case info.Mode().IsRegular():
			if e.Type()&fs.ModeSymlink != 0 {
				t.watchDirsOf(path)
			}
			err = t.file(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// file adds one file of rules, read piece by piece.
func (t *tree) file(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	t.frame(int64(len(path)))
	t.hash.Write([]byte(path))
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	t.hash.Write(h.Sum(nil))
	return nil
}

func (t *tree) watchDirs() []string {
	dirs := make([]string, 0, len(t.dirs))
	for d := range t.dirs {
		dirs = append(dirs, d)
	}
	slices.Sort(dirs)
	return dirs
}
