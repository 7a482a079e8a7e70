package compact

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/koios-metrics/koios/pkg/block"
)

var asideMarks = []string{SetAsideFilename, block.NoCompactMarkFilename, block.NoDownsampleMarkFilename}

// marks are the marks of a block that are there, of those that set it aside.
func (w *world) marks(id ulid.ULID) (there []string) {
	w.t.Helper()
	for _, name := range asideMarks {
		ok, err := w.bkt.Bucket.Exists(w.t.Context(), block.Object(id, name))
		if err != nil {
			w.t.Fatal(err)
		}
		if ok {
			there = append(there, name)
		}
	}
	return there
}

func (w *world) upload(id ulid.ULID, rel, content string) {
	w.t.Helper()
	if err := w.bkt.Bucket.Upload(w.t.Context(), block.Object(id, rel), strings.NewReader(content)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove(id ulid.ULID, rel string) {
	w.t.Helper()
	if err := w.bkt.Bucket.Delete(w.t.Context(), block.Object(id, rel)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) content(id ulid.ULID, rel string) string {
	w.t.Helper()
	r, err := w.bkt.Bucket.Get(w.t.Context(), block.Object(id, rel))
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// once lets a compactor make a pass, a while after the last.
func (w *world) once(c *Compactor) {
	w.t.Helper()
	w.now = w.now.Add(time.Second)
	if err := c.RunOnce(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// asideWorld is one where a compactor has set a block aside whose chunks are damaged, and the chunks as they were.
func asideWorld(t *testing.T) (w *world, c *Compactor, bad ulid.ULID, sound string) {
	t.Helper()
	w = newWorld(t)
	ext := map[string]string{"x": "1"}
	w.put(0, 2*hour, ext, 1)
	bad = w.put(2*hour, 4*hour, ext, 1)
	w.now = time.UnixMilli(20 * hour)
	sound = w.content(bad, "chunks/000001")
	w.upload(bad, "chunks/000001", sound[:len(sound)/2]+"damaged"+sound[len(sound)/2+7:])
	c = w.compactor(w.config())
	w.once(c)
	if d := cmp.Diff(asideMarks, w.marks(bad)); d != "" {
		t.Fatalf("marks (-want +got):\n%s", d)
	}
	return w, c, bad, sound
}

// Shows that a block that is set aside stays so while nothing changes, that it is tried again when any one of its marks
// was removed, and set aside again with all its marks if it is as bad as before.
func TestSetAsideIsTriedAgain(t *testing.T) {
	w, c, bad, _ := asideWorld(t)
	writes := len(w.writes())
	w.once(c)
	w.once(w.compactor(w.config())) // as after a restart
	if got := w.writes(); len(got) != writes {
		t.Errorf("passes where nothing changed wrote %v", got[writes:])
	}
	for _, name := range asideMarks {
		w.remove(bad, name)
		writes := len(w.writes())
		w.once(c)
		if d := cmp.Diff(asideMarks, w.marks(bad)); d != "" {
			t.Errorf("without %s (-want +got):\n%s", name, d)
		}
		if want := "upload " + block.Object(bad, name); !slices.Contains(w.writes()[writes:], want) {
			t.Errorf("without %s: wrote %v", name, w.writes()[writes:])
		}
	}
}

// Shows that a block whose bytes were replaced under its own id is picked up without anybody taking marks off, and that
// marks of other people stay.
//
// Mutant it was seen to kill: the state leaves out the lengths and times of objects.
func TestSetAsideIsReplaced(t *testing.T) {
	w, c, bad, sound := asideWorld(t)
	w.upload(bad, "chunks/000001", sound)
	w.once(c)
	if d := cmp.Diff([]string{`raw{x="1"} 0-4 level 2`}, w.shape()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	w.check()

	w, _, bad, sound = asideWorld(t)
	w.remove(bad, block.NoDownsampleMarkFilename)
	w.upload(bad, block.NoDownsampleMarkFilename, `{"id":"`+bad.String()+`","version":1,"details":"mine","reason":"manual","no_downsample_time":1}`)
	w.upload(bad, "chunks/000001", sound)
	w.once(w.compactor(w.config()))
	if !slices.Contains(w.marks(bad), block.NoDownsampleMarkFilename) {
		t.Error("somebody else's mark was taken off")
	}
}

// Shows that a block with metadata that nobody can use is set aside once, never deleted, and picked up when its metadata
// was replaced, with what the new one says.
func TestSetAsideForItsMetadata(t *testing.T) {
	w := newWorld(t)
	ext := map[string]string{"x": "1"}
	w.put(0, 2*hour, ext, 1)
	bad := w.put(2*hour, 4*hour, ext, 1)
	w.now = time.UnixMilli(20 * hour)
	meta := w.content(bad, block.MetaFilename)
	w.upload(bad, block.MetaFilename, `{"ulid":"`+bad.String()+`","version":7}`)
	c := w.compactor(w.config())
	w.once(c)
	if d := cmp.Diff(asideMarks, w.marks(bad)); d != "" {
		t.Fatalf("marks (-want +got):\n%s", d)
	}
	if text := w.content(bad, SetAsideFilename); !strings.Contains(text, "version is 7") {
		t.Errorf("the mark says %s", text)
	}
	writes := len(w.writes())
	w.once(c)
	if got := w.writes(); len(got) != writes {
		t.Errorf("another pass wrote %v", got[writes:])
	}
	w.upload(bad, block.MetaFilename, meta)
	w.once(c)
	if d := cmp.Diff([]string{`raw{x="1"} 0-4 level 2`}, w.shape()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	w.check()
}

// Shows that a block of the future is set aside until its time has come, and that a clock that is behind sets nothing
// aside.
func TestSetAsideForTheFuture(t *testing.T) {
	w := newWorld(t)
	start := floor(time.Now().Add(20*24*time.Hour).UnixMilli(), 2*hour)
	ahead := w.put(start, start+2*hour, map[string]string{"x": "1"}, 1)
	w.now = time.UnixMilli(10 * hour)
	cfg := w.config()
	cfg.Settings.Downsample = false
	c := w.compactor(cfg)
	w.once(c)
	if m := w.marks(ahead); len(m) > 0 {
		t.Errorf("a clock that is behind: %v", m)
	}
	w.now = time.Now()
	w.once(c)
	if d := cmp.Diff(asideMarks, w.marks(ahead)); d != "" {
		t.Fatalf("marks (-want +got):\n%s", d)
	}
	w.now = time.UnixMilli(start)
	w.once(c)
	if m := w.marks(ahead); len(m) > 0 {
		t.Errorf("its time has come: %v", m)
	}
}

// Shows that a block that is set aside is kept until its retention is over, also where a coarser retention asks for data
// that nobody can make of it any more; that it goes after the delay then; and that the log says so.
//
// Mutant it was seen to kill: a block that is set aside waits for its successor.
func TestSetAsideExpires(t *testing.T) {
	w, _, bad, _ := asideWorld(t)
	cfg := w.config()
	cfg.Settings.Retention = map[int64]time.Duration{block.ResolutionRaw: 30 * 24 * time.Hour}
	var text bytes.Buffer
	c, err := New(w.bkt, cfg, log.NewLogfmtLogger(log.NewSyncWriter(&text)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	step := func(now time.Time, live, there bool) {
		t.Helper()
		w.now = now
		w.once(c)
		if got := w.live()[bad] != nil; got != live {
			t.Errorf("at %v not marked for deletion: %v, want %v", now.UTC(), got, live)
		}
		if ok, err := block.Exists(t.Context(), w.bkt, bad); err != nil || ok != there {
			t.Errorf("at %v there: %v %v, want %v", now.UTC(), ok, err, there)
		}
	}
	end := time.UnixMilli(4 * hour).Add(30 * 24 * time.Hour)
	step(end.Add(-time.Minute), true, true)
	if strings.Contains(text.String(), "past its retention") {
		t.Error("too early:", text.String())
	}
	step(end.Add(time.Minute), false, true)
	if !strings.Contains(text.String(), "block that was set aside is past its retention") || !strings.Contains(text.String(), bad.String()) {
		t.Error("not in the log:", text.String())
	}
	step(end.Add(47*time.Hour), false, true)
	step(end.Add(49*time.Hour), false, false)
	if m := w.marks(bad); len(m) > 0 {
		t.Errorf("left: %v", m)
	}
}

// Shows that a block that is set aside goes when another one holds all its sources, though it has the older id: here half
// an upload whose process slept while others cleaned, and then went on to upload the metadata.
//
// Mutant it was seen to kill: of equal sources the older id stays, set aside or not.
func TestSetAsideIsCollected(t *testing.T) {
	w := newWorld(t)
	w.put(0, 48*hour, map[string]string{"x": "1"}, 1)
	w.now = time.UnixMilli(60 * hour)
	c := w.compactor(w.config())
	w.once(c)
	var half ulid.ULID
	for id, m := range w.live() {
		if m.Resolution() == block.Resolution5m {
			half = id
		}
	}
	w.remove(half, "chunks/000001")
	w.now = w.now.Add(15 * 24 * time.Hour) // old enough for 1h, which reads the half one
	w.once(c)
	want := []string{`1h{x="1"} 0-48 level 1`, `5m{x="1"} 0-48 level 1`, `raw{x="1"} 0-48 level 1`}
	if d := cmp.Diff(want, w.shape()); d != "" || w.live()[half] != nil {
		t.Errorf("the half one is live: %v (-want +got):\n%s", w.live()[half] != nil, d)
	}
	w.now = w.now.Add(49 * time.Hour)
	w.once(c)
	if m := w.marks(half); len(m) > 0 {
		t.Errorf("left: %v", m)
	}
	w.check()
}
