//go:build compat

package downsample

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/aggr"
	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
)

// What we make of a block of series of every kind is what Thanos makes of it: the same series with the same
// chunks, byte for byte. Two things are not, on purpose, and are told from the rest:
//   - the least of nothing but +Inf is +Inf, where Thanos has the greatest finite number (and so for the greatest);
//   - where the resolution of a histogram changes, Thanos compares one that it has reduced with one that it has not, and
//     counts all of it again.
func TestSameChunksBesideThanos(t *testing.T) {
	thanos := os.Getenv("KOIOS_THANOS")
	if thanos == "" {
		t.Fatal("KOIOS_THANOS is not the path of a Thanos program")
	}
	for _, days := range []int64{2, 12, 14} {
		t.Run(fmt.Sprintf("%d days", days), func(t *testing.T) { besideThanos(t, thanos, days) })
	}
}

func besideThanos(t *testing.T, thanos string, days int64) {
	bucket, ours := t.TempDir(), t.TempDir()
	length := days * 24 * hour
	all := everyKind(uint64(days), length)
	dir, meta := writeBlock(t, bucket, all, origin, origin+length)
	cmd := exec.Command(thanos, "compact", "--data-dir", t.TempDir(), "--http-address", "127.0.0.1:0", "--consistency-delay=0s",
		"--objstore.config", fmt.Sprintf("{type: FILESYSTEM, config: {directory: %q}}", bucket))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	theirs := map[int64]string{}
	metas, _ := filepath.Glob(filepath.Join(bucket, "*", "meta.json"))
	for _, p := range metas {
		m, err := block.ReadMetaDir(filepath.Dir(p))
		if err != nil {
			t.Fatal(err)
		}
		theirs[m.Resolution()] = filepath.Dir(p)
	}
	m5, res, err := Downsample(t.Context(), stream.Dir(dir), meta, ours, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d samples dropped, %d series left out", res.Dropped, res.SeriesLeftOut)
	if theirs[block.Resolution5m] == "" {
		t.Fatal("Thanos made no block of 5 minutes")
	}
	if path := os.Getenv("KOIOS_UPDATE"); path != "" && days == 2 {
		writeGolden(t, path, dir, theirs[block.Resolution5m])
	}
	compareBlocks(t, theirs[block.Resolution5m], filepath.Join(ours, m5.ULID.String()))
	verify(t, thanos, ours)
	if days < 10 {
		return
	}
	m1, _, err := Downsample(t.Context(), stream.Dir(filepath.Join(ours, m5.ULID.String())), m5, ours, Config{})
	if err != nil {
		t.Fatal(err)
	}
	compareBlocks(t, theirs[block.Resolution1h], filepath.Join(ours, m1.ULID.String()))
	verify(t, thanos, ours)
}

// verify has Thanos look for faults in the blocks of a bucket.
func verify(t *testing.T, thanos, bucket string) {
	t.Helper()
	out, err := exec.Command(thanos, "tools", "bucket", "verify", "--issues=index_known_issues", "--issues=overlapped_blocks",
		"--objstore.config", fmt.Sprintf("{type: FILESYSTEM, config: {directory: %q}}", bucket)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "level=warn") || strings.Contains(line, "level=error") || strings.Contains(line, "detected") {
			t.Errorf("verify: %s", line)
		}
	}
}

func compareBlocks(t *testing.T, theirs, ours string) {
	t.Helper()
	a, err := stream.OpenReader(stream.Dir(theirs), stream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := stream.OpenReader(stream.Dir(ours), stream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var (
		x, y      stream.Series
		scratch   = labels.NewScratchBuilder(0)
		different = map[string]int{}
		chunks    int
	)
	for {
		errA, errB := a.Read(&x), b.Read(&y)
		if errors.Is(errA, io.EOF) && errors.Is(errB, io.EOF) {
			break
		}
		if errA != nil || errB != nil {
			t.Fatalf("theirs: %v, ours: %v", errA, errB)
		}
		la, _ := a.Labels(&scratch, &x)
		lb, _ := b.Labels(&scratch, &y)
		if la.String() != lb.String() {
			t.Fatalf("series %s, want %s", lb, la)
		}
		chunks += len(x.Chunks)
		if len(x.Chunks) != len(y.Chunks) {
			t.Errorf("%s: %d chunks, want %d", la, len(y.Chunks), len(x.Chunks))
			continue
		}
		for i := range x.Chunks {
			if d := differences(&x.Chunks[i], &y.Chunks[i], excused(la)); d != "" {
				if different[la.Get("__name__")]++; different[la.Get("__name__")] < 3 {
					t.Errorf("%s: chunk %d: %s", la, i, d)
				}
			}
		}
	}
	t.Logf("%d chunks compared, different ones: %v", chunks, different)
}

// excused tells which aggregates of a series may differ.
func excused(ls labels.Labels) []aggr.Type {
	switch {
	case ls.Get("__name__") == "infinite":
		return []aggr.Type{aggr.Min, aggr.Max}
	case ls.Get("__name__") == "histogram" && ls.Get("kind") == "3":
		return []aggr.Type{aggr.Counter}
	}
	return nil
}

func differences(theirs, ours *stream.Chunk, except []aggr.Type) string {
	var s strings.Builder
	if theirs.MinTime != ours.MinTime || theirs.MaxTime != ours.MaxTime {
		fmt.Fprintf(&s, "from %d to %d, want %d to %d; ", ours.MinTime, ours.MaxTime, theirs.MinTime, theirs.MaxTime)
	}
	if bytes.Equal(theirs.Data, ours.Data) {
		return s.String()
	}
	for typ := range aggr.Type(aggr.Types) {
		e1, a, err1 := aggr.Chunk(theirs.Data).Get(typ)
		e2, b, err2 := aggr.Chunk(ours.Data).Get(typ)
		if e1 == e2 && bytes.Equal(a, b) || slices.Contains(except, typ) {
			continue
		}
		at := 0
		for at < min(len(a), len(b)) && a[at] == b[at] {
			at++
		}
		fmt.Fprintf(&s, "%s: from byte %d: encoding %d %v, want %d %v, %d bytes, want %d\n  %s\n  %s\n", typ, at, e2, err2, e1, err1, len(b), len(a), dump(e2, b), dump(e1, a))
	}
	if s.Len() == 0 && len(except) == 0 {
		return "parts are the same, the chunk is not"
	}
	return s.String()
}

func dump(enc chunkenc.Encoding, data []byte) string {
	c, err := chunkenc.FromData(enc, data)
	if err != nil {
		return err.Error()
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%d samples, %x:", c.NumSamples(), data[:min(4, len(data))])
	it := c.Iterator(nil)
	for {
		switch it.Next() {
		case chunkenc.ValFloat:
			t, v := it.At()
			fmt.Fprintf(&s, " %d:%v", t, v)
		case chunkenc.ValFloatHistogram:
			t, h := it.AtFloatHistogram(nil)
			fmt.Fprintf(&s, " %d:%v(%v)", t, h, h.CounterResetHint)
		default:
			return s.String()
		}
	}
}

// writeGolden writes what TestGolden reads: raw chunks of some short series and what Thanos made of them.
func writeGolden(t *testing.T, path, raw, theirs string) {
	t.Helper()
	made := map[string][]stream.Chunk{}
	eachSeries(t, theirs, func(name string, chunks []stream.Chunk) { made[name] = chunks })
	var out strings.Builder
	eachSeries(t, raw, func(name string, chunks []stream.Chunk) {
		size := 0
		for i := range chunks {
			size += len(chunks[i].Data)
		}
		if size > 400 || made[name] == nil {
			return
		}
		fmt.Fprintf(&out, "series %s\n", name)
		for _, c := range chunks {
			fmt.Fprintf(&out, "raw %d %d %d %x\n", c.Encoding, c.MinTime, c.MaxTime, c.Data)
		}
		for _, c := range made[name] {
			fmt.Fprintf(&out, "5m %d %d %d %x\n", c.Encoding, c.MinTime, c.MaxTime, c.Data)
		}
	})
	if err := os.WriteFile(path, []byte(out.String()), 0o666); err != nil {
		t.Fatal(err)
	}
}

func eachSeries(t *testing.T, dir string, f func(name string, chunks []stream.Chunk)) {
	t.Helper()
	r, err := stream.OpenReader(stream.Dir(dir), stream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	scratch := labels.NewScratchBuilder(0)
	for {
		var s stream.Series
		err := r.Read(&s)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		ls, err := r.Labels(&scratch, &s)
		if err != nil {
			t.Fatal(err)
		}
		f(ls.String(), s.Chunks)
	}
}
