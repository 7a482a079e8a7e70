package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/dataset"
	"github.com/koios-metrics/koios/test/fleet"
)

// answerWait is what the README promises for the first answer.
const answerWait = time.Minute

// The README's first command, on an empty folder: it prints what to try, and that has an answer within a
// minute. After kill -9 and a second start, what was scraped before is still there. A querier elsewhere may
// have it among its endpoints.
func TestStandalone(t *testing.T) {
	s := fleet.StartComponent(t, "standalone", "--data-dir="+filepath.Join(t.TempDir(), "data")).Ready(t)
	at := answered(t, s, `up{job="koios"}`)
	if words := s.Log(); !strings.Contains(words, s.URL+"/api/v1/query?query=up") {
		t.Errorf("no query to try in:\n%s", words)
	}
	query := fleet.StartQuery(t, []*fleet.Component{s})
	waitStores(t, query, 1)
	if a := ask(t, query.URL, answer.At(`up{koios="standalone"}`, at)); len(a.Series) != 1 {
		t.Errorf("a querier above has %d series, want 1", len(a.Series))
	}

	s.Kill()
	s.Restart(t)
	s.Ready(t)
	if a := ask(t, s.URL, answer.At(`up`, at)); len(a.Series) != 1 {
		t.Errorf("after kill -9 there are %d series of the time before, want 1", len(a.Series))
	}
	answered(t, s, `up`)
	s.Stop(t)
}

// Standalone over the blocks of a Prometheus answers as that Prometheus does, from its TSDB and, once they
// are there, from its bucket.
func TestStandaloneAnswersAsPrometheus(t *testing.T) {
	p, ids := prometheusOf(t, "a", dataset.A)
	p.Launch(t)
	data := t.TempDir()
	if _, err := dataset.WriteBlocks(t.Context(), filepath.Join(data, "tsdb"), dataset.A); err != nil {
		t.Fatal(err)
	}
	s := fleet.StartComponent(t, "standalone", "--data-dir="+data).Ready(t)
	fleet.Eventually(t, "the blocks are in the bucket", uploadWait, func() error {
		metas, err := filepath.Glob(filepath.Join(data, "bucket", "*", "meta.json"))
		if err == nil && len(metas) != len(ids) {
			err = fmt.Errorf("%d blocks", len(metas))
		}
		return err
	})
	// The second time they are in the TSDB and in the bucket.
	for range 2 {
		for _, q := range questions {
			if strings.Contains(q.expr, "__name__") {
				continue // It scrapes itself and has more metrics than the blocks do.
			}
			for i, alone := range q.asked() {
				asked := q.asked("dedup", "false")[i]
				got := ask(t, s.URL, asked).Without(map[string]string{"koios": "standalone"})
				compare(t, q, asked, ask(t, p.URL, alone), got)
			}
		}
		s.Stop(t)
		s.Restart(t)
		s.Ready(t)
	}
}

// answered waits for an answer and returns its time.
func answered(t *testing.T, c *fleet.Component, expr string) (at time.Time) {
	t.Helper()
	fleet.Eventually(t, "an answer to "+expr, answerWait, func() error {
		at = time.Now()
		a, err := answer.Ask(t.Context(), c.URL, answer.At(expr, at))
		if err == nil && len(a.Series) != 1 {
			err = fmt.Errorf("%d series", len(a.Series))
		}
		return err
	})
	return at
}
