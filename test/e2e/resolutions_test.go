//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/bulk"
	"github.com/koios-metrics/koios/test/fleet"
)

// The compactor makes one block of two weeks out of many, and blocks of 5m and 1h of it. Queries at each resolution read as
// many points as that has, and agree with each other.
func TestResolutions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "coarse")
	_, bucket := w.s3()
	const day = 24 * time.Hour
	// Two weeks, as the compactor counts them from 1970, and some days more, so that the weeks are over.
	weeks := (14 * day).Milliseconds()
	start := time.UnixMilli(time.Now().Add(-60*day).UnixMilli() / weeks * weeks)
	blocks := w.dir("blocks")
	for i := range 9 {
		_, err := bulk.Write(t.Context(), blocks, bulk.Spec{
			From: start.Add(time.Duration(i) * 2 * day).UnixMilli(), Interval: 60_000, Samples: 2 * 24 * 60,
			Series: bulk.Counters("requests_total", 5), External: map[string]string{"cluster": "eu", "replica": "a"},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	giveAway(t, blocks)
	mustDocker(t, "run", "--rm", "--network="+w.Name(), "-v", w.SharedDir()+":"+w.SharedDir(), koiosImage,
		"tools", "bucket", "upload-blocks", "--objstore.config-file="+bucket, "--path="+blocks, `--label=cluster="eu"`, `--label=replica="a"`)

	compact := w.koios("compact", "compact", "--wait", "--wait-interval=1s", "--consistency-delay=0s", "--objstore.config-file="+bucket, "--data-dir=/data").ready()
	fleet.Eventually(t, "there is a block of two weeks at each resolution", wait, func() error {
		seen := map[int64]bool{}
		for _, m := range metas(t, filepath.Join(w.dir("s3"), s3Bucket)) {
			if m.MaxTime-m.MinTime > 13*day.Milliseconds() {
				seen[m.Thanos.Downsample.Resolution] = true
			}
		}
		if !seen[0] || !seen[5*60_000] || !seen[60*60_000] {
			return fmt.Errorf("resolutions in ms: %v; %v merges", seen, compact.metric("thanos_compact_group_compactions_total"))
		}
		return nil
	})
	w.koios("store", "store", "--objstore.config-file="+bucket, "--sync-block-duration=1s", "--data-dir=/data").ready()
	query := w.query("query", []string{"store"}).ready()
	query.waitStores(1)

	at := start.Add(13 * day)
	values := map[string]float64{}
	for resolution, points := range map[string]int{"0s": 24 * 60, "5m": 24 * 12, "1h": 24} {
		one := query.ask(answer.At(`requests_total{job="job-001"}[1d]`, at, "max_source_resolution", resolution))
		if len(one.Series) != 1 {
			t.Fatalf("%s: %d series", resolution, len(one.Series))
		}
		if n := len(one.Series[0].Points); math.Abs(float64(n-points)) > 2 {
			t.Errorf("%s: %d points in a day, want about %d", resolution, n, points)
		}
		sum := query.ask(answer.At(`sum(increase(requests_total[10d]))`, at, "max_source_resolution", resolution))
		if len(sum.Series) != 1 || len(sum.Warnings) > 0 {
			t.Fatalf("%s: %+v", resolution, sum)
		}
		values[resolution] = sum.Series[0].Points[0].Value
	}
	for _, resolution := range []string{"5m", "1h"} {
		if off := values[resolution]/values["0s"] - 1; !(math.Abs(off) < 0.01) {
			t.Errorf("increase at %s is %v of that of the samples: %v", resolution, off, values)
		}
	}
	t.Log(values)
}

// meta is what a story looks at of a block's metadata.
type meta struct {
	MinTime, MaxTime int64
	Thanos           struct {
		Downsample struct{ Resolution int64 }
	}
}

// metas reads the metadata of the blocks of a bucket that lies in a folder.
func metas(t *testing.T, dir string) (all []meta) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "meta.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // just deleted
		}
		var m meta
		if err := json.Unmarshal(b, &m); err != nil {
			continue // just being written
		}
		all = append(all, m)
	}
	return all
}
