package bucketops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
	"github.com/koios-metrics/koios/pkg/objstore/faulty"
)

// ids are the blocks of a world whose metadata is there.
func (w *world) ids() (ids []string) {
	for _, name := range w.objects() {
		if id, ok := strings.CutSuffix(name, "/"+block.MetaFilename); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// marked are the blocks of a world that are marked for deletion.
func (w *world) marked() (ids []string) {
	for _, name := range w.objects() {
		if id, ok := strings.CutSuffix(name, "/"+block.DeletionMarkFilename); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

func texts(ids ...ulid.ULID) (ss []string) {
	for _, id := range ids {
		ss = append(ss, id.String())
	}
	slices.Sort(ss)
	return ss
}

// mark writes and removes marks, names the blocks it could not mark, and leaves a mark that is there.
func TestMark(t *testing.T) {
	w := newWorld(t)
	a, b := w.add(spec{}), w.add(spec{})
	for _, marker := range Markers() {
		cfg := MarkConfig{IDs: []ulid.ULID{a, b}, Marker: marker, Details: "why", Now: now}
		if err := Mark(context.Background(), w.bkt, cfg, quietLogger()); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(w.path(a, marker))
		if err != nil || !strings.Contains(string(text), `"details":"why"`) || !strings.Contains(string(text), fmt.Sprint(testNow.Unix())) {
			t.Errorf("%s: %s %v", marker, text, err)
		}
		cfg.Remove, cfg.Details = true, ""
		if err := Mark(context.Background(), w.bkt, cfg, quietLogger()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(w.path(a, marker)); !os.IsNotExist(err) {
			t.Errorf("%s is still there", marker)
		}
	}
	if Mark(context.Background(), w.bkt, MarkConfig{IDs: []ulid.ULID{a}, Marker: block.DeletionMarkFilename}, quietLogger()) == nil {
		t.Error("a mark without details is written")
	}
	fb := faulty.New(w.bkt)
	fb.Plan(faulty.Named(faulty.On(faulty.Always(faulty.Fault{Err: errors.New("refused")}), faulty.Upload), a.String()))
	err := Mark(context.Background(), fb, MarkConfig{IDs: []ulid.ULID{a, b}, Marker: block.DeletionMarkFilename, Details: "x", Now: now}, quietLogger())
	if err == nil || !strings.Contains(err.Error(), a.String()) {
		t.Errorf("error %v", err)
	}
	if d := cmp.Diff(texts(b), w.marked()); d != "" {
		t.Errorf("the failure of one keeps others from being marked:\n%s", d)
	}
}

// cleanup deletes what was marked long enough ago and what is left of uploads and deletions, and nothing else; a dry run
// deletes nothing.
func TestCleanup(t *testing.T) {
	w := newWorld(t)
	mark := func(id ulid.ULID, age time.Duration) ulid.ULID {
		w.put(id, block.DeletionMarkFilename, fmt.Sprintf(`{"id":"%s","version":1,"deletion_time":%d}`, id, testNow.Add(-age).Unix()))
		return id
	}
	aged := func(id ulid.ULID, age time.Duration) ulid.ULID {
		for _, rel := range []string{"index", "chunks/000001", block.MetaFilename, block.DeletionMarkFilename} {
			at := testNow.Add(-age)
			if err := os.Chtimes(w.path(id, rel), at, at); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
		return id
	}
	sound := aged(w.add(spec{}), 1000*time.Hour)
	mark(w.add(spec{}), 49*time.Hour)
	young := mark(w.add(spec{}), 47*time.Hour)
	aged(w.add(spec{noMeta: true}), 49*time.Hour)
	uploading := aged(w.add(spec{noMeta: true}), 47*time.Hour)
	half := w.add(spec{noMeta: true})
	aged(mark(half, 49*time.Hour), time.Hour)
	broken := w.add(spec{})
	w.edit(broken, block.MetaFilename, cut(0.5))
	aged(broken, 49*time.Hour)
	newer := aged(w.add(spec{meta: func(m *block.Meta) { m.Version = 2 }}), 49*time.Hour)

	before := w.objects()
	clean := func(dry bool) error {
		return Cleanup(context.Background(), w.bkt, CleanupConfig{Choice: Choice{Now: now}, DeleteDelay: 48 * time.Hour, DryRun: dry}, quietLogger(), prometheus.NewRegistry())
	}
	if err := clean(true); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, w.objects()); d != "" {
		t.Errorf("a dry run changed the bucket:\n%s", d)
	}
	if err := clean(false); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, name := range w.objects() {
		left = append(left, name[:26])
	}
	if d := cmp.Diff(texts(sound, young, uploading, newer), slices.Compact(left)); d != "" {
		t.Errorf("blocks left (-want +got):\n%s", d)
	}
}

// retention marks what is past its retention, and keeps what a coarser resolution should hold and does not.
func TestRetention(t *testing.T) {
	w := newWorld(t)
	const day = 24 * hour
	at := func(age int64, res int64, sources ...ulid.ULID) ulid.ULID {
		maxt := testNow.UnixMilli() - age
		return w.add(spec{mint: maxt - 2*hour, maxt: maxt, meta: func(m *block.Meta) {
			m.Thanos.Downsample.Resolution = res
			if len(sources) > 0 {
				m.Compaction.Sources = sources
			}
		}})
	}
	covered := at(40*day, 0)
	at(40*day, block.Resolution5m, covered)
	bare := at(41*day, 0)
	at(3*day, 0)
	old5m := at(100*day, block.Resolution5m)
	apply := func(cfg RetentionConfig) {
		t.Helper()
		cfg.Choice.Now = now
		cfg.Retention = map[int64]time.Duration{0: 30 * 24 * time.Hour, block.Resolution5m: 90 * 24 * time.Hour, block.Resolution1h: 95 * 24 * time.Hour}
		if err := Retention(context.Background(), w.bkt, cfg, quietLogger(), prometheus.NewRegistry()); err != nil {
			t.Fatal(err)
		}
	}
	f := func(what string, want ...ulid.ULID) {
		t.Helper()
		if d := cmp.Diff(texts(want...), w.marked()); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	apply(RetentionConfig{DryRun: true})
	f("dry run")
	apply(RetentionConfig{})
	f("data that is at 5m may go", covered, old5m)
	apply(RetentionConfig{Alone: true})
	f("told that nothing is downsampled", covered, old5m, bare)
}

// replicate copies what is chosen, meta.json last, once; a run that is cut off is completed by the next.
func TestReplicate(t *testing.T) {
	src, dst := newWorld(t), newWorld(t)
	a := src.add(spec{})
	b := src.add(spec{mint: base + 2*hour, maxt: base + 4*hour, labels: map[string]string{"cluster": "b"}})
	src.add(spec{mint: base + 4*hour, maxt: base + 6*hour, meta: func(m *block.Meta) { m.Compaction.Level = 5 }})
	src.add(spec{labels: map[string]string{}})
	cfg := ReplicateConfig{Resolutions: []int64{0}, Levels: []int{1, 2, 3, 4}, SingleRun: true}
	to := faulty.New(dst.bkt)
	run := func(cfg ReplicateConfig) (*Replicator, error) {
		r, err := NewReplicator(src.bkt, to, cfg, quietLogger(), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		return r, r.Run(context.Background())
	}
	to.Plan(faulty.Named(faulty.On(faulty.Always(faulty.Fault{Err: errors.New("refused")}), faulty.Upload), a.String()+"/index"))
	_, err := run(cfg)
	if err == nil || !strings.Contains(err.Error(), a.String()) {
		t.Errorf("error %v", err)
	}
	if d := cmp.Diff(texts(b), dst.ids()); d != "" {
		t.Errorf("one that fails keeps others back:\n%s", d)
	}
	to.Plan(nil)
	to.Reset()
	r, err := run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(texts(a, b), dst.ids()); d != "" {
		t.Error(d)
	}
	var uploads []string
	for _, c := range to.Calls() {
		if c.Op == faulty.Upload {
			uploads = append(uploads, strings.TrimPrefix(c.Name, a.String()+"/"))
		}
	}
	if d := cmp.Diff([]string{"index", "meta.json"}, uploads); d != "" {
		t.Errorf("uploads of the second run:\n%s", d)
	}
	if n := testutil.ToFloat64(r.metrics.already); n != 1 {
		t.Errorf("%v blocks were there already", n)
	}
	cfg.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "cluster", "zzz")}
	cfg.IDs = []ulid.ULID{sourceA}
	if _, err := run(cfg); err == nil {
		t.Error("a block that is not there is no error")
	}
	for _, name := range []string{a.String() + "/index", a.String() + "/chunks/000001", a.String() + "/meta.json"} {
		x, _ := os.ReadFile(filepath.Join(src.dir, name))
		y, _ := os.ReadFile(filepath.Join(dst.dir, name))
		if !slices.Equal(x, y) {
			t.Errorf("%s differs", name)
		}
	}
}

// upload-blocks gives blocks labels and uploads them; one that can't be read is left out.
func TestUploadBlocks(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a := w.write(dir, spec{labels: map[string]string{}})
	b := w.write(dir, spec{mint: base + 2*hour, maxt: base + 4*hour, labels: map[string]string{}})
	if err := os.WriteFile(filepath.Join(dir, b.String(), "meta.json"), []byte("{"), 0o666); err != nil {
		t.Fatal(err)
	}
	ls, err := ParseLabels([]string{`cluster="x"`, `replica="1"`})
	if err != nil {
		t.Fatal(err)
	}
	if err := UploadBlocks(context.Background(), w.bkt, UploadConfig{Path: dir, Labels: ls, Concurrency: 2}, quietLogger(), prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	m, err := block.GetMeta(context.Background(), w.bkt, a)
	if err != nil {
		t.Fatal(err)
	}
	if m.Labels().String() != `{cluster="x", replica="1"}` || m.Thanos.Source != block.SourceBucketUpload {
		t.Errorf("uploaded as %s of %s", m.Labels(), m.Thanos.Source)
	}
	if d := cmp.Diff(texts(a), w.ids()); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"a", `a=b`, `="x"`, `1="x"`} {
		if _, err := ParseLabels([]string{bad}); err == nil {
			t.Errorf("%s is a label", bad)
		}
	}
}

// downsample makes 5m of what is due, and 1h of that, passes over marks, and goes on past a block that can't be read.
func TestDownsample(t *testing.T) {
	w := newWorld(t)
	old := base - 30*24*hour
	good := w.add(spec{mint: old, maxt: old + 48*hour, labels: map[string]string{"cluster": "good"}})
	bad := w.add(spec{mint: old, maxt: old + 48*hour, labels: map[string]string{"cluster": "bad"}})
	w.edit(bad, "index", cut(0.5))
	marked := w.add(spec{mint: old, maxt: old + 48*hour, labels: map[string]string{"cluster": "marked"}})
	w.put(marked, block.NoDownsampleMarkFilename, `{"id":"`+marked.String()+`","version":1,"no_downsample_time":1,"reason":"manual"}`)
	reg := prometheus.NewRegistry()
	d, err := NewDownsampler(w.bkt, DownsampleConfig{Choice: Choice{Now: now}, DataDir: t.TempDir(), Concurrency: 2}, quietLogger(), reg)
	if err != nil {
		t.Fatal(err)
	}
	err = d.Run(context.Background())
	if err == nil || !strings.Contains(err.Error(), bad.String()) || strings.Contains(err.Error(), good.String()) {
		t.Errorf("error %v", err)
	}
	got := map[string][]int64{}
	for _, s := range w.ids() {
		m, err := block.GetMeta(context.Background(), w.bkt, ulid.MustParse(s))
		if err != nil {
			t.Fatal(err)
		}
		c := m.Thanos.Labels["cluster"]
		got[c] = append(got[c], m.Resolution())
		slices.Sort(got[c])
	}
	want := map[string][]int64{"good": {0, block.Resolution5m, block.Resolution1h}, "bad": {0}, "marked": {0}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("resolutions (-want +got):\n%s", diff)
	}
	if n := testutil.ToFloat64(d.metrics.done.WithLabelValues("0")); n != 1 {
		t.Errorf("%v blocks counted", n)
	}
	if n := testutil.ToFloat64(d.metrics.failures.WithLabelValues("0")); n == 0 {
		t.Error("the failure is not counted")
	}
}

// samples are those of all series of a block, by labels, as t=v.
func (w *world) samples(id ulid.ULID) map[string][]string {
	w.t.Helper()
	return samplesOf(w.t, stream.Dir(filepath.Join(w.dir, id.String())))
}
