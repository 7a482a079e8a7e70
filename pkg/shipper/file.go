package shipper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"
)

// shipperFileVersion is the only version there is.
const shipperFileVersion = 1

// shipperFile is the content of the shipper file. Prometheus reads it, and so does Thanos.
type shipperFile struct {
	Version int `json:"version"`
	// Uploaded are the local blocks known to be in the bucket. It is null if there are none.
	Uploaded []ulid.ULID `json:"uploaded"`
}

// parseShipperFile decodes and checks the content of a shipper file.
func parseShipperFile(b []byte) ([]ulid.ULID, error) {
	var f shipperFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("decode JSON: %w", err)
	}
	if f.Version != shipperFileVersion {
		return nil, fmt.Errorf("version is %d, only %d is known", f.Version, shipperFileVersion)
	}
	return f.Uploaded, nil
}

// readShipperFile returns the blocks that the file names. A file that is not there names none.
func readShipperFile(path string) ([]ulid.ULID, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ids, err := parseShipperFile(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return ids, nil
}

// writeShipperFile replaces the file. After a crash it is either the old or the new one. A file that
// says the same already is left alone: Prometheus may be looking at it.
func writeShipperFile(path string, uploaded []ulid.ULID) (err error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "\t")
	if err := enc.Encode(shipperFile{Version: shipperFileVersion, Uploaded: uploaded}); err != nil {
		return err
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, b.Bytes()) {
		return nil
	}
	tmp := path + ".tmp"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(b.Bytes())
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
