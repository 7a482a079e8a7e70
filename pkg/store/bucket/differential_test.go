package bucket

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/store"
)

// casesPerBlock is how many matcher sets each generated block is asked.
const casesPerBlock = 250

// Shows that generated blocks answer any matchers, over any time range and read in any way, as Prometheus's own block
// querier does, to the last byte of a chunk. KOIOS_STORE_CASES says how many cases there are, KOIOS_STORE_STATE names a
// file that an ended run goes on from, KOIOS_STORE_SEED changes the cases. (A posting list that loses its last series
// fails it, and so does a chunk left out that ends where the range begins.)
func TestLikePrometheus(t *testing.T) {
	cases, seed := envInt(t, "KOIOS_STORE_CASES", 2_000), envInt(t, "KOIOS_STORE_SEED", 1)
	state := struct{ Seed, Done, Series int }{Seed: seed}
	file := os.Getenv("KOIOS_STORE_STATE")
	if file != "" {
		b, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(b, &state)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if state.Seed != seed {
			t.Fatalf("%s is of seed %d", file, state.Seed)
		}
	}
	for state.Done < cases {
		n := min(casesPerBlock, cases-state.Done)
		state.Series += compareBlock(t, rand.New(rand.NewPCG(uint64(seed), uint64(state.Done/casesPerBlock))), n)
		if t.Failed() {
			t.Fatalf("seed %d, block %d", seed, state.Done/casesPerBlock)
		}
		state.Done += n
		if file != "" {
			b, err := json.Marshal(state)
			if err == nil {
				err = os.WriteFile(file, b, 0o666)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d cases without a difference, %d series in the answers", state.Done, state.Series)
	if state.Series < state.Done {
		t.Errorf("%d cases found only %d series", state.Done, state.Series)
	}
}

func envInt(t *testing.T, name string, fallback int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return fallback
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

var (
	someNames  = []string{"__name__", "a", "b", "job", "zz"}
	someValues = []string{"x", "xy", "y", "x.y", "é", "up", "", "1", "10", "100"}
	someRegexp = []string{"", ".*", ".+", "x|y", "x|", "x.*", "(x|xy)", "[^x]+", "1|10|nope", "^$", "|", "(?i:X)", ".*y", "1.?", "x\\.y", "1[0-9]*", "(1|x)(0|y)?", "é|up"}
)

func anyMatchers(rnd *rand.Rand) []*labels.Matcher {
	var ms []*labels.Matcher
	for range 1 + rnd.IntN(4) {
		typ, from := labels.MatchType(rnd.IntN(4)), someValues
		if typ == labels.MatchRegexp || typ == labels.MatchNotRegexp {
			from = someRegexp
		}
		ms = append(ms, labels.MustNewMatcher(typ, someNames[rnd.IntN(len(someNames))], from[rnd.IntN(len(from))]))
	}
	return ms
}

// anyBlock makes a block of up to 300 series with up to 30 chunks each, with pauses between them.
func anyBlock(rnd *rand.Rand) handBlock {
	h := handBlock{n: 1, mint: 0, maxt: 1 << 20}
	seen := map[string]bool{}
	for range 1 + rnd.IntN(300) {
		b := labels.NewBuilder(labels.EmptyLabels())
		for _, n := range someNames {
			if rnd.IntN(4) > 0 {
				b.Set(n, someValues[rnd.IntN(len(someValues))])
			}
		}
		l := b.Labels()
		if l.IsEmpty() || seen[l.String()] {
			continue
		}
		seen[l.String()] = true
		s := handSeries{labels: l}
		at := rnd.Int64N(1000)
		for range 1 + rnd.IntN([]int{2, 30}[rnd.IntN(2)]) {
			vs := make([]float64, 1+rnd.IntN([]int{3, 120, 1500}[rnd.IntN(3)]))
			for i := range vs {
				vs[i] = float64(rnd.IntN(1000)) / 8
			}
			c := xorChunk(at, 1+rnd.Int64N(20), vs...)
			s.chunks = append(s.chunks, c)
			at = c.maxt + 1 + rnd.Int64N(300)
		}
		h.maxt = max(h.maxt, at)
		h.series = append(h.series, s)
	}
	if len(h.series) == 0 {
		h.series = []handSeries{{ls("__name__", "x"), []handChunk{xorChunk(5, 1, 1)}}}
	}
	slices.SortFunc(h.series, func(x, y handSeries) int { return labels.Compare(x.labels, y.labels) })
	return h
}

// readChunk is a chunk of an answer.
type readChunk struct {
	labels     labels.Labels
	mint, maxt int64
	data       string
}

// compareBlock asks a generated block as often as said, and returns how many series there were in the answers.
func compareBlock(t *testing.T, rnd *rand.Rand, cases int) (series int) {
	t.Helper()
	h := anyBlock(rnd)
	root := t.TempDir()
	defer os.RemoveAll(root)
	bkt := objstore.NewInMemBucket()
	id := h.writeIn(t, bkt, root)
	pb, err := tsdb.OpenBlock(slog.New(slog.NewTextHandler(io.Discard, nil)), filepath.Join(root, id.String()), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer pb.Close()
	s := open(t, bkt, Config{
		SeriesBatchSize: 1 + rnd.IntN(50), LazyPostings: rnd.IntN(2) == 0, KeySeriesRatioMax: rnd.Float64(),
		EstimatedSeriesBytesMax: int64(32 + rnd.IntN(1000)), EstimatedChunkBytesMax: int64(32 + rnd.IntN(3000)),
		IndexCacheBytesMax: int64(rnd.IntN(2)) << 20,
	})
	defer s.Close()
	for range cases {
		ms := anyMatchers(rnd)
		mint := rnd.Int64N(h.series[0].chunks[0].maxt + 20_000)
		maxt := mint + rnd.Int64N([]int64{1, 500, 1 << 20}[rnd.IntN(3)])
		want := fromPrometheus(t, pb, mint, maxt, ms)
		all, ws, err := drain(t, s, &store.SeriesRequest{MinTime: mint, MaxTime: maxt, Matchers: ms, PartialResponse: store.PartialResponse(rnd.IntN(2))})
		if err != nil || len(ws) > 0 {
			t.Errorf("%v from %d to %d: %v %v", ms, mint, maxt, ws, err)
			return series
		}
		var got []readChunk
		for _, x := range all {
			for _, c := range x.Chunks {
				got = append(got, readChunk{x.Labels, c.MinTime, c.MaxTime, string(c.Raw.Data)})
			}
		}
		if !slices.Equal(want, got) {
			t.Errorf("%v from %d to %d: %d chunks, want %d\ngot  %.2000v\nwant %.2000v", ms, mint, maxt, len(got), len(want), got, want)
			return series
		}
		series += len(all)
	}
	return series
}

// fromPrometheus lists the chunks that Prometheus's own reader of blocks selects.
func fromPrometheus(t *testing.T, pb *tsdb.Block, mint, maxt int64, ms []*labels.Matcher) (out []readChunk) {
	t.Helper()
	ir, err := pb.Index()
	if err != nil {
		t.Fatal(err)
	}
	defer ir.Close()
	cr, err := pb.Chunks()
	if err != nil {
		t.Fatal(err)
	}
	defer cr.Close()
	p, err := tsdb.PostingsForMatchers(context.Background(), ir, ms...)
	if err != nil {
		t.Fatal(err)
	}
	set := tsdb.NewBlockChunkSeriesSet(pb.Meta().ULID, ir, cr, tombstones.NewMemTombstones(), p, mint, maxt, true)
	for set.Next() {
		x := set.At()
		it := x.Iterator(nil)
		for it.Next() {
			c := it.At()
			if c.Chunk.Encoding() != chunkenc.EncXOR {
				t.Fatal(c.Chunk.Encoding())
			}
			out = append(out, readChunk{x.Labels(), c.MinTime, c.MaxTime, string(c.Chunk.Bytes())})
		}
		if it.Err() != nil {
			t.Fatal(it.Err())
		}
	}
	if set.Err() != nil {
		t.Fatal(set.Err())
	}
	return out
}
