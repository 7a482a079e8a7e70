package compact

import (
	"context"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/pkg/block"
)

// Shows what cleaning takes for the remains of uploads and deletions once they are old: directories without a meta.json or
// with one that is cut off. Metadata of an unknown version is somebody's block and stays, whatever its age; so does what is
// young, and a sound block.
func TestClean(t *testing.T) {
	w := newWorld(t)
	ext := map[string]string{"cluster": "eu"}
	sound := w.put(0, 2*hour, ext, 1)
	none, cut, foreign := w.put(2*hour, 4*hour, ext, 1), w.put(4*hour, 6*hour, ext, 1), w.put(6*hour, 8*hour, ext, 1)
	meta := func(id ulid.ULID) string { return path.Join(id.String(), block.MetaFilename) }
	write := func(id ulid.ULID, text string) {
		t.Helper()
		if err := w.bkt.Upload(t.Context(), meta(id), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.bkt.Delete(t.Context(), meta(none)); err != nil {
		t.Fatal(err)
	}
	write(cut, `{"ulid":"`)
	write(foreign, `{"ulid":"`+foreign.String()+`","version":7}`)

	there := func() (ids []string) {
		t.Helper()
		err := w.bkt.Iter(context.Background(), "", func(name string) error {
			if id, ok := block.ParseID(name); ok {
				ids = append(ids, id.String())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(ids)
		return ids
	}
	cfg := w.config()
	cfg.PartialAge = 48 * time.Hour
	for _, c := range []struct {
		after time.Duration
		want  []ulid.ULID
	}{
		{time.Hour, []ulid.ULID{sound, none, cut, foreign}},
		{100 * time.Hour, []ulid.ULID{sound, foreign}},
	} {
		now := time.Now().Add(c.after)
		cfg.Now = func() time.Time { return now }
		if err := w.compactor(cfg).Clean(t.Context()); err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, id := range c.want {
			want = append(want, id.String())
		}
		slices.Sort(want)
		if d := cmp.Diff(want, there()); d != "" {
			t.Errorf("after %v: %s", c.after, d)
		}
	}
}
