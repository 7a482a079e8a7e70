package integration

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/test/dataset"
	"github.com/koios-metrics/koios/test/fleet"
)

// killRounds is how often the sidecar is killed. The shipper's own tests go through every step one by one;
// here the moments are random and the process is a real one.
const killRounds = 8

// A sidecar that dies in the midst of an upload costs nothing: after a restart the bucket holds each block
// once and whole.
func TestKilledSidecar(t *testing.T) {
	p, ids := prometheusOf(t, "a", dataset.A)
	p.Launch(t)
	for round := range killRounds {
		if err := os.Remove(filepath.Join(p.Dir, "thanos.shipper.json")); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		bucket := t.TempDir()
		side := fleet.StartSidecar(t, p, bucket)
		// Nine objects make the three blocks. Dying before the first of them and after the last counts too.
		objects := rand.IntN(10)
		delay := time.Duration(rand.IntN(3000)) * time.Microsecond
		waitObjects(t, bucket, objects)
		time.Sleep(delay)
		side.Kill()
		found := len(objectsIn(t, bucket))
		side.Restart(t)
		side.Ready(t)
		fleet.Eventually(t, "all blocks are uploaded", uploadWait, func() error { return inBucket(bucket, ids) })
		side.Stop(t)
		t.Logf("round %d: killed with %d objects in the bucket", round, found)
		checkBucket(t, bucket, p.Dir, ids)
	}
}

// waitObjects waits until there are n files in the bucket, without a pause between looks, as an upload
// takes milliseconds.
func waitObjects(t *testing.T, bucket string, n int) {
	t.Helper()
	deadline := time.Now().Add(uploadWait)
	for len(objectsIn(t, bucket)) < n {
		if time.Now().After(deadline) {
			t.Fatalf("no %d objects within %v", n, uploadWait)
		}
	}
}

// objectsIn lists the files of a bucket; those in hidden folders are none of its objects.
func objectsIn(t *testing.T, bucket string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(bucket, func(path string, d fs.DirEntry, err error) error {
		switch {
		case os.IsNotExist(err):
			return nil // Gone between listing and looking.
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case !d.IsDir():
			name, _ := filepath.Rel(bucket, path)
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// checkBucket compares the bucket with the blocks beside Prometheus: the same blocks and no other, the same
// bytes of index and chunks, and a meta.json with the external labels.
func checkBucket(t *testing.T, bucket, dir string, ids []ulid.ULID) {
	t.Helper()
	wanted := map[string]bool{}
	for _, id := range ids {
		for _, name := range []string{"index", "chunks/000001"} {
			object := filepath.Join(id.String(), name)
			wanted[object] = true
			want, err := os.ReadFile(filepath.Join(dir, object))
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(bucket, object))
			if err != nil {
				t.Error(err)
			} else if !bytes.Equal(want, got) {
				t.Errorf("%s is not what Prometheus has", object)
			}
		}
		wanted[filepath.Join(id.String(), "meta.json")] = true
		b, err := os.ReadFile(filepath.Join(bucket, id.String(), "meta.json"))
		if err != nil {
			t.Error(err)
			continue
		}
		var meta struct {
			ULID   string `json:"ulid"`
			Thanos struct {
				Labels map[string]string `json:"labels"`
				Source string            `json:"source"`
				Files  []struct {
					Path string `json:"rel_path"`
				} `json:"files"`
			} `json:"thanos"`
		}
		if err := json.Unmarshal(b, &meta); err != nil {
			t.Errorf("meta.json of %s: %v", id, err)
		}
		if meta.ULID != id.String() || meta.Thanos.Source != "sidecar" || len(meta.Thanos.Files) != 3 || !maps.Equal(meta.Thanos.Labels, external("a")) {
			t.Errorf("meta.json of %s: %+v", id, meta)
		}
	}
	for _, object := range objectsIn(t, bucket) {
		if !wanted[object] {
			t.Errorf("%s should not be in the bucket", object)
		}
	}
}
