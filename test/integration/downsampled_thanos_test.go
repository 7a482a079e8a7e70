//go:build compat

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/koios-metrics/koios/pkg/block"
	koiosobjstore "github.com/koios-metrics/koios/pkg/objstore"
	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/dataset"
	"github.com/koios-metrics/koios/test/fleet"
)

// month is the data of the test in this file: four blocks, one after the other. Thanos makes blocks of five minutes of
// those that are long enough, and of an hour of the two longest; of the first one the raw samples are deleted then.
var month = struct {
	start time.Time
	spans []time.Duration
}{
	start: time.Date(2025, 1, 2, 0, 0, 0, 0, time.UTC),
	spans: []time.Duration{14 * 24 * time.Hour, 14 * 24 * time.Hour, 60 * time.Hour, 10 * time.Hour},
}

// scrape is the time between two samples. It is no divisor of five minutes.
const scrape = 70 * time.Second

// writeMonth fills a bucket with the raw blocks, and returns the first one. The others are put into local too.
func writeMonth(t *testing.T, dir, local string) ulid.ULID {
	t.Helper()
	bkt, err := koiosobjstore.NewFilesystem(dir)
	if err != nil {
		t.Fatal(err)
	}
	var first ulid.ULID
	start, was := month.start, map[string]bool{}
	for i, span := range month.spans {
		w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), local, span.Milliseconds())
		if err != nil {
			t.Fatal(err)
		}
		for at := start; at.Before(start.Add(span)); at = at.Add(scrape) {
			writeScrape(t, w, at, was)
		}
		id, err := w.Flush(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		blockDir := filepath.Join(local, id.String())
		m, err := block.ReadMetaDir(blockDir)
		if err != nil {
			t.Fatal(err)
		}
		m.Thanos.Labels, m.Thanos.Source = map[string]string{"cluster": "eu", "replica": "a"}, block.SourceTest
		m.Compaction.Level = 4
		if err := block.WriteMetaDir(blockDir, m); err != nil {
			t.Fatal(err)
		}
		if _, err := block.Upload(t.Context(), bkt, blockDir, block.UploadOptions{}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = id
			if err := os.RemoveAll(blockDir); err != nil {
				t.Fatal(err)
			}
		}
		start = start.Add(span)
	}
	return first
}

// of are the metrics of package dataset that the month has.
var ofMonth = []string{"http_requests_total", "temperature_celsius", "state", "service.requests", "special", "visitor", "rpc_duration_seconds", "queue_age_seconds", "latency_seconds_bucket"}

func writeScrape(t *testing.T, w *tsdb.BlockWriter, at time.Time, was map[string]bool) {
	t.Helper()
	app := w.Appender(context.Background())
	ms := at.Sub(month.start).Milliseconds()
	for _, s := range dataset.All() {
		if !slices.Contains(ofMonth, s.Labels.Get(labels.MetricName)) {
			continue
		}
		// Visitors come once in nine hours.
		if s.Present != nil && !s.Present(ms%(9*time.Hour).Milliseconds()) {
			continue
		}
		var err error
		if s.Histogram != nil {
			_, err = app.AppendHistogram(0, s.Labels, at.UnixMilli(), s.Histogram(ms), nil)
		} else {
			_, err = app.Append(0, s.Labels, at.UnixMilli(), s.Float(ms))
		}
		if err != nil {
			t.Fatalf("append to %s: %v", s.Labels, err)
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
}

// resolutions counts the blocks of a bucket by resolution in ms.
func resolutions(dir string) (map[int64]int, error) {
	metas, err := filepath.Glob(filepath.Join(dir, "*", "meta.json"))
	if err != nil {
		return nil, err
	}
	found := map[int64]int{}
	for _, name := range metas {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var m block.Meta
		if err := json.Unmarshal(b, &m); err != nil {
			return nil, err
		}
		found[m.Thanos.Downsample.Resolution]++
	}
	return found, nil
}

// downsample lets Thanos make the blocks of coarser resolutions.
func downsample(t *testing.T, dir string) {
	t.Helper()
	addr := fleet.FreeAddr(t)
	p := fleet.Start(t, "thanos tools bucket downsample", os.Getenv("KOIOS_THANOS"), "tools", "bucket", "downsample",
		"--http-address="+addr, "--data-dir="+t.TempDir(), "--objstore.config-file="+fleet.BucketConfig(t, dir))
	fleet.Eventually(t, "the blocks are downsampled", 5*time.Minute, func() error {
		found, err := resolutions(dir)
		if err != nil {
			return nil // it is being written
		}
		if found[300_000] != 3 || found[3_600_000] != 2 {
			return fmt.Errorf("blocks by resolution: %v", found)
		}
		return nil
	})
	p.Kill()
}

// monthQuestions are templates; $r is a range.
var monthQuestions = []string{
	`http_requests_total{method="GET"}`, `temperature_celsius`, `state`, `visitor`, `special`, `{"service.requests"}`, `rpc_duration_seconds`, `queue_age_seconds`,
	`rate(http_requests_total[$r])`, `increase(http_requests_total{code="500"}[$r])`, `irate(http_requests_total[$r])`, `resets(http_requests_total[$r])`, `delta(temperature_celsius[$r])`, `deriv(temperature_celsius[$r])`,
	`sum by (method) (rate(http_requests_total[$r]))`, `sum(http_requests_total)`, `avg by (sensor) (temperature_celsius)`, `count(http_requests_total)`, `max by (instance) (temperature_celsius)`, `min(temperature_celsius)`, `count by (how) (visitor)`,
	`min_over_time(temperature_celsius[$r])`, `max_over_time(temperature_celsius[$r])`, `avg_over_time(temperature_celsius[$r])`, `sum_over_time(temperature_celsius[$r])`, `count_over_time(temperature_celsius[$r])`, `last_over_time(state[$r])`, `quantile_over_time(0.9, temperature_celsius[$r])`, `stddev_over_time(temperature_celsius[$r])`, `changes(state[$r])`, `present_over_time(visitor[$r])`,
	`max_over_time(visitor[$r])`, `sum_over_time(special[$r])`, `rate(rpc_duration_seconds[$r])`, `histogram_quantile(0.9, rate(rpc_duration_seconds[$r]))`, `histogram_count(sum_over_time(queue_age_seconds[$r]))`, `histogram_avg(rpc_duration_seconds)`,
	`histogram_quantile(0.9, sum by (le) (rate(latency_seconds_bucket[$r])))`, `max_over_time(sum(http_requests_total)[$r:10m])`, `sum(rate(http_requests_total[$r] offset 3h)) / count(http_requests_total offset 1d)`,
}

// askMonth makes the i-th question of the month.
func askMonth(rnd *rand.Rand, i int) answer.Query {
	total := time.Duration(0)
	for _, s := range month.spans {
		total += s
	}
	ranges := []string{"5m", "10m", "17m", "1h", "3h", "1d"}
	expr := strings.ReplaceAll(monthQuestions[i%len(monthQuestions)], "$r", ranges[rnd.IntN(len(ranges))])
	end := month.start.Add(time.Hour + time.Duration(rnd.Int64N(int64(total-time.Hour)))).Truncate(time.Millisecond)
	if rnd.IntN(3) == 0 {
		return answer.At(expr, end, "dedup", "false")
	}
	step := []time.Duration{37 * time.Second, 5 * time.Minute, 14 * time.Minute, 2 * time.Hour, 11 * time.Hour}[rnd.IntN(5)]
	start := end.Add(-time.Duration(1+rnd.IntN(60)) * step)
	return answer.Over(expr, start, end, step, "dedup", "false")
}

// Shows that over a bucket of raw and downsampled blocks, side by side and one instead of the other, a store and a
// querier of ours answer as those of Thanos do, whatever resolution is asked for. They may not where Thanos is wrong: it
// rewrites raw counters after restarts, so that its rates are not Prometheus's, and its averages of downsampled native
// histograms have buckets that do not add up to their count.
func TestDownsampledBesideThanos(t *testing.T) {
	dir, local := t.TempDir(), t.TempDir()
	first := writeMonth(t, dir, local)
	downsample(t, dir)
	if err := os.RemoveAll(filepath.Join(dir, first.String())); err != nil {
		t.Fatal(err)
	}
	conf := "--objstore.config-file=" + fleet.BucketConfig(t, dir)
	// Where raw data is gone and downsampled data is there, ours answers from it; Thanos has a hole.
	ours := querier(t, startKoios, startKoios(t, "store", "--data-dir="+t.TempDir(), "--no-store.coarser-blocks", conf).Ready(t))
	theirs := querier(t, startThanos, startThanos(t, "store", "--data-dir="+t.TempDir(), conf).Ready(t))

	raw := fleet.StartPrometheus(t, fleet.PrometheusConfig{Name: "prometheus", Dir: local, ExternalLabels: []string{"cluster", "eu", "replica", "a"}})
	const n = 250
	rnd := rand.New(rand.NewPCG(9, 9))
	answered, asked, restarts, histograms := 0, 0, 0, 0
	for i := range n {
		q := askMonth(rnd, i)
		for _, resolution := range []string{"0s", "5m", "1h", "auto"} {
			q.Params.Set("max_source_resolution", resolution)
			q.Params.Del("engine")
			asked++
			want, err := answer.Ask(t.Context(), theirs.URL, q)
			if err != nil {
				t.Fatal(err)
			}
			if len(want.Series) > 0 {
				answered++
			}
			for _, engine := range []string{"prometheus", "thanos"} {
				q.Params.Set("engine", engine)
				where := fmt.Sprintf("%s, from %s to %s step %s, resolution %s, engine %s", q.Expr, q.Start.Format(time.RFC3339), q.End.Format(time.RFC3339), q.Step, resolution, engine)
				got, err := answer.Ask(t.Context(), ours.URL, q)
				if err != nil {
					t.Errorf("%s: %v", where, err)
					continue
				}
				switch diff := answer.Diff(want, got, false); {
				case diff == "":
				case brokenAverage(want, got):
					histograms++
				case asPrometheus(t, raw, q, got):
					restarts++
				default:
					t.Errorf("%s: %s", where, diff)
				}
			}
		}
	}
	t.Logf("%d questions to both engines, %d answered with something", asked, answered)
	t.Logf("%d answers differ as Thanos rewrites raw counters after restarts; ours are Prometheus's answers", restarts)
	t.Logf("%d answers differ as buckets in Thanos's averages of downsampled histograms do not add up to their count", histograms)
	if answered*10 < asked*6 {
		t.Errorf("only %d of %d answers are not empty", answered, asked)
	}
}

// asPrometheus tells whether a question about restarts of counters has Prometheus's own answer, over the raw samples.
func asPrometheus(t *testing.T, p *fleet.Prometheus, q answer.Query, got *answer.Answer) bool {
	t.Helper()
	if !slices.ContainsFunc([]string{"rate(", "increase(", "resets("}, func(f string) bool { return strings.Contains(q.Expr, f) }) {
		return false
	}
	params := q.Params
	q.Params = nil
	want, err := answer.Ask(t.Context(), p.URL, q)
	q.Params = params
	if err != nil {
		t.Fatal(err)
	}
	return answer.Diff(want, got.Without(map[string]string{"cluster": "eu", "replica": "a"}), false) == ""
}

// brokenAverage tells whether answers differ in the buckets of histograms only, of which ours add up to their count
// and Thanos's do not.
func brokenAverage(want, got *answer.Answer) bool {
	found := false
	for i, s := range want.Series {
		for j, p := range s.Points {
			if p.Histogram == nil || p.Histogram.Count == 0 {
				continue
			}
			if i >= len(got.Series) || j >= len(got.Series[i].Points) || got.Series[i].Points[j].Histogram == nil {
				return false
			}
			ours := got.Series[i].Points[j].Histogram
			if !addsUp(ours) || !answer.Close(float64(ours.Count), float64(p.Histogram.Count)) || !answer.Close(float64(ours.Sum), float64(p.Histogram.Sum)) {
				return false
			}
			found = found || !addsUp(p.Histogram)
		}
	}
	return found
}

func addsUp(h *model.SampleHistogram) bool {
	sum := 0.0
	for _, b := range h.Buckets {
		sum += float64(b.Count)
	}
	return answer.Close(sum, float64(h.Count))
}
