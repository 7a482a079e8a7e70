//go:build compat

package storecompare

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore/providers/filesystem"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/test/bulk"
)

const (
	from      = int64(1_700_006_400_000) // ms, a multiple of two hours
	interval  = int64(15_000)            // ms
	blockSpan = 2 * time.Hour
	// 160 million samples: 2 clusters x 2 replicas x 24 h x 240 samples an hour x 6,944 series.
	defaultSeries, defaultHours = 6944, 24
	metrics                     = 16
)

// world is what the bucket holds.
type world struct {
	dir           string
	series, hours int
	samples       int
	mint, maxt    int64 // ms
}

// newWorld fills a bucket with two clusters of two replicas each: blocks of two hours, of as many series and hours as
// KOIOS_COMPARE_SERIES and KOIOS_COMPARE_HOURS say. One in KOIOS_COMPARE_BUCKET that has as many blocks is taken as it is.
func newWorld(t *testing.T) world {
	t.Helper()
	w := world{dir: os.Getenv("KOIOS_COMPARE_BUCKET"), series: number(t, "KOIOS_COMPARE_SERIES", defaultSeries), hours: number(t, "KOIOS_COMPARE_HOURS", defaultHours)}
	if w.dir == "" {
		w.dir = t.TempDir()
	}
	bkt, err := filesystem.NewBucket(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer bkt.Close()
	series := w.labels()
	perBlock := int(blockSpan.Milliseconds() / interval)
	w.mint, w.maxt = from, from+int64(w.hours)*time.Hour.Milliseconds()-1
	w.samples = len(series) * (perBlock - 1) * 4 * (w.hours / 2)
	if left, err := os.ReadDir(w.dir); err != nil || len(left) == 4*(w.hours/2) {
		return w // written before
	}
	for c, cluster := range []string{"eu", "us"} {
		for r, replica := range []string{"a", "b"} {
			for i := range int64(w.hours / 2) {
				staging := t.TempDir()
				id, err := bulk.Write(t.Context(), staging, bulk.Spec{
					From: from + i*blockSpan.Milliseconds() + int64(r)*6_300, Interval: interval, Samples: perBlock - 1, Series: series,
					External: map[string]string{"cluster": cluster, "replica": replica}, Seed: uint64(2*c + r),
				})
				if err != nil {
					t.Fatal(err)
				}
				// An upload says how large the files are.
				if _, err := block.Upload(t.Context(), bkt, filepath.Join(staging, id.String()), block.UploadOptions{}); err != nil {
					t.Fatal(err)
				}
				if err := os.RemoveAll(staging); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return w
}

// labels are the series of each block: some metrics of the same instances, in jobs of about fifty.
func (w world) labels() []labels.Labels {
	instances := max(1, w.series/metrics)
	ls := make([]labels.Labels, w.series)
	for i := range ls {
		n := i % instances
		ls[i] = labels.FromStrings("__name__", fmt.Sprintf("app_metric_%02d_total", i/instances), "instance", fmt.Sprintf("host-%05d:9090", n),
			"job", fmt.Sprintf("job-%d", n%max(1, instances/50)), "method", []string{"GET", "POST", "PUT"}[n%3], "path", fmt.Sprintf("/api/v1/resource-%d", n%37))
	}
	slices.SortFunc(ls, labels.Compare)
	return ls
}

func number(t *testing.T, env string, otherwise int) int {
	t.Helper()
	s := os.Getenv(env)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 2 {
		t.Fatalf("%s is %q: want a number of at least 2", env, s)
	}
	return n
}
