package compact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	thanos "github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/objstore/faulty"
)

// scenario is a bucket with something to do, the writes that do it, and what is there in the end.
type scenario struct {
	name string
	// fill fills a bucket, and names blocks.
	fill func(w *world) map[ulid.ULID]string
	// set changes the configuration.
	set func(cfg *Config)
	// now is when it happens, if not 20 hours after the epoch.
	now time.Time
	// writes are uploads and deletions in their order. Blocks that are made are called new1, new2, …
	writes []string
	// shape is what is live in the end, and gone are blocks of which no object is left.
	shape []string
	gone  []string
	// unreadable says that samples can't be counted, because a block can't be read; unsettled, that they are right in the
	// end only.
	unreadable, unsettled bool
}

var ext = map[string]string{"x": "1"}

func (w *world) mark(id ulid.ULID) {
	w.t.Helper()
	if _, err := block.MarkForDeletion(w.t.Context(), w.bkt.Bucket, id, "test", time.Now()); err != nil {
		w.t.Fatal(err)
	}
}

// damage makes a block unreadable whose length is as before.
func (w *world) damage(id ulid.ULID) {
	w.t.Helper()
	text := w.content(id, "chunks/000001")
	w.upload(id, "chunks/000001", text[:len(text)-8]+"damaged!")
}

// from gives a block other sources.
func (w *world) from(id ulid.ULID, sources ...ulid.ULID) {
	w.t.Helper()
	m, err := block.GetMeta(w.t.Context(), w.bkt.Bucket, id)
	if err != nil {
		w.t.Fatal(err)
	}
	m.Compaction.Sources, m.Compaction.Level = sources, 2
	text, err := m.Bytes()
	if err != nil {
		w.t.Fatal(err)
	}
	w.upload(id, block.MetaFilename, string(text))
}

var scenarios = []scenario{
	{
		name: "merge and downsample",
		fill: func(w *world) map[ulid.ULID]string {
			return map[ulid.ULID]string{w.put(0, 24*hour, ext, 1): "a", w.put(24*hour, 48*hour, ext, 1): "b"}
		},
		now: time.UnixMilli(60 * hour),
		writes: []string{
			"upload new1/chunks/000001", "upload new1/index", "upload new1/meta.json", "upload a/deletion-mark.json", "upload b/deletion-mark.json",
			"upload new2/chunks/000001", "upload new2/index", "upload new2/meta.json",
		},
		shape: []string{`5m{x="1"} 0-48 level 2`, `raw{x="1"} 0-48 level 2`},
	},
	{
		name: "collect",
		fill: func(w *world) map[ulid.ULID]string {
			a, c := w.put(0, 2*hour, ext, 1), w.put(0, 4*hour, ext, 1)
			w.from(c, a, testID(1))
			return map[ulid.ULID]string{a: "a"}
		},
		writes:    []string{"upload a/deletion-mark.json"},
		shape:     []string{`raw{x="1"} 0-4 level 2`},
		unsettled: true,
	},
	{
		name: "expire",
		fill: func(w *world) map[ulid.ULID]string {
			a := w.put(0, 2*hour, ext, 1)
			clear(w.want)
			return map[ulid.ULID]string{a: "a", w.put(12*hour, 14*hour, ext, 1): "b"}
		},
		set: func(cfg *Config) {
			cfg.Settings.Downsample, cfg.Settings.Retention = false, map[int64]time.Duration{0: 10 * time.Hour}
		},
		writes:    []string{"upload a/deletion-mark.json"},
		shape:     []string{`raw{x="1"} 12-14 level 1`},
		unsettled: true,
	},
	{
		name: "set aside",
		fill: func(w *world) map[ulid.ULID]string {
			a, b := w.put(0, 2*hour, ext, 1), w.put(2*hour, 4*hour, ext, 1)
			w.damage(b)
			return map[ulid.ULID]string{a: "a", b: "b"}
		},
		writes:     []string{"upload b/koios-set-aside.json", "upload b/no-downsample-mark.json", "upload b/no-compact-mark.json"},
		shape:      []string{`raw{x="1"} 0-2 level 1`, `raw{x="1"} 2-4 level 1`},
		unreadable: true,
	},
	{
		name: "bring back",
		fill: func(w *world) map[ulid.ULID]string {
			a, b := w.put(0, 2*hour, ext, 1), w.put(2*hour, 4*hour, ext, 1)
			for _, name := range asideMarks {
				mark := map[string]any{"id": b.String(), "version": 1, "details": setAsideDetails + "test", "reason": "manual", "state": "another"}
				text, err := json.Marshal(mark)
				if err != nil {
					w.t.Fatal(err)
				}
				w.upload(b, name, string(text))
			}
			return map[ulid.ULID]string{a: "a", b: "b"}
		},
		writes: []string{
			"delete b/koios-set-aside.json", "delete b/no-downsample-mark.json", "delete b/no-compact-mark.json",
			"upload new1/chunks/000001", "upload new1/index", "upload new1/meta.json", "upload a/deletion-mark.json", "upload b/deletion-mark.json",
		},
		shape: []string{`raw{x="1"} 0-4 level 2`},
	},
	{
		name: "clean a block",
		fill: func(w *world) map[ulid.ULID]string {
			a := w.put(0, 2*hour, ext, 1)
			clear(w.want)
			w.put(2*hour, 4*hour, ext, 1)
			w.upload(a, block.NoCompactMarkFilename, "{}")
			w.mark(a)
			return map[ulid.ULID]string{a: "a"}
		},
		set: alone, now: time.Now().Add(200 * time.Hour),
		writes: []string{"delete a/meta.json", "delete a/chunks/000001", "delete a/index", "delete a/no-compact-mark.json", "delete a/deletion-mark.json"},
		shape:  []string{`raw{x="1"} 2-4 level 1`},
		gone:   []string{"a"},
	},
	{
		name: "clean an upload that never ended",
		fill: func(w *world) map[ulid.ULID]string {
			a := w.put(0, 2*hour, ext, 1)
			clear(w.want)
			w.remove(a, block.MetaFilename)
			return map[ulid.ULID]string{a: "a"}
		},
		set: alone, now: time.Now().Add(200 * time.Hour),
		writes: []string{"delete a/chunks/000001", "delete a/index"},
		gone:   []string{"a"},
	},
	{
		name: "clean a deletion that never ended",
		fill: func(w *world) map[ulid.ULID]string {
			a := w.put(0, 2*hour, ext, 1)
			clear(w.want)
			w.mark(a)
			w.remove(a, block.MetaFilename)
			w.remove(a, "chunks/000001")
			return map[ulid.ULID]string{a: "a"}
		},
		set: alone, now: time.Now().Add(200 * time.Hour),
		writes: []string{"delete a/index", "delete a/deletion-mark.json"},
		gone:   []string{"a"},
	},
}

// alone leaves nothing to do but cleaning.
func alone(cfg *Config) { cfg.Settings.Level, cfg.Settings.Downsample = 0, false }

// start makes the world of a scenario in memory, from a template.
func (s *scenario) start(t *testing.T, template *world) *world {
	t.Helper()
	w := &world{t: t, dir: memoryDir(t), now: s.now, want: template.want}
	if s.now.IsZero() {
		w.now = time.UnixMilli(20 * hour)
	}
	w.bkt = faulty.New(inMemory(t, filepath.Join(template.dir, "bucket")))
	return w
}

func (s *scenario) compactor(w *world) *Compactor {
	cfg := w.config()
	cfg.FilesConcurrency, cfg.Concurrency = 1, 1
	if s.set != nil {
		s.set(&cfg)
	}
	return w.compactor(cfg)
}

// halfBlocks lists the blocks that readers can see, by their metadata, and of which a file is missing.
func halfBlocks(bkt thanos.Bucket) (half []string, err error) {
	ctx := context.Background()
	err = bkt.Iter(ctx, "", func(name string) error {
		id, ok := block.ParseID(name)
		if !ok {
			return nil
		}
		m, err := block.GetMeta(ctx, bkt, id)
		if errors.Is(err, block.ErrPartial) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, f := range m.Thanos.Files {
			if there, err := bkt.Exists(ctx, block.Object(id, f.RelPath)); err != nil || !there {
				half = append(half, block.Object(id, f.RelPath))
			}
		}
		return nil
	})
	return half, err
}

// checkWhole checks before a write that readers see no half block.
func (w *world) checkWhole(c faulty.Call) {
	if c.Op != faulty.Upload && c.Op != faulty.Delete {
		return
	}
	if half, err := halfBlocks(w.bkt.Bucket); len(half) > 0 || err != nil {
		w.t.Errorf("before %s %s: half a block: %v %v", c.Op, c.Name, half, err)
	}
}

// Shows the order of uploads and deletions, object by object, of everything that a compactor does to a bucket: metadata
// last when something is made, first when it goes; marks of sources after their successor; our own mark first when a block
// is set aside or brought back, the mark for deletion last when a block goes. Readers never see half a block.
func TestOrder(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			template := newWorld(t)
			names := s.fill(template)
			w := s.start(t, template)
			w.bkt.Plan(func(c faulty.Call) faulty.Fault {
				w.checkWhole(c)
				return faulty.Fault{}
			})
			if err := s.compactor(w).RunOnce(t.Context()); err != nil {
				t.Fatal(err)
			}
			made := 0
			var got []string
			for _, line := range w.writes() {
				op, name, _ := strings.Cut(line, " ")
				dir, rel, _ := strings.Cut(name, "/")
				id, ok := block.ParseID(dir)
				if !ok {
					continue
				}
				if names[id] == "" {
					made++
					names[id] = fmt.Sprint("new", made)
				}
				got = append(got, op+" "+names[id]+"/"+rel)
			}
			if d := cmp.Diff(s.writes, got); d != "" {
				t.Errorf("writes (-want +got):\n%s", d)
			}
			s.end(t, w, names)
		})
	}
}

func (s *scenario) end(t *testing.T, w *world, names map[ulid.ULID]string) {
	t.Helper()
	if d := cmp.Diff(s.shape, w.shape()); d != "" {
		t.Errorf("blocks (-want +got):\n%s", d)
	}
	if !s.unreadable {
		w.check()
	}
	w.checkWhole(faulty.Call{Op: faulty.Upload, Name: "the end"})
	err := w.bkt.Bucket.Iter(context.Background(), "", func(name string) error {
		if id, ok := block.ParseID(strings.SplitN(name, "/", 2)[0]); ok && slices.Contains(s.gone, names[id]) {
			t.Errorf("left: %s", name)
		}
		return nil
	}, thanos.WithRecursiveIter())
	if err != nil {
		t.Error(err)
	}
}

// Shows that each request of all that a compactor does, merging, downsampling, collecting, expiring, setting aside,
// bringing back and cleaning, may be refused, or reported as failed though it was done: nothing is lost or there twice at
// any time, readers never see half a block, and with the fault lifted the next passes end the work as if nothing had been.
func TestEachRequestFails(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			template := newWorld(t)
			names := s.fill(template)
			for _, done := range []bool{false, true} {
				for n := 1; ; n++ {
					w := s.start(t, template)
					hit := ""
					w.bkt.Plan(func(c faulty.Call) faulty.Fault {
						w.checkWhole(c)
						if c.Number == n {
							hit = string(c.Op) + " " + c.Name
							return faulty.Fault{Err: faulty.ErrUnavailable, Done: done}
						}
						return faulty.Fault{}
					})
					c := s.compactor(w)
					_ = c.RunOnce(t.Context())
					if !s.unreadable && !s.unsettled {
						w.check()
					}
					w.bkt.Plan(nil)
					for range 2 {
						w.now = w.now.Add(2 * time.Hour)
						if err := c.RunOnce(t.Context()); err != nil {
							t.Error(err)
						}
					}
					s.end(t, w, names)
					if t.Failed() {
						t.Fatalf("request %d, %s, done %v", n, hit, done)
					}
					if hit == "" {
						t.Logf("done %v: %d requests", done, n-1)
						break
					}
				}
			}
		})
	}
}
