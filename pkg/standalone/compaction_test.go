package standalone

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/koios-metrics/koios/pkg/block"
)

// bucketBlocks counts the blocks of the folder that are not on their way out, by resolution and by whether they were
// merged.
func bucketBlocks(t *testing.T, dir string) (small, merged, downsampled int) {
	t.Helper()
	metas, err := filepath.Glob(filepath.Join(dir, "bucket", "*", block.MetaFilename))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range metas {
		if _, err := os.Stat(filepath.Join(filepath.Dir(file), block.DeletionMarkFilename)); err == nil {
			continue
		}
		m, err := block.ReadMetaDir(filepath.Dir(file))
		if err != nil {
			continue // it is being deleted
		}
		switch {
		case m.Resolution() != block.ResolutionRaw:
			downsampled++
		case m.Compaction.Level > 1:
			merged++
		default:
			small++
		}
	}
	return small, merged, downsampled
}

// The blocks of two days are merged to one in the bucket and downsampled, while queries have the same answers; another
// look finds nothing to do, and the page of the compactor says so. Told to leave the bucket alone, it does.
//
// Mutant it was seen to kill: the compactor is not run.
func TestCompactsItsBucket(t *testing.T) {
	dir := t.TempDir()
	const day = 24 * time.Hour
	begin := time.UnixMilli(time.Now().UnixMilli() / (2 * day).Milliseconds() * (2 * day).Milliseconds()).Add(-4 * day)
	for i := range 24 {
		writeBlock(t, filepath.Join(dir, "tsdb"), begin.Add(time.Duration(i)*2*time.Hour), 2*time.Hour)
	}
	answers := func(r *running) string {
		t.Helper()
		a := r.ask(t, `old[48h]`, begin.Add(2*day-time.Minute))
		if len(a.Series) != 1 || len(a.Series[0].Points) != 48*60 {
			t.Fatalf("%d series", len(a.Series))
		}
		b := r.ask(t, `sum_over_time(old[2d])`, begin.Add(2*day-time.Minute))
		return fmt.Sprint(a.Series, a.Warnings, b.Series, b.Warnings)
	}
	r := start(t, Config{DataDir: dir, Retention: time.Hour, NoCompaction: true})
	before := answers(r)
	eventually(t, "all blocks are in the bucket", func() bool {
		small, _, _ := bucketBlocks(t, dir)
		return small == 24
	})
	r.stop()
	if small, merged, downsampled := bucketBlocks(t, dir); small != 24 || merged != 0 || downsampled != 0 {
		t.Errorf("without compaction %d, %d merged, %d downsampled", small, merged, downsampled)
	}

	r = start(t, Config{DataDir: dir, Retention: time.Hour})
	if got := answers(r); got != before {
		t.Error("answer changed at the start")
	}
	eventually(t, "one block and its 5m", func() bool {
		small, merged, downsampled := bucketBlocks(t, dir)
		return small == 0 && merged == 1 && downsampled == 1
	})
	if got := answers(r); got != before {
		t.Error("answer changed after compaction")
	}
	eventually(t, "the merged block is served", func() bool {
		for _, m := range r.blocks.Blocks() {
			if m.Compaction.Level > 1 && m.Resolution() == block.ResolutionRaw {
				return true
			}
		}
		return false
	})
	if got := answers(r); got != before {
		t.Error("answer changed when the merged block is served")
	}
	res, err := http.Get(r.url + "/api/v1/compact")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var page struct {
		Data struct {
			Planned, Waiting []any
			Halted           bool
			Groups           []struct{ Blocks int }
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&page); err != nil || page.Data.Halted || len(page.Data.Waiting) > 0 || len(page.Data.Groups) != 2 {
		t.Errorf("page of the compactor: %+v, %v", page, err)
	}
	if n := r.metric(t, "thanos_compact_group_compactions_total"); n != 1 {
		t.Errorf("%v merges: each sample is to be merged once", n)
	}
}
