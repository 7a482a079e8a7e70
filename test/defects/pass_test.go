package defects

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/compact"
	"github.com/koios-metrics/koios/pkg/objstore"
	"github.com/koios-metrics/koios/test/fleet"
)

func TestMain(m *testing.M) { os.Exit(fleet.Main(m)) }

// passMax bounds the time of one pass, on a machine that is busy.
const passMax = 10 * time.Minute

// world is a bucket of sound groups and of groups with one defect each.
type world struct {
	b       *bucket
	sound   []*group
	broken  []*group // as defects
	defects []defect
}

func newWorld(t testing.TB, sound int, ds []defect) *world {
	t.Helper()
	w := &world{b: newBucket(t), defects: ds}
	for i := range sound {
		w.sound = append(w.sound, w.b.addGroup(fmt.Sprintf("sound-%03d", i)))
	}
	for _, d := range ds {
		g := w.b.addGroup(d.name)
		d.seed(g)
		w.broken = append(w.broken, g)
	}
	return w
}

// suspect is the block of a broken group that its defect is about.
func (w *world) suspect(i int) ulid.ULID {
	g := w.broken[i]
	if len(g.extra) > 0 && w.defects[i].want != collected {
		return g.extra[0]
	}
	return g.ids[bad]
}

// found is what there is of a group in a bucket.
type found struct {
	raw     []*block.Meta // not marked for deletion and not set aside
	coarser int
	samples map[string]map[int64]float64
}

// compacted tells whether the first eight hours of a group are one block.
func (f *found) compacted(base int64) bool {
	return slices.ContainsFunc(f.raw, func(m *block.Meta) bool { return m.MinTime == base && m.MaxTime >= base+8*hour })
}

// look reads what is in the bucket, by group. Blocks that can't be read are passed over: what matters is who has their
// samples.
func (b *bucket) look() map[string]*found {
	t := b.t
	t.Helper()
	ctx := context.Background()
	all := map[string]*found{}
	bkt := b.open()
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		id, ok := block.ParseID(e.Name())
		if !ok {
			continue
		}
		m, err := block.GetMeta(ctx, bkt, id)
		if err != nil {
			continue
		}
		if mark, _ := block.ReadDeletionMark(ctx, bkt, id); mark != nil {
			continue
		}
		f := all[m.Thanos.Labels["group"]]
		if f == nil {
			f = &found{samples: map[string]map[int64]float64{}}
			all[m.Thanos.Labels["group"]] = f
		}
		if m.Resolution() != block.ResolutionRaw {
			f.coarser++
			continue
		}
		if ok, err := bkt.Exists(ctx, block.Object(id, compact.SetAsideFilename)); ok || err != nil {
			continue
		}
		f.raw = append(f.raw, m)
		if err := f.read(filepath.Join(b.dir, id.String()), m); err != nil {
			t.Logf("read block %s of %s: %v", id, m.Thanos.Labels, err)
		}
	}
	return all
}

func (b *bucket) open() *objstore.Filesystem {
	b.t.Helper()
	bkt, err := objstore.NewFilesystem(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	return bkt
}

// read adds the samples of a block, and fails at one that is there already.
func (f *found) read(dir string, m *block.Meta) (err error) {
	b, err := tsdb.OpenBlock(nil, dir, nil, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	q, err := tsdb.NewBlockQuerier(b, m.MinTime, m.MaxTime)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	set := q.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	for set.Next() {
		name := set.At().Labels().String()
		if f.samples[name] == nil {
			f.samples[name] = map[int64]float64{}
		}
		it := set.At().Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			ts, v := it.At()
			if _, twice := f.samples[name][ts]; twice {
				return fmt.Errorf("%s at %d is there twice", name, ts)
			}
			f.samples[name][ts] = v
		}
		if it.Err() != nil {
			return it.Err()
		}
	}
	return set.Err()
}

// fateOf tells what has become of a block.
func (b *bucket) fateOf(id ulid.ULID) (fate, string) {
	b.t.Helper()
	ctx := context.Background()
	bkt := b.open()
	if _, err := os.Stat(filepath.Join(b.dir, id.String())); errors.Is(err, os.ErrNotExist) {
		return deleted, ""
	}
	if mark, _ := block.ReadDeletionMark(ctx, bkt, id); mark != nil {
		return collected, mark.Details
	}
	text, err := readObject(ctx, bkt, block.Object(id, compact.SetAsideFilename))
	if err != nil {
		return left, ""
	}
	var m compact.SetAsideMark
	if err := json.Unmarshal(text, &m); err != nil {
		b.t.Error(err)
	}
	for _, mark := range []string{block.NoCompactMarkFilename, block.NoDownsampleMarkFilename} {
		if text, err := readObject(ctx, bkt, block.Object(id, mark)); err != nil || !strings.Contains(string(text), "set aside by koios: ") {
			b.t.Errorf("block %s is set aside without %s: %s %v", id, mark, text, err)
		}
	}
	return setAside, m.Cause
}

func readObject(ctx context.Context, bkt *objstore.Filesystem, name string) ([]byte, error) {
	r, err := bkt.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// data is a data directory. Thanos allocates more than it writes, which costs where there is no disk.
func (b *bucket) data(program string) string {
	if program == fleet.KoiosProgram(b.t) {
		return tempDir(b.t)
	}
	return b.t.TempDir()
}

// start starts a compactor over the bucket.
func (b *bucket) start(program string, flags ...string) *fleet.Component {
	b.t.Helper()
	c := &fleet.Component{HTTP: fleet.FreeAddr(b.t)}
	c.URL = "http://" + c.HTTP
	args := append([]string{
		"compact", "--http-address=" + c.HTTP, "--data-dir=" + b.data(program), "--objstore.config-file=" + fleet.BucketConfig(b.t, b.dir),
		"--compact.concurrency=4",
	}, flags...)
	c.Process = fleet.Start(b.t, "compact", program, args...)
	return c
}

// pass runs a compactor over the bucket until it ends by itself.
func (b *bucket) pass(program string) (exit int, log string) {
	b.t.Helper()
	p := b.start(program)
	return p.WaitExit(b.t, passMax), p.Log()
}

// check compares what is there after a pass with what should be, and returns a table.
func (w *world) check(t *testing.T, exit int, log string) string {
	t.Helper()
	all := w.b.look()
	compacted := 0
	for _, g := range w.sound {
		f := all[g.labels["group"]]
		if f == nil || !f.compacted(w.b.base) || len(f.raw) != 1 || f.coarser == 0 {
			t.Errorf("sound group %v: %+v", g.labels, f)
			continue
		}
		compacted++
		if d := cmp.Diff(g.expected(true), f.samples); d != "" {
			t.Errorf("samples of sound group %v (-want +got):\n%.500s", g.labels, d)
		}
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%d of %d sound groups compacted and downsampled; exit code %d\n", compacted, len(w.sound), exit)
	named := 0
	for i, d := range w.defects {
		g, id := w.broken[i], w.suspect(i)
		got, cause := w.b.fateOf(id)
		f := all[d.name]
		if f == nil {
			f = &found{}
		}
		last := log[strings.LastIndex(strings.TrimRight(log, "\n"), "\n")+1:]
		switch {
		case got == collected && strings.HasPrefix(cause, "source of") && d.want != collected:
			got = mended
		case got == left && strings.Contains(last, d.name):
			got, cause = parked, "named in the last line"
			named++
		}
		fmt.Fprintf(&table, "%-46s %-22s %s\n", d.name, got, strings.ReplaceAll(cause, id.String(), "…"))
		if got != d.want || !strings.Contains(cause, d.cause) && got == setAside {
			t.Errorf("%s: %s (%s), want %s (%s)", d.name, got, cause, d.want, d.cause)
		}
		readable := d.want == mended || d.want == parked || d.want == collected && d.name != "an empty block"
		readable = readable || len(g.extra) > 0
		if diff := cmp.Diff(g.expected(readable), f.samples); diff != "" {
			t.Errorf("%s: samples (-want +got):\n%.600s", d.name, diff)
		}
		// What is left is merged around the bad block.
		if most := map[bool]int{true: 1, false: 2}[d.want != setAside && d.want != left]; d.want != parked && len(f.raw) > most {
			t.Errorf("%s: %d blocks are left beside the bad one, want %d at most", d.name, len(f.raw), most)
		}
	}
	if wantExit := min(named, 1); exit != wantExit {
		t.Errorf("exit code %d, want %d", exit, wantExit)
	}
	if strings.Contains(log, "panic") {
		t.Error("panic in the log")
	}
	return table.String()
}

// halted is what a compactor that goes on working shows of groups that nobody but a person can help.
func (w *world) halted(t *testing.T) {
	t.Helper()
	want := 0.0
	var names []string
	for _, d := range w.defects {
		if d.want == parked {
			want = 1
			names = append(names, d.name)
		}
	}
	c := w.b.start(fleet.KoiosProgram(t), "--wait").Ready(t)
	fleet.Eventually(t, "the compactor has made a pass", passMax, func() error {
		if n, _ := c.Metric(t, "thanos_compact_iterations_total"); n < 1 {
			return errors.New("not yet")
		}
		return nil
	})
	if got, ok := c.Metric(t, "thanos_compact_halted"); got != want || !ok {
		t.Errorf("thanos_compact_halted is %v, want %v", got, want)
	}
	_, page := fleet.Get(t.Context(), c.URL+"/api/v1/compact")
	for _, name := range names {
		if !strings.Contains(page, name) {
			t.Errorf("the page of groups does not name %q", name)
		}
	}
	c.Stop(t)
}

// Shows that a pass of the process over a bucket where some groups carry one defect each compacts and downsamples every
// sound group, that each bad block is marked with its cause, or mended, or gone, as the table of defects says, that every
// sample that can be read is there once, and that nothing halts: the process ends by itself, names the groups that wait
// for a person, and shows them while it goes on. Here all defects are in one bucket with a few sound groups; `make
// campaign-defects` takes buckets of 100 groups of which 20 are bad, and lets Thanos make a pass over the same.
//
// Mutants: see test/mutants.
func TestOnePass(t *testing.T) {
	w := newWorld(t, 4, defects)
	exit, log := w.b.pass(fleet.KoiosProgram(t))
	t.Logf("\n%s", w.check(t, exit, log))
	if t.Failed() {
		t.Logf("log:\n%s", log)
	}
	w.halted(t)
}
