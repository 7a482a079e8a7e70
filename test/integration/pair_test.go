package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/dataset"
	"github.com/koios-metrics/koios/test/fleet"
)

// uploadWait bounds the time in which a sidecar finds and uploads the blocks that lie ready. It looks each
// 30 s.
const uploadWait = 2 * time.Minute

// external returns the external labels of a replica. Their names sort before, amid and after those of the
// data.
func external(replica string) map[string]string {
	return map[string]string{"cluster": "eu", "prometheus": "team/main", "replica": replica}
}

// prometheusOf lays out a Prometheus that holds the blocks of a replica and scrapes the targets.
func prometheusOf(t *testing.T, name string, r dataset.Replica, targets ...string) (*fleet.Prometheus, []ulid.ULID) {
	t.Helper()
	dir := t.TempDir()
	ids, err := dataset.WriteBlocks(t.Context(), dir, r)
	if err != nil {
		t.Fatal(err)
	}
	ls := external(name)
	return fleet.NewPrometheus(t, fleet.PrometheusConfig{
		Name:           "prometheus-" + name,
		Dir:            dir,
		ExternalLabels: []string{"cluster", ls["cluster"], "prometheus", ls["prometheus"], "replica", ls["replica"]},
		Targets:        targets,
	}), ids
}

// pair is an HA pair: two Prometheus servers that scrape the same targets, each with a sidecar that uploads
// to one bucket.
type pair struct {
	a, b         *fleet.Prometheus
	sideA, sideB *fleet.Component
	bucket       string
	blocks       []ulid.ULID
}

// startPair starts a pair over the data, and waits until both sidecars are ready.
func startPair(t *testing.T) *pair {
	t.Helper()
	target := dataset.StartTarget(t)
	p := &pair{bucket: t.TempDir()}
	var ofA, ofB []ulid.ULID
	p.a, ofA = prometheusOf(t, "a", dataset.A, target)
	p.b, ofB = prometheusOf(t, "b", dataset.B, target)
	p.blocks = append(ofA, ofB...)
	p.a.Launch(t)
	p.b.Launch(t)
	p.sideA = fleet.StartSidecar(t, p.a, p.bucket)
	p.sideB = fleet.StartSidecar(t, p.b, p.bucket)
	p.sideA.Ready(t)
	p.sideB.Ready(t)
	return p
}

// waitUploaded waits until the bucket holds every block.
func (p *pair) waitUploaded(t *testing.T) {
	t.Helper()
	fleet.Eventually(t, "all blocks are uploaded", uploadWait, func() error { return inBucket(p.bucket, p.blocks) })
}

// inBucket says which block has no meta.json in the bucket.
func inBucket(bucket string, ids []ulid.ULID) error {
	for _, id := range ids {
		if _, err := os.Stat(filepath.Join(bucket, id.String(), "meta.json")); err != nil {
			return fmt.Errorf("block %s: %w", id, err)
		}
	}
	return nil
}

// ask asks a question that must have an answer without warnings about data that is missing.
func ask(t *testing.T, base string, q answer.Query) *answer.Answer {
	t.Helper()
	a, err := answer.Ask(t.Context(), base, q)
	if err != nil {
		t.Fatalf("%s %v at %s: %v", q.Expr, q.Params, base, err)
	}
	return a
}

// compare fails the test when two answers to a question differ.
func compare(t *testing.T, q question, asked answer.Query, want, got *answer.Answer) {
	t.Helper()
	if d := answer.Diff(want, got, q.ordered); d != "" {
		t.Errorf("%s\n%s, step %v:\n%s", q.expr, asked.Params.Encode(), asked.Step, d)
	}
}

// waitStores waits until a querier lists n endpoints and each of them without an error.
func waitStores(t *testing.T, query *fleet.Component, n int) {
	t.Helper()
	fleet.Eventually(t, fmt.Sprintf("the querier sees %d endpoints", n), time.Minute, func() error {
		var byType map[string][]struct {
			Name      string  `json:"name"`
			LastError *string `json:"lastError"`
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, query.URL+"/api/v1/stores", nil)
		if err != nil {
			return err
		}
		if _, err := answer.Do(req, &byType); err != nil {
			return err
		}
		seen := 0
		for _, stores := range byType {
			for _, s := range stores {
				if s.LastError != nil {
					return fmt.Errorf("%s: %s", s.Name, *s.LastError)
				}
				seen++
			}
		}
		if seen != n {
			return fmt.Errorf("it sees %d", seen)
		}
		return nil
	})
}
