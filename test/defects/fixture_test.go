package defects

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/koios-metrics/koios/pkg/block"
)

const (
	minute = int64(60_000)
	hour   = 60 * minute
	// A group has so many blocks of two hours: four fill a window of eight hours, the fifth is newer, so that everybody
	// takes the window for closed.
	blocksPerGroup = 5
	// bad is the block of a group that gets the defect.
	bad = 1
)

// castagnoli is the polynomial of the checksums in blocks.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// bucket is a bucket in a directory.
type bucket struct {
	t    testing.TB
	dir  string
	base int64 // ms; the beginning of all groups
	rnd  *rand.ChaCha8
	now  time.Time
}

func newBucket(t testing.TB) *bucket {
	t.Helper()
	now := time.Now()
	// Old enough to be downsampled to five minutes, and not to an hour.
	base := now.Add(-5 * 24 * time.Hour).Truncate(48 * time.Hour).UnixMilli()
	return &bucket{t: t, dir: tempDir(t), base: base, rnd: rand.NewChaCha8([32]byte{1}), now: now}
}

// tempDir is a directory in memory where there is one: nothing here is about what is on disk after a power cut, and every
// object is synced.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "koios-defects-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// group is the blocks of one set of external labels.
type group struct {
	b      *bucket
	labels map[string]string
	ids    []ulid.ULID
	// extra are blocks beside the five.
	extra []ulid.ULID
	// without tells which samples of a series were never written; nil is none.
	without func(series int, ts int64) bool
	// gained are samples beside those of the three series.
	gained map[string]map[int64]float64
}

// addGroup writes a sound group.
func (b *bucket) addGroup(name string) *group {
	g := &group{b: b, labels: map[string]string{"group": name}, gained: map[string]map[int64]float64{}}
	for i := range int64(blocksPerGroup) {
		g.ids = append(g.ids, b.write(spec{mint: b.base + 2*i*hour, maxt: b.base + 2*(i+1)*hour, labels: g.labels}))
	}
	return g
}

// value is that of every series at a time.
func value(series int, ts int64) float64 { return float64(ts/minute%100_000) + float64(series)*0.5 }

var jobs = []string{"api", "db", "web"}

// spec describes a block.
type spec struct {
	mint, maxt int64
	labels     map[string]string
	series     []series          // nil is one for each job with a sample a minute
	meta       func(*block.Meta) // changes the metadata before it is written
}

type series struct {
	labels labels.Labels
	chunks []chunk
}

// chunk has a sample a minute from mint to maxt, of series n.
type chunk struct {
	mint, maxt int64
	n          int
	// indexMint and indexMaxt are what the index says, if it lies.
	indexMint, indexMaxt int64
}

func (c chunk) meta(t testing.TB) chunks.Meta {
	t.Helper()
	x := chunkenc.NewXORChunk()
	app, err := x.Appender()
	if err != nil {
		t.Fatal(err)
	}
	m := chunks.Meta{Chunk: x, MinTime: c.mint}
	for at := c.mint; at <= c.maxt; at += minute {
		app.Append(at, value(c.n, at))
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

// whole are the chunks of series n from mint to before maxt.
func whole(n int, mint, maxt int64) (cs []chunk) {
	for at := mint; at < maxt; at += 120 * minute {
		cs = append(cs, chunk{mint: at, maxt: min(at+119*minute, maxt-1), n: n})
	}
	return cs
}

func job(name string) labels.Labels {
	return labels.FromStrings(model.MetricNameLabel, "up", "job", name)
}

func (b *bucket) newID(age time.Duration) ulid.ULID {
	return ulid.MustNew(ulid.Timestamp(b.now.Add(-age)), b.rnd)
}

// write writes a block into the bucket, as an upload would.
func (b *bucket) write(s spec) ulid.ULID {
	t := b.t
	t.Helper()
	if s.series == nil {
		for i, j := range jobs {
			s.series = append(s.series, series{job(j), whole(i, s.mint, s.maxt)})
		}
	}
	id := b.newID(24 * time.Hour)
	dir := filepath.Join(b.dir, id.String())
	m := &block.Meta{}
	m.ULID, m.Version, m.MinTime, m.MaxTime = id, 1, s.mint, s.maxt
	m.Compaction.Level, m.Compaction.Sources = 1, []ulid.ULID{id}
	m.Thanos = block.Thanos{Version: 1, Labels: s.labels, Source: block.SourceSidecar, UploadTime: b.now.Add(-24 * time.Hour)}
	b.writeFiles(dir, s, m)
	for _, rel := range []string{"chunks/000001", "index", "meta.json"} {
		f := block.File{RelPath: rel}
		if st, err := os.Stat(filepath.Join(dir, filepath.FromSlash(rel))); err == nil {
			f.SizeBytes = st.Size()
		}
		m.Thanos.Files = append(m.Thanos.Files, f)
	}
	m.Thanos.SegmentFiles = []string{"000001"}
	if s.meta != nil {
		s.meta(m)
	}
	text, err := m.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b.put(id, block.MetaFilename, string(text))
	return id
}

func (b *bucket) writeFiles(dir string, s spec, m *block.Meta) {
	t := b.t
	t.Helper()
	cw, err := chunks.NewWriter(filepath.Join(dir, "chunks"), chunks.WithSegmentSize(1<<20)) // more is allocated at once
	if err != nil {
		t.Fatal(err)
	}
	iw, err := index.NewWriter(t.Context(), filepath.Join(dir, block.IndexFilename))
	if err != nil {
		t.Fatal(err)
	}
	symbols := map[string]bool{}
	var sorted []string
	slices.SortFunc(s.series, func(a, b series) int { return labels.Compare(a.labels, b.labels) })
	for _, sr := range s.series {
		sr.labels.Range(func(l labels.Label) {
			for _, sym := range []string{l.Name, l.Value} {
				if !symbols[sym] {
					symbols[sym] = true
					sorted = append(sorted, sym)
				}
			}
		})
	}
	slices.Sort(sorted)
	for _, sym := range sorted {
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
		if err := errors.Join(cw.WriteChunks(metas...), iw.AddSeries(storage.SeriesRef(i), sr.labels, metas...)); err != nil {
			t.Fatal(err)
		}
	}
	m.Stats.NumFloatSamples = m.Stats.NumSamples
	if err := errors.Join(cw.Close(), iw.Close()); err != nil {
		t.Fatal(err)
	}
	if len(s.series) == 0 { // the writer leaves none
		if err := os.WriteFile(filepath.Join(dir, "chunks", "000001"), []byte{0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0}, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

func (b *bucket) path(id ulid.ULID, rel string) string {
	return filepath.Join(b.dir, id.String(), filepath.FromSlash(rel))
}

// edit changes the bytes of an object.
func (b *bucket) edit(id ulid.ULID, rel string, change func([]byte) []byte) {
	b.t.Helper()
	content, err := os.ReadFile(b.path(id, rel))
	if err == nil {
		err = os.WriteFile(b.path(id, rel), change(content), 0o666)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bucket) remove(id ulid.ULID, rel string) {
	b.t.Helper()
	if err := os.Remove(b.path(id, rel)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bucket) put(id ulid.ULID, rel, content string) {
	b.t.Helper()
	if err := os.WriteFile(b.path(id, rel), []byte(content), 0o666); err != nil {
		b.t.Fatal(err)
	}
}

// replace takes the place of the bad block of a group with another one.
func (g *group) replace(s spec) ulid.ULID {
	b := g.b
	b.t.Helper()
	if err := os.RemoveAll(filepath.Join(b.dir, g.ids[bad].String())); err != nil {
		b.t.Fatal(err)
	}
	g.complete(&s)
	g.ids[bad] = b.write(s)
	return g.ids[bad]
}

// add writes one more block, by default over the time of the bad one.
func (g *group) add(s spec) ulid.ULID {
	g.complete(&s)
	id := g.b.write(s)
	g.extra = append(g.extra, id)
	return id
}

// gains notes a series of the bad block that the others do not have.
func (g *group) gains(name string, n int) { g.gainsFrom(name, n, g.start(), g.start()+2*hour) }

func (g *group) gainsFrom(name string, n int, mint, maxt int64) {
	samples := map[int64]float64{}
	for ts := mint; ts < maxt; ts += minute {
		samples[ts] = value(n, ts)
	}
	g.gained[name] = samples
}

// expected are the samples of a group, by series and time; those of the bad block are there if it can be read.
func (g *group) expected(readable bool) map[string]map[int64]float64 {
	want := map[string]map[int64]float64{}
	for n, j := range jobs {
		samples := map[int64]float64{}
		for ts := g.b.base; ts < g.b.base+2*blocksPerGroup*hour; ts += minute {
			inBad := ts >= g.start() && ts < g.start()+2*hour
			if inBad && (!readable || g.without != nil && g.without(n, ts)) {
				continue
			}
			samples[ts] = value(n, ts)
		}
		want[job(j).String()] = samples
	}
	if readable {
		for name, samples := range g.gained {
			want[name] = samples
		}
	}
	return want
}

func (g *group) complete(s *spec) {
	if s.mint == 0 {
		s.mint, s.maxt = g.b.base+2*bad*hour, g.b.base+2*(bad+1)*hour
	}
	if s.labels == nil {
		s.labels = g.labels
	}
}

// sectionAt is where a part of an index begins, by its number in the table of contents.
func sectionAt(b []byte, i int) int { return int(binary.BigEndian.Uint64(b[len(b)-52+8*i:])) }

// allPostings is where the list of the three series of a block begins.
func allPostings(b []byte) int {
	at := sectionAt(b, 4)
	return at + bytes.Index(b[at:], []byte{0, 0, 0, 16, 0, 0, 0, 3})
}

// reseal makes the checksum of a length-prefixed section right again.
func reseal(b []byte, at int) {
	n := int(binary.BigEndian.Uint32(b[at:]))
	binary.BigEndian.PutUint32(b[at+4+n:], crc32.Checksum(b[at+4:at+4+n], castagnoli))
}
