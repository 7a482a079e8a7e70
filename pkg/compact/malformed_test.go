package compact

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/koios-metrics/koios/pkg/block"
)

// unsorted are labels in the order given.
func unsorted(pairs ...string) labels.Labels {
	b := labels.NewScratchBuilder(len(pairs) / 2)
	for i := 0; i < len(pairs); i += 2 {
		b.Add(pairs[i], pairs[i+1])
	}
	return b.Labels()
}

// putSeries uploads a block of two hours of series with chunks as they are given, each of a sample a minute.
func (w *world) putSeries(from int64, ext map[string]string, series []labels.Labels, spans [][2]int64) ulid.ULID {
	w.t.Helper()
	check := func(err error) {
		if err != nil {
			w.t.Helper()
			w.t.Fatal(err)
		}
	}
	m := &block.Meta{}
	m.ULID, m.Version, m.MinTime, m.MaxTime = ulid.MustNew(uint64(from/hour+1), nil), 1, from, from+2*hour
	m.Compaction.Level, m.Compaction.Sources = 1, []ulid.ULID{m.ULID}
	m.Thanos = block.Thanos{Version: 1, Labels: ext, Source: block.SourceSidecar}
	dir := filepath.Join(w.t.TempDir(), m.ULID.String())
	cw, err := chunks.NewWriter(filepath.Join(dir, "chunks"))
	check(err)
	iw, err := index.NewWriter(context.Background(), filepath.Join(dir, "index"))
	check(err)
	var symbols []string
	var edits []func([]byte)
	for _, ls := range series {
		ls.Range(func(l labels.Label) { symbols = append(symbols, l.Name, l.Value) })
	}
	slices.Sort(symbols)
	for _, s := range slices.Compact(symbols) {
		check(iw.AddSymbol(s))
	}
	for i, ls := range series {
		sorted := labels.New(slicesOf(ls)...)
		key := GroupKey(0, ext) + sorted.String()
		if w.want[key] == nil {
			w.want[key] = map[int64]float64{}
		}
		var metas []chunks.Meta
		for _, span := range spans {
			var samples []chunks.Sample
			for ts := from + span[0]; ts < from+span[1]; ts += 60_000 {
				samples = append(samples, point{ts, float64(ts + int64(i))})
				w.want[key][ts] = float64(ts + int64(i))
			}
			c, err := chunks.ChunkFromSamples(samples)
			check(err)
			metas = append(metas, c)
			m.Stats.NumSamples += uint64(len(samples))
		}
		for i := range metas { // together they would have to be in order
			check(cw.WriteChunks(metas[i : i+1]...))
		}
		if disorder := len(metas) == 2 && metas[0].MinTime > metas[1].MinTime; disorder {
			// No writer takes that, so other times are written, whose numbers are longer, and replaced.
			lie := [2][2]int64{{metas[0].MinTime, metas[0].MaxTime}, {metas[1].MinTime, metas[1].MaxTime}}
			edits = append(edits, func(b []byte) { rewriteTimes(b, lie) })
			metas[0].MinTime, metas[0].MaxTime = -1<<62, -1<<62+1<<28
			metas[1].MinTime, metas[1].MaxTime = 1<<62+1<<30, 1<<62+1<<30+1<<28
		}
		check(iw.AddSeries(storage.SeriesRef(i), ls, metas...))
		m.Stats.NumSeries++
		m.Stats.NumChunks += uint64(len(metas))
	}
	check(cw.Close())
	check(iw.Close())
	for _, edit := range edits {
		b, err := os.ReadFile(filepath.Join(dir, "index"))
		check(err)
		edit(b)
		check(os.WriteFile(filepath.Join(dir, "index"), b, 0o666))
	}
	check(block.WriteMetaDir(dir, m))
	_, err = block.Upload(w.t.Context(), w.bkt, dir, block.UploadOptions{})
	check(err)
	return m.ULID
}

// rewriteTimes replaces the times of the two chunks of the first series of an index, whose numbers are as long or longer.
func rewriteTimes(b []byte, times [2][2]int64) {
	at := (int(binary.BigEndian.Uint64(b[len(b)-52+8:])) + 15) / 16 * 16
	length, n := binary.Uvarint(b[at:])
	entry := b[at+n : at+n+int(length)]
	e := entry
	skip := func() uint64 {
		v, n := binary.Uvarint(e)
		e = e[n:]
		return v
	}
	put := func(v uint64) { // as long as what is there
		_, n := binary.Uvarint(e)
		for i := range n - 1 {
			e[i] = byte(v>>(7*i)) | 0x80
		}
		e[n-1] = byte(v >> (7 * (n - 1)))
		e = e[n:]
	}
	for range 2 * skip() { // labels
		skip()
	}
	skip() // number of chunks
	put(uint64(times[0][0]<<1) ^ uint64(times[0][0]>>63))
	put(uint64(times[0][1] - times[0][0]))
	skip() // reference
	put(uint64(times[1][0] - times[0][1]))
	put(uint64(times[1][1] - times[1][0]))
	binary.BigEndian.PutUint32(b[at+n+int(length):], crc32.Checksum(entry, crc32.MakeTable(crc32.Castagnoli)))
}

func slicesOf(ls labels.Labels) (all []labels.Label) {
	ls.Range(func(l labels.Label) { all = append(all, l) })
	return all
}

// Shows what becomes of a block whose chunks are out of order: it is merged, with its chunks in order; told to skip it,
// it is marked against compaction with that reason, counted, and merged around.
func TestOutOfOrderChunks(t *testing.T) {
	for _, skip := range []bool{false, true} {
		w := newWorld(t)
		ext := map[string]string{"x": "1"}
		up := []labels.Labels{labels.FromStrings("__name__", "up")}
		w.putSeries(0, ext, up, [][2]int64{{0, hour}, {hour, 2 * hour}})
		w.putSeries(2*hour, ext, up, [][2]int64{{0, hour}, {hour, 2 * hour}})
		bad := w.putSeries(4*hour, ext, up, [][2]int64{{hour, 2 * hour}, {0, hour}})
		w.putSeries(8*hour, ext, up, [][2]int64{{0, hour}})
		w.now = time.UnixMilli(11 * hour)
		cfg := w.config()
		cfg.SkipDisorder = skip
		c := w.compactor(cfg)
		if err := c.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.check()
		mark, err := block.ReadNoCompactMark(t.Context(), w.bkt, bad)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{`raw{x="1"} 0-6 level 2`, `raw{x="1"} 8-10 level 1`}
		if skip {
			want = []string{`raw{x="1"} 0-4 level 2`, `raw{x="1"} 4-6 level 1`, `raw{x="1"} 8-10 level 1`}
			if mark == nil || mark.Reason != block.NoCompactOutOfOrderChunk {
				t.Errorf("mark %+v", mark)
			}
			if n := testutil.ToFloat64(c.metrics.marked.WithLabelValues(block.NoCompactMarkFilename, string(block.NoCompactOutOfOrderChunk))); n != 1 {
				t.Errorf("%v marks counted", n)
			}
		} else if mark != nil {
			t.Errorf("mark %+v", mark)
		}
		if d := cmp.Diff(want, w.shape()); d != "" {
			t.Errorf("skip %v (-want +got):\n%s", skip, d)
		}
	}
}

// Shows what becomes of a block whose label names are not sorted, so that its series are not either: it is set aside;
// where malformed indexes are accepted, it is merged and downsampled with names and series in order.
func TestUnsortedNames(t *testing.T) {
	for _, accept := range []bool{false, true} {
		w := newWorld(t)
		ext := map[string]string{"x": "1"}
		whole := [][2]int64{{0, 2 * hour}}
		sound := []labels.Labels{labels.FromStrings("a", "1", "b", "1"), labels.FromStrings("a", "2", "b", "0")}
		w.putSeries(0, ext, sound, whole)
		bad := w.putSeries(2*hour, ext, []labels.Labels{unsorted("a", "1", "b", "2"), unsorted("b", "0", "a", "2"), unsorted("b", "1", "a", "1")}, whole)
		w.putSeries(4*hour, ext, sound, whole)
		w.putSeries(48*hour, ext, sound, whole)
		w.now = time.UnixMilli(100 * hour)
		cfg := w.config()
		cfg.Unsorted = accept
		if err := w.compactor(cfg).RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		aside, err := w.bkt.Exists(t.Context(), block.Object(bad, SetAsideFilename))
		if err != nil || aside == accept {
			t.Errorf("accept %v: set aside %v %v", accept, aside, err)
		}
		if accept {
			w.check()
			if shape := strings.Join(w.shape(), "; "); !strings.Contains(shape, "raw{x=\"1\"} 0-6 level 2") || !strings.Contains(shape, "5m{x=\"1\"} 0-6 level 2") {
				t.Error(shape)
			}
		}
	}
}
