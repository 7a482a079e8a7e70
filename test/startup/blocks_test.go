package startup

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/test/bulk"
)

// copies returns the objects of n blocks: copies of one of a few hundred series under other ids and times.
func copies(t testing.TB, n int) map[string][]byte {
	t.Helper()
	dir := t.TempDir()
	from := time.Now().Add(-time.Duration(n) * 2 * time.Hour).Truncate(2 * time.Hour)
	id, err := bulk.Write(t.Context(), dir, bulk.Spec{
		From: from.UnixMilli(), Interval: 60_000, Samples: 120, Series: bulk.Counters("up", 300), External: map[string]string{"cluster": "eu"},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, id.String())
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	index, chunks := read("index"), read("chunks/000001")
	meta, err := block.ReadMetaDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	// As an upload states them.
	meta.Thanos.SegmentFiles = []string{"000001"}
	meta.Thanos.Files = []block.File{
		{RelPath: "chunks/000001", SizeBytes: int64(len(chunks))}, {RelPath: "index", SizeBytes: int64(len(index))}, {RelPath: "meta.json"},
	}
	objects := make(map[string][]byte, 3*n)
	for i := range n {
		m := meta.Clone()
		at := from.Add(time.Duration(i) * 2 * time.Hour)
		m.ULID = ulid.ULID{}
		if err := m.ULID.SetTime(uint64(at.UnixMilli())); err != nil {
			t.Fatal(err)
		}
		binary.BigEndian.PutUint32(m.ULID[12:], uint32(i))
		m.MinTime, m.MaxTime = at.UnixMilli(), at.Add(2*time.Hour).UnixMilli()
		m.Compaction.Sources = []ulid.ULID{m.ULID}
		b, err := m.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		objects[block.Object(m.ULID, block.MetaFilename)] = b
		objects[block.Object(m.ULID, block.IndexFilename)] = index
		objects[block.Object(m.ULID, block.ChunksDirname, "000001")] = chunks
	}
	return objects
}
