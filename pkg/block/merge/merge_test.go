package merge

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
	"github.com/koios-metrics/koios/pkg/dedup"
)

const hour = int64(3_600_000)

// samples of series, by their labels as text.
type content map[string][]point

// testBlock is a block to be written: series and the chunks they are cut into.
type testBlock struct {
	replica    string
	mint, maxt int64
	series     map[string][][]point
}

// write writes the block below parent and returns it as an input.
func (b testBlock) write(t testing.TB, parent string, n int) Input {
	t.Helper()
	id := ulid.MustNew(uint64(n+1), nil)
	dir := filepath.Join(parent, fmt.Sprint(n))
	w, err := stream.NewWriter(dir, stream.WriterConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	symbols := []string{"__name__", "job", "x"}
	var names []string
	for name := range b.series {
		symbols, names = append(symbols, name), append(names, name)
	}
	slices.Sort(symbols)
	slices.Sort(names)
	for _, s := range symbols {
		if err := w.AddSymbol([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	at := func(s string) uint32 { i, _ := slices.BinarySearch(symbols, s); return uint32(i) }
	for _, name := range names {
		var chunks []stream.Chunk
		for _, points := range b.series[name] {
			chunks = append(chunks, encode(t, points)...)
		}
		if err := w.AddSeries([]uint32{at("__name__"), at(name), at("job"), at("x")}, chunks); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	m := &block.Meta{BlockMeta: tsdb.BlockMeta{ULID: id, MinTime: b.mint, MaxTime: b.maxt, Version: 1,
		Compaction: tsdb.BlockMetaCompaction{Level: 1, Sources: []ulid.ULID{id}}}}
	return Input{Files: stream.Dir(dir), Meta: m, Replica: b.replica}
}

func encode(t testing.TB, points []point) []stream.Chunk {
	t.Helper()
	w := newWorker(&Config{MinTime: math.MinInt64, MaxTime: math.MaxInt64, Inputs: []Input{{Meta: &block.Meta{}}}})
	if err := w.emitPoints(slices.Clone(points)); err != nil {
		t.Fatal(err)
	}
	return w.out
}

// read reads all samples of a block.
func read(t testing.TB, dir string) content {
	t.Helper()
	r, err := stream.OpenReader(stream.Dir(dir), stream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all := content{}
	var s stream.Series
	b := labels.NewScratchBuilder(0)
	for {
		err := r.Read(&s)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		ls, err := r.Labels(&b, &s)
		if err != nil {
			t.Fatal(err)
		}
		var points []point
		for _, c := range s.Chunks {
			chunk, err := chunkenc.FromData(c.Encoding, c.Data)
			if err != nil {
				t.Fatal(err)
			}
			before := len(points)
			if points, err = drain(points, chunk.Iterator(nil)); err != nil {
				t.Fatal(err)
			}
			if c.MinTime != points[before].t || c.MaxTime != points[len(points)-1].t {
				t.Fatalf("%s: the index says %d to %d, the samples are from %d to %d", ls, c.MinTime, c.MaxTime, points[before].t, points[len(points)-1].t)
			}
		}
		all[ls.Get("__name__")] = points
	}
}

// generated makes blocks of some replicas, which overlap in part, of some hours each. Samples of one series at one time are
// the same in all blocks of a replica.
func generated(r *rand.Rand, replicas int) []testBlock {
	var blocks []testBlock
	for range 2 + r.IntN(5) {
		b := testBlock{replica: fmt.Sprint(r.IntN(replicas)), series: map[string][][]point{}}
		b.mint = r.Int64N(6) * hour
		b.maxt = b.mint + (1+r.Int64N(3))*hour
		phase := int64(b.replica[0]-'0') * 4000
		for i := range 6 {
			if r.IntN(4) == 0 {
				continue
			}
			var points []point
			for t := b.mint + phase; t < b.maxt; t += 15_000 {
				if x := hash(t, i); x%100 < 3 || i == 5 && t/hour%2 == 0 {
					continue // missing in every block
				}
				points = append(points, point{t: t, f: float64(t/15_000 + int64(i))})
			}
			var chunks [][]point
			for len(points) > 0 {
				n := min(1+r.IntN(200), len(points))
				chunks = append(chunks, points[:n])
				points = points[n:]
			}
			if len(chunks) > 0 {
				b.series[fmt.Sprintf("series_%d", i)] = chunks
			}
		}
		blocks = append(blocks, b)
	}
	return blocks
}

func hash(t int64, i int) uint64 {
	x := uint64(t)*0x9e3779b97f4a7c15 + uint64(i)*0xbf58476d1ce4e5b9
	return (x ^ x>>29) * 0x94d049bb133111eb >> 33
}

// union is what blocks hold together, of a replica or of all.
func union(blocks []testBlock, of func(replica string) bool) content {
	all := content{}
	for _, b := range blocks {
		for name, chunks := range b.series {
			if of(b.replica) {
				all[name] = append(all[name], slices.Concat(chunks...)...)
			}
		}
	}
	for name, points := range all {
		slices.SortStableFunc(points, func(a, b point) int { return int(a.t - b.t) })
		all[name] = slices.CompactFunc(points, func(a, b point) bool { return a.t == b.t })
	}
	return all
}

func (p point) String() string { return fmt.Sprintf("%d:%v", p.t, p.f) }

func compare(t *testing.T, want, got content) {
	t.Helper()
	text := func(c content) map[string][]string {
		m := map[string][]string{}
		for name, points := range c {
			for _, p := range points {
				m[name] = append(m[name], p.String())
			}
		}
		return m
	}
	if diff := cmp.Diff(text(want), text(got)); diff != "" {
		t.Fatal(diff)
	}
}

func inputsOf(t *testing.T, blocks []testBlock) []Input {
	dir := t.TempDir()
	var in []Input
	for i, b := range blocks {
		in = append(in, b.write(t, dir, i))
	}
	return in
}

// Every sample of every block is in the merged block once.
func TestEverySampleOnce(t *testing.T) {
	// Mutants killed: what is joined put behind all the rest; chunks passed when they touch; the last part of a job forgotten.
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		blocks := generated(r, 1)
		out := t.TempDir()
		meta, res, err := Compact(t.Context(), Config{Inputs: inputsOf(t, blocks), Workers: 1 + r.IntN(3), BatchBytes: 1 << r.IntN(14)}, nil, out)
		if err != nil {
			t.Fatal(err)
		}
		got := read(t, filepath.Join(out, meta.ULID.String()))
		compare(t, union(blocks, func(string) bool { return true }), got)
		n := 0
		for _, points := range got {
			n += len(points)
		}
		if res.Samples != uint64(n) || meta.Stats.NumSamples != uint64(n) {
			t.Errorf("%d samples reported, %d in metadata, %d there", res.Samples, meta.Stats.NumSamples, n)
		}
	}
}

// Replicas are merged as package dedup merges their whole streams.
func TestReplicasAsQueries(t *testing.T) {
	// Mutants killed: replicas within reach taken for apart.
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		blocks := generated(r, 3)
		out := t.TempDir()
		meta, _, err := Compact(t.Context(), Config{Inputs: inputsOf(t, blocks), Dedup: Penalty}, nil, out)
		if err != nil {
			t.Fatal(err)
		}
		compare(t, merged(t, blocks), read(t, filepath.Join(out, meta.ULID.String())))
	}
}

// merged is what queries make of the blocks.
func merged(t *testing.T, blocks []testBlock) content {
	t.Helper()
	want := content{}
	var parts []content
	for i := range 3 {
		parts = append(parts, union(blocks, func(replica string) bool { return replica == fmt.Sprint(i) }))
	}
	for i := range 6 {
		name := fmt.Sprintf("series_%d", i)
		var its []chunkenc.Iterator
		for _, p := range parts {
			if len(p[name]) > 0 {
				its = append(its, storage.NewListSeriesIterator(pointList(p[name])))
			}
		}
		if len(its) == 0 {
			continue
		}
		points, err := drain(nil, dedup.Merge(nil, its, dedup.Options{}))
		if err != nil {
			t.Fatal(err)
		}
		want[name] = points
	}
	return want
}

// Cutting time into blocks and compacting each beside its neighbours gives the samples that compacting all at once
// gives.
func TestNeighboursMakeCutsInvisible(t *testing.T) {
	// Mutants killed: neighbours ignored; samples of neighbours written.
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 3))
		var whole []testBlock
		for i := range 3 {
			b := testBlock{replica: fmt.Sprint(i), maxt: 12 * hour, series: map[string][][]point{}}
			var points []point
			for t := r.Int64N(15_000); t < b.maxt; t += 15_000 + r.Int64N(30) {
				if t/600_000%7 != int64(i) && r.IntN(20) > 0 {
					points = append(points, point{t: t, f: float64(t)})
				}
			}
			b.series["series_0"] = [][]point{points}
			whole = append(whole, b)
		}
		got := content{}
		for _, cut := range [][2]int64{{0, 4 * hour}, {4 * hour, 8 * hour}, {8 * hour, 12 * hour}} {
			var in, beside []testBlock
			for _, b := range whole {
				for _, c := range [][2]int64{{0, 4 * hour}, {4 * hour, 8 * hour}, {8 * hour, 12 * hour}} {
					piece := testBlock{replica: b.replica, mint: c[0], maxt: c[1], series: map[string][][]point{"series_0": {b.between(c[0], c[1])}}}
					if c == cut {
						in = append(in, piece)
					} else {
						beside = append(beside, piece)
					}
				}
			}
			out := t.TempDir()
			meta, _, err := Compact(t.Context(), Config{Inputs: inputsOf(t, in), Neighbours: inputsOf(t, beside), Dedup: Penalty}, nil, out)
			if err != nil {
				t.Fatal(err)
			}
			got["series_0"] = append(got["series_0"], read(t, filepath.Join(out, meta.ULID.String()))["series_0"]...)
		}
		compare(t, merged(t, whole), got)
	}
}

func (b testBlock) between(mint, maxt int64) []point {
	var out []point
	for _, p := range slices.Concat(b.series["series_0"]...) {
		if p.t >= mint && p.t < maxt {
			out = append(out, p)
		}
	}
	return out
}
