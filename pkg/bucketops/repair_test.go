package bucketops

import (
	"context"
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
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
	"github.com/koios-metrics/koios/pkg/objstore/faulty"
)

func samplesOf(t testing.TB, files stream.Files) map[string][]string {
	t.Helper()
	r, err := stream.OpenReader(files, stream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all := map[string][]string{}
	var b labels.ScratchBuilder
	for {
		var s stream.Series
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
		for _, c := range s.Chunks {
			ck, err := chunkenc.FromData(c.Encoding, c.Data)
			if err != nil {
				t.Fatal(err)
			}
			for it := ck.Iterator(nil); it.Next() != chunkenc.ValNone; {
				at, v := it.At()
				all[ls.String()] = append(all[ls.String()], fmt.Sprintf("%d=%g", at, v))
			}
		}
	}
}

func verify(t *testing.T, w *world, cfg VerifyConfig) (string, error) {
	t.Helper()
	cfg.Choice.Now, cfg.TempDir = now, t.TempDir()
	if cfg.Issues == nil {
		cfg.Issues = []string{IssueIndex}
	}
	var out strings.Builder
	err := Verify(context.Background(), w.bkt, cfg, &out, quietLogger(), prometheus.NewRegistry())
	return out.String(), err
}

// verify names each seeded defect of a block on a line of its own and never stops at one.
func TestVerifyNamesDefects(t *testing.T) {
	w := newWorld(t)
	ids := map[string]defect{}
	for _, d := range defects {
		ids[d.seed(w, spec{labels: map[string]string{"cluster": d.name}}).String()] = d
	}
	out, err := verify(t, w, VerifyConfig{Issues: []string{IssueIndex, IssueOverlaps}})
	if err != nil {
		t.Fatal(err)
	}
	for id, d := range ids {
		for _, k := range d.want {
			if k == KindMarkMalformed || k == KindOverdue || k == KindSetAside {
				continue // of marks, which doctor looks at
			}
			if !strings.Contains(out, id+" "+string(k)) {
				t.Errorf("%s is not called %s", d.name, k)
			}
		}
	}
}

// Repair writes a block with all that is readable, in order, after a whole copy of the old one was put aside, and only
// then lets the old one go. The order of requests is asserted, and each of them refused in turn: the old block, or the new one
// with the old one's copy, is always there.
func TestRepair(t *testing.T) {
	build := func() (*world, ulid.ULID, map[string][]string) {
		w := newWorld(t)
		sound := w.add(spec{age: 3 * time.Hour})
		want := w.samples(sound)
		if err := block.Delete(context.Background(), w.bkt, sound); err != nil {
			t.Fatal(err)
		}
		id := w.add(spec{})
		w.edit(id, "chunks/000001", flip(func(b []byte) int { return len(b) - 1 })) // the last chunk of job="web"
		return w, id, want
	}
	w, id, want := build()
	backup := newWorld(t)
	before := w.objects()
	if _, err := verify(t, w, VerifyConfig{Repair: true}); err == nil {
		t.Error("repaired without a backup")
	}
	if _, err := verify(t, w, VerifyConfig{Repair: true, Backup: backup.bkt, DryRun: true}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, w.objects()); d != "" || len(backup.objects()) > 0 {
		t.Errorf("a dry run changed something: %s %v", d, backup.objects())
	}

	fb, fbackup := faulty.New(w.bkt), faulty.New(backup.bkt)
	wf := *w
	wf.bkt = fb
	if _, err := verify(t, &wf, VerifyConfig{Repair: true, Backup: fbackup}); err != nil {
		t.Fatal(err)
	}
	made := w.ids()
	if len(made) != 1 || made[0] == id.String() {
		t.Fatalf("blocks %v", made)
	}
	got := w.samples(ulid.MustParse(made[0]))
	web := `{__name__="up", job="web"}`
	kept := want[web][:360]
	want[web] = kept
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("samples (-want +got):\n%.2000s", d)
	}
	m, err := block.GetMeta(context.Background(), w.bkt, ulid.MustParse(made[0]))
	if err != nil {
		t.Fatal(err)
	}
	if m.Thanos.Source != block.SourceBucketRepair || !slices.Contains(m.Compaction.Sources, id) || m.Compaction.Level != 1 {
		t.Errorf("metadata %+v", m)
	}
	if d := cmp.Diff(before, backup.objects()); d != "" {
		t.Errorf("the backup is not the old block:\n%s", d)
	}
	order := changesOf(fb, id.String(), made[0])
	if d := cmp.Diff([]string{
		"upload new/chunks/000001", "upload new/index", "upload new/meta.json", "delete old/meta.json", "delete old/chunks/000001", "delete old/index",
	}, order); d != "" {
		t.Errorf("order (-want +got):\n%s", d)
	}
	if out, err := verify(t, w, VerifyConfig{}); err != nil || out != "" {
		t.Errorf("after the repair: %s %v", out, err)
	}

	for n := 1; n <= len(order); n++ {
		for _, done := range []bool{false, true} {
			w, id, _ := build()
			fb, backup := faulty.New(w.bkt), newWorld(t)
			fb.Plan(faulty.On(faulty.Nth(n, faulty.Fault{Err: errors.New("refused"), Done: done}), faulty.Upload, faulty.Delete))
			wf := *w
			wf.bkt = fb
			if _, err := verify(t, &wf, VerifyConfig{Repair: true, Backup: backup.bkt}); err == nil {
				t.Errorf("request %d refused, no error", n)
			}
			if left := w.ids(); len(left) == 0 {
				t.Errorf("request %d refused (done %t): no block is left", n, done)
			}
			fb.Plan(nil)
			if _, err := verify(t, &wf, VerifyConfig{Repair: true, Backup: backup.bkt}); err != nil {
				t.Errorf("request %d refused (done %t), then once more: %v", n, done, err)
			}
			if left := w.ids(); slices.Contains(left, id.String()) && n <= 3 {
				t.Errorf("request %d refused (done %t), then once more: the old block is still there", n, done)
			}
		}
	}
}

// changesOf are the changing requests to a bucket, by old and new block.
func changesOf(b *faulty.Bucket, old, made string) (all []string) {
	for _, c := range b.Calls() {
		if c.Op == faulty.Upload || c.Op == faulty.Delete {
			all = append(all, string(c.Op)+" "+strings.NewReplacer(old, "old", made, "new").Replace(c.Name))
		}
	}
	return all
}

// With a delay the old block is marked instead of deleted, and a backup that holds another block of the id is refused.
func TestRepairDelayed(t *testing.T) {
	w, backup := newWorld(t), newWorld(t)
	id := w.add(spec{})
	w.edit(id, "chunks/000001", flip(func(b []byte) int { return len(b) - 1 }))
	if err := backup.bkt.Upload(context.Background(), id.String()+"/index", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := verify(t, w, VerifyConfig{Repair: true, Backup: backup.bkt}); err == nil {
		t.Error("a backup is overwritten")
	}
	if _, err := verify(t, w, VerifyConfig{Repair: true, Backup: newWorld(t).bkt, DeleteDelay: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(texts(id), w.marked()); d != "" || len(w.ids()) != 2 {
		t.Errorf("marked %s, blocks %v", d, w.ids())
	}
}

// Of blocks that came of the same compaction all but the oldest go, if the oldest can be read.
func TestDuplicatedCompaction(t *testing.T) {
	w := newWorld(t)
	a := w.add(spec{meta: from(sourceA, sourceB)})
	b := w.add(spec{meta: from(sourceB, sourceA)})
	w.add(spec{mint: base + 2*hour, maxt: base + 4*hour})
	cfg := VerifyConfig{Issues: []string{IssueDuplicates}}
	out, err := verify(t, w, cfg)
	if err != nil || !strings.Contains(out, b.String()) || strings.Contains(out, a.String()+" contained") {
		t.Errorf("%s %v", out, err)
	}
	cfg.Repair, cfg.Backup = true, newWorld(t).bkt
	w.edit(a, "index", flip(func(b []byte) int { return len(b) - 20 }))
	if _, err := verify(t, w, cfg); err == nil || len(w.ids()) != 3 {
		t.Errorf("deleted for a block that can't be read: %v", err)
	}
	w.edit(a, "index", flip(func(b []byte) int { return len(b) - 20 }))
	if _, err := verify(t, w, cfg); err != nil || slices.Contains(w.ids(), b.String()) || !slices.Contains(w.ids(), a.String()) {
		t.Errorf("blocks %v, error %v", w.ids(), err)
	}
	cfg.IDs = []ulid.ULID{a}
	if _, err := verify(t, w, cfg); err == nil {
		t.Error("single blocks are looked at for an issue between blocks")
	}
}

// Rewrite deletes series and stretches of time, relabels, and merges series that become one: the samples are those that the
// same changes leave of the old block's.
func TestRewrite(t *testing.T) {
	deletions, err := ParseDeletions([]byte(fmt.Sprintf(`
- matchers: '{job="api"}'
- matchers: '{job="db"}'
  intervals: [{mint: %d, maxt: %d}]
  request_id: r1
`, base, base+minute)))
	if err != nil {
		t.Fatal(err)
	}
	rules, err := ParseRelabel([]byte(`[{action: labeldrop, regex: job}]`))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	id := w.add(spec{})
	before := w.objects()
	old := w.samples(id)
	api, db, web := `{__name__="up", job="api"}`, `{__name__="up", job="db"}`, `{__name__="up", job="web"}`
	run := func(cfg RewriteConfig) string {
		t.Helper()
		cfg.IDs, cfg.TempDir, cfg.Now = []ulid.ULID{id}, t.TempDir(), now
		var out strings.Builder
		if err := Rewrite(context.Background(), w.bkt, cfg, &out, quietLogger()); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	fresh := func() ulid.ULID {
		t.Helper()
		for _, s := range w.ids() {
			if s != id.String() {
				return ulid.MustParse(s)
			}
		}
		t.Fatal("no new block")
		return ulid.ULID{}
	}
	f := func(what string, cfg RewriteConfig, want map[string][]string) {
		t.Helper()
		run(cfg)
		made := fresh()
		if d := cmp.Diff(want, w.samples(made)); d != "" {
			t.Errorf("%s (-want +got):\n%.3000s", what, d)
		}
		m, err := block.GetMeta(context.Background(), w.bkt, made)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Thanos.Rewrites) != 1 || m.Thanos.Source != block.SourceBucketRewrite || !slices.Equal(m.Compaction.Sources, []ulid.ULID{made}) {
			t.Errorf("%s: metadata %+v", what, m)
		}
		if found, err := checkBlock(context.Background(), w.bkt, m, DepthChunks, testNow); err != nil || len(found) > 0 {
			t.Errorf("%s: %v %v", what, found, err)
		}
		if err := block.Delete(context.Background(), w.bkt, made); err != nil {
			t.Fatal(err)
		}
	}

	out := run(RewriteConfig{DryRun: true, Deletions: deletions})
	wantOut := fmt.Sprintf("Deleted %s [{%d %d}]\nDeleted %s [{%d %d}]\n", api, base, base+2*hour-15*second, db, base, base+minute)
	if d := cmp.Diff(wantOut, out); d != "" {
		t.Errorf("dry run (-want +got):\n%s", d)
	}
	if d := cmp.Diff(before, w.objects()); d != "" {
		t.Errorf("a dry run changed the bucket:\n%s", d)
	}
	f("deletions", RewriteConfig{Deletions: deletions}, map[string][]string{db: old[db][5:], web: old[web]})
	// Both have a sample at each time: that of the first one stays.
	f("series become one", RewriteConfig{Deletions: deletions[:1], Relabel: rules}, map[string][]string{`{__name__="up"}`: old[db]})

	run(RewriteConfig{Deletions: deletions[:1], DeleteBlocks: true})
	if d := cmp.Diff(texts(id), w.marked()); d != "" {
		t.Errorf("marked:\n%s", d)
	}
	if err := Rewrite(context.Background(), w.bkt, RewriteConfig{IDs: []ulid.ULID{id}}, io.Discard, quietLogger()); err == nil {
		t.Error("nothing to do is no error")
	}
}

// Malformed deletions and rules are refused, and no bytes make the parsers fall over.
func FuzzParseDeletions(f *testing.F) {
	f.Add([]byte(`[{matchers: '{job="api"}', intervals: [{mint: 1, maxt: 2}], request_id: r}]`))
	f.Add([]byte(`- matchers: up`))
	f.Add([]byte(`[{action: drop, regex: a, source_labels: [b]}]`))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = ParseDeletions(b)
		_, _ = ParseRelabel(b)
	})
}

// Whatever bytes an index has, checking them ends, and says no more than what is wrong.
func FuzzCheckContent(f *testing.F) {
	w := newWorld(f)
	id := w.add(spec{})
	var index []byte
	w.edit(id, "index", func(b []byte) []byte {
		index = slices.Clone(b)
		return b
	})
	f.Add(index)
	f.Add(index[:len(index)/2])
	m, err := block.GetMeta(context.Background(), w.bkt, id)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(w.path(id, "index"), b, 0o666); err != nil {
			t.Fatal(err)
		}
		fs := newFaults(id)
		if err := checkContent(stream.Dir(filepath.Join(w.dir, id.String())), m, DepthChunks, fs); err != nil {
			t.Errorf("an error of the storage, which has none: %v", err)
		}
	})
}
