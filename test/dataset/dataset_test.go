package dataset

import (
	"context"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// What WriteBlocks writes is what the functions of the series say: every sample of both replicas is read
// back through Prometheus's own TSDB and compared.
func TestBlocksHoldTheSeries(t *testing.T) {
	for name, r := range map[string]Replica{"a": A, "b": B} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ids, err := WriteBlocks(t.Context(), dir, r)
			if err != nil {
				t.Fatal(err)
			}
			if len(ids) != Blocks {
				t.Fatalf("%d blocks, want %d", len(ids), Blocks)
			}
			// A database that is opened to be read wants a WAL beside its blocks, be it an empty one.
			if err := os.Mkdir(filepath.Join(dir, "wal"), 0o700); err != nil {
				t.Fatal(err)
			}
			db, err := tsdb.OpenDBReadOnly(dir, "", slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			q, err := db.Querier(Start.UnixMilli(), End.UnixMilli()-1)
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			for _, s := range All() {
				check(t, q, s, r)
			}
		})
	}
}

func check(t *testing.T, q storage.Querier, s Series, r Replica) {
	var ms []*labels.Matcher
	for _, name := range []string{labels.MetricName, "job", "instance", "method", "code", "le", "mode", "sensor", "how", "is",
		"a", "b", "clust", "cluster_name", "prometheus_name", "repl", "replica_set", "zone"} {
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, name, s.Labels.Get(name)))
	}
	set := q.Select(context.Background(), false, nil, ms...)
	if !set.Next() {
		t.Fatalf("%s is missing: %v", s.Labels, set.Err())
	}
	got := set.At()
	if labels.Compare(got.Labels(), s.Labels) != 0 || set.Next() {
		t.Fatalf("more than %s is found", s.Labels)
	}
	it, was := got.Iterator(nil), false
	for _, at := range r.Times() {
		since := at - Start.UnixMilli()
		present := s.Present == nil || s.Present(since)
		stale := was && !present && s.Stale
		was = present
		if !present && !stale {
			continue
		}
		typ := it.Next()
		if typ == chunkenc.ValNone || it.AtT() != at {
			t.Fatalf("%s: sample at %d is missing", s.Labels, at)
		}
		switch {
		case stale:
			if _, v := it.At(); !value.IsStaleNaN(v) {
				t.Fatalf("%s at %d: %v, want a staleness marker", s.Labels, at, v)
			}
		case s.Histogram != nil:
			if _, h := it.AtHistogram(nil); !h.Equals(s.Histogram(since)) {
				t.Fatalf("%s at %d: %v, want %v", s.Labels, at, h, s.Histogram(since))
			}
		default:
			if _, v := it.At(); v != s.Float(since) && !(math.IsNaN(v) && math.IsNaN(s.Float(since))) {
				t.Fatalf("%s at %d: %v, want %v", s.Labels, at, v, s.Float(since))
			}
		}
	}
	if it.Next() != chunkenc.ValNone {
		t.Fatalf("%s has a sample too many at %d", s.Labels, it.AtT())
	}
}

// The page of a target shows every series that exists in its first minutes.
func TestTargetShowsTheSeries(t *testing.T) {
	res, err := http.Get("http://" + StartTarget(t) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`http_requests_total{`, `rpc_duration_seconds_count{`, `machine="10.0.0.2:9100"`, `visitor{how="returns"}`, `is="nan"`} {
		if !strings.Contains(string(body), want) {
			t.Errorf("%s is missing", want)
		}
	}
	if strings.Contains(string(body), `how="leaves"`) {
		t.Error("a series shows before its time")
	}
}
