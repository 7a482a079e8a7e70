package standalone

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/koios-metrics/koios/pkg/logging"
)

func nobody() map[ulid.ULID]bool { return nil }

// writeBlock writes a block with one sample each minute of the span that starts at from.
func writeBlock(t *testing.T, dir string, from time.Time, span time.Duration) ulid.ULID {
	t.Helper()
	w, err := tsdb.NewBlockWriter(logging.Slog(log.NewNopLogger()), dir, span.Milliseconds())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	app := w.Appender(t.Context())
	for at := from; at.Before(from.Add(span)); at = at.Add(time.Minute) {
		if _, err := app.Append(0, labels.FromStrings(labels.MetricName, "old", "job", "past"), at.UnixMilli(), float64(at.Unix())); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	id, err := w.Flush(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// A block that the bucket does not serve never leaves the TSDB, however old it is. One that it serves leaves
// when its time is over.
func TestBlocksLeaveOnlyWhenServed(t *testing.T) {
	dir := t.TempDir()
	start := time.Now().Truncate(2 * time.Hour).Add(-24 * time.Hour)
	var ids []ulid.ULID
	for i := range 3 {
		ids = append(ids, writeBlock(t, dir, start.Add(time.Duration(i)*2*time.Hour), 2*time.Hour))
	}
	open := func(served ...ulid.ULID) int {
		t.Helper()
		db, err := openDatabase(databaseConfig{dir: dir, block: 2 * time.Hour, retention: time.Hour, served: func() map[ulid.ULID]bool {
			m := map[ulid.ULID]bool{}
			for _, id := range served {
				m[id] = true
			}
			return m
		}}, log.NewNopLogger(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		return len(db.Blocks())
	}
	if n := open(); n != 3 {
		t.Fatalf("%d blocks are left while the bucket serves none, want 3", n)
	}
	// The last one is served too but within the retention.
	if n := open(ids[0], ids[2]); n != 2 {
		t.Fatalf("%d blocks are left after two were served, one of them lately; want 2", n)
	}
	if _, err := os.Stat(filepath.Join(dir, ids[0].String())); !os.IsNotExist(err) {
		t.Errorf("the block that is served from the bucket is still there: %v", err)
	}
}

// A block that can't be read is moved aside and named in the log; the TSDB opens with the others.
func TestUnreadableBlockIsSetAside(t *testing.T) {
	dir, aside := t.TempDir(), filepath.Join(t.TempDir(), "set-aside")
	start := time.Now().Truncate(2 * time.Hour).Add(-8 * time.Hour)
	good := writeBlock(t, dir, start, 2*time.Hour)
	bad := writeBlock(t, dir, start.Add(2*time.Hour), 2*time.Hour)
	if err := os.Truncate(filepath.Join(dir, bad.String(), "index"), 100); err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	db, err := openDatabase(databaseConfig{dir: dir, asideDir: aside, block: 2 * time.Hour, served: nobody}, log.NewLogfmtLogger(&logged), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if bs := db.Blocks(); len(bs) != 1 || bs[0].Meta().ULID != good {
		t.Errorf("blocks %v, want %s", bs, good)
	}
	if _, err := os.Stat(filepath.Join(aside, bad.String(), "index")); err != nil {
		t.Error(err)
	}
	if !strings.Contains(logged.String(), bad.String()) {
		t.Errorf("the log does not name the block: %s", logged.String())
	}
	if got := jobs(t, db, "old"); got != "past" {
		t.Errorf("jobs %q", got)
	}
}

// The same folder can't be open twice; the message says what may be wrong.
func TestFolderInUse(t *testing.T) {
	c := databaseConfig{dir: t.TempDir(), block: 2 * time.Hour, retention: math.MaxInt64, served: nobody}
	db, err := openDatabase(c, log.NewNopLogger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := openDatabase(c, log.NewNopLogger(), nil); err == nil || !strings.Contains(err.Error(), "another koios") {
		t.Errorf("error %v", err)
	}
}
