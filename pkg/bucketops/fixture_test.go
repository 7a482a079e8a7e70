package bucketops

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	koiosobjstore "github.com/koios-metrics/koios/pkg/objstore"
)

const (
	second = int64(1000)
	minute = 60 * second
	hour   = 60 * minute
)

// The time at which all tests happen, and the blocks lie before.
var testNow = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

// base is the beginning of the blocks of most tests: two days before now.
var base = testNow.Add(-48 * time.Hour).UnixMilli()

func now() time.Time { return testNow }

// spec describes a block of a fixture.
type spec struct {
	// mint and maxt are the times of the metadata in ms; by default two hours from base on.
	mint, maxt int64
	labels     map[string]string // default {cluster="a"}
	series     []seriesSpec      // default three counters over the whole time
	meta       func(*block.Meta) // changes the metadata before it is written
	noMeta     bool
	age        time.Duration // of the id and the upload; default 2 hours
}

type seriesSpec struct {
	labels labels.Labels
	chunks []chunkSpec
}

// chunkSpec is a chunk with a sample each step, all of value v plus their number.
type chunkSpec struct {
	mint, maxt, step int64
	v                float64
	// indexMint and indexMaxt are what the index says, if it lies.
	indexMint, indexMaxt int64
}

func (c chunkSpec) meta(t testing.TB) chunks.Meta {
	t.Helper()
	x := chunkenc.NewXORChunk()
	app, err := x.Appender()
	if err != nil {
		t.Fatal(err)
	}
	m := chunks.Meta{Chunk: x, MinTime: c.mint}
	for i, at := 0, c.mint; at <= c.maxt; i, at = i+1, at+c.step {
		app.Append(at, c.v+float64(i))
		m.MaxTime = at
	}
	if c.indexMint != 0 {
		m.MinTime = c.indexMint
	}
	if c.indexMaxt != 0 {
		m.MaxTime = c.indexMaxt
	}
	return m
}

// spread cuts the time from mint to before maxt into chunks of 120 samples.
func spread(mint, maxt, step int64, v float64) (cs []chunkSpec) {
	for at := mint; at < maxt; at += 120 * step {
		cs = append(cs, chunkSpec{mint: at, maxt: min(at+119*step, maxt-1), step: step, v: v + float64((at-mint)/step)})
	}
	return cs
}

func named(name string, pairs ...string) labels.Labels {
	return labels.FromStrings(append([]string{"__name__", name}, pairs...)...)
}

// world is a bucket in a directory.
type world struct {
	t   testing.TB
	dir string
	bkt objstore.Bucket
	n   int
}

func newWorld(t testing.TB) *world {
	t.Helper()
	dir := t.TempDir()
	bkt, err := koiosobjstore.NewFilesystem(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, dir: dir, bkt: bkt}
}

// newID makes ids that ascend within a world.
func (w *world) newID(age time.Duration) ulid.ULID {
	w.n++
	return ulid.MustNew(ulid.Timestamp(testNow.Add(-age))+uint64(w.n), rand.Reader)
}

// add writes a block into the bucket.
func (w *world) add(s spec) ulid.ULID {
	w.t.Helper()
	return w.write(w.dir, s)
}

// write writes a block as a directory below a root.
func (w *world) write(root string, s spec) ulid.ULID {
	t := w.t
	t.Helper()
	if s.mint == 0 && s.maxt == 0 {
		s.mint, s.maxt = base, base+2*hour
	}
	if s.labels == nil {
		s.labels = map[string]string{"cluster": "a"}
	}
	if s.age == 0 {
		s.age = 2 * time.Hour
	}
	if s.series == nil {
		for i, job := range []string{"api", "db", "web"} {
			s.series = append(s.series, seriesSpec{named("up", "job", job), spread(s.mint, s.maxt, 15*second, float64(1000*i))})
		}
	}
	id := w.newID(s.age)
	dir := filepath.Join(root, id.String())
	m := &block.Meta{}
	m.ULID, m.Version, m.MinTime, m.MaxTime = id, 1, s.mint, s.maxt
	m.Compaction.Level, m.Compaction.Sources = 1, []ulid.ULID{id}
	m.Thanos = block.Thanos{Version: 1, Labels: s.labels, Source: block.SourceSidecar, UploadTime: testNow.Add(-s.age)}
	w.writeFiles(dir, s, m)
	for _, rel := range []string{"chunks/000001", "index", "meta.json"} {
		f := block.File{RelPath: rel}
		if st, err := os.Stat(filepath.Join(dir, rel)); err == nil {
			f.SizeBytes = st.Size()
		}
		m.Thanos.Files = append(m.Thanos.Files, f)
	}
	m.Thanos.SegmentFiles = []string{"000001"}
	if s.meta != nil {
		s.meta(m)
	}
	if !s.noMeta {
		if err := block.WriteMetaDir(dir, m); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

func (w *world) writeFiles(dir string, s spec, m *block.Meta) {
	t := w.t
	t.Helper()
	cw, err := chunks.NewWriter(filepath.Join(dir, "chunks"))
	if err != nil {
		t.Fatal(err)
	}
	iw, err := index.NewWriter(context.Background(), filepath.Join(dir, "index"))
	if err != nil {
		t.Fatal(err)
	}
	symbols := map[string]bool{}
	for _, sr := range s.series {
		sr.labels.Range(func(l labels.Label) { symbols[l.Name], symbols[l.Value] = true, true })
	}
	for _, sym := range sorted(symbols) {
		if err := iw.AddSymbol(sym); err != nil {
			t.Fatal(err)
		}
	}
	for i, sr := range s.series {
		var metas []chunks.Meta
		for _, c := range sr.chunks {
			metas = append(metas, c.meta(t))
			m.Stats.NumSamples += uint64(metas[len(metas)-1].Chunk.NumSamples())
		}
		m.Stats.NumChunks += uint64(len(metas))
		m.Stats.NumSeries++
		if err := cw.WriteChunks(metas...); err != nil {
			t.Fatal(err)
		}
		if err := iw.AddSeries(storage.SeriesRef(i), sr.labels, metas...); err != nil {
			t.Fatal(err)
		}
	}
	m.Stats.NumFloatSamples = m.Stats.NumSamples
	if err := cw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := iw.Close(); err != nil {
		t.Fatal(err)
	}
	if len(s.series) == 0 {
		_ = os.WriteFile(filepath.Join(dir, "chunks", "000001"), []byte{0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0}, 0o666)
	}
}

func sorted(set map[string]bool) []string {
	var ss []string
	for s := range set {
		ss = append(ss, s)
	}
	for i := range ss { // few, so that this is quick enough
		for j := i; j > 0 && ss[j] < ss[j-1]; j-- {
			ss[j], ss[j-1] = ss[j-1], ss[j]
		}
	}
	return ss
}

// path is the file of an object.
func (w *world) path(id ulid.ULID, rel string) string {
	return filepath.Join(w.dir, id.String(), filepath.FromSlash(rel))
}

// edit changes the bytes of an object.
func (w *world) edit(id ulid.ULID, rel string, change func([]byte) []byte) {
	w.t.Helper()
	b, err := os.ReadFile(w.path(id, rel))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.path(id, rel), change(b), 0o666); err != nil {
		w.t.Fatal(err)
	}
}

// remove deletes an object.
func (w *world) remove(id ulid.ULID, rel string) {
	w.t.Helper()
	if err := os.Remove(w.path(id, rel)); err != nil {
		w.t.Fatal(err)
	}
}

// put writes an object.
func (w *world) put(id ulid.ULID, rel, content string) {
	w.t.Helper()
	if err := os.WriteFile(w.path(id, rel), []byte(content), 0o666); err != nil {
		w.t.Fatal(err)
	}
}

// objects are the names of all objects, sorted.
func (w *world) objects() (names []string) {
	w.t.Helper()
	err := w.bkt.Iter(context.Background(), "", func(name string) error {
		names = append(names, name)
		return nil
	}, objstore.WithRecursiveIter())
	if err != nil {
		w.t.Fatal(err)
	}
	return names
}

func quietLogger() log.Logger { return log.NewNopLogger() }
