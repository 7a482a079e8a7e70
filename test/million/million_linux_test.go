//go:build campaign

package million

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/bulk"
	"github.com/koios-metrics/koios/test/fleet"
)

func TestMain(m *testing.M) { os.Exit(fleet.Main(m)) }

const (
	series  = 1_000_000
	pods    = 100_000
	jobs    = 10
	from    = int64(1_700_006_400_000)
	samples = 6 * 60
	// What the querier may hold resident, and what the kernel kills it at.
	budget = 512 << 20
	limit  = 640 << 20
)

// Shows that a million series in two replicas, six hours of them scraped each minute, in blocks that a store
// serves, are aggregated to a few groups and to a hundred thousand by a querier that never holds more than
// 512 MiB, in a control group of 640 MiB and with nothing else told to the Go runtime; and that what does not
// fit is refused clearly and the querier lives on.
func TestMillion(t *testing.T) {
	bucket := t.TempDir()
	for i, replica := range []string{"a", "b"} {
		if _, err := bulk.Write(t.Context(), bucket, bulk.Spec{
			From: from + int64(i)*23_000, Interval: 60_000, Samples: samples, Series: requests(),
			External: map[string]string{"cluster": "eu", "replica": replica}, Seed: uint64(i),
		}); err != nil {
			t.Fatal(err)
		}
	}
	store := fleet.StartStore(t, bucket)
	memory := fleet.NewMemory(t, limit)
	start, end := time.UnixMilli(from), time.UnixMilli(from+samples*60_000)

	for _, c := range []struct {
		query   answer.Query
		groups  int
		refused bool
	}{
		{query: answer.Over(`sum by (job) (rate(http_requests_total[5m]))`, start, end, time.Minute), groups: jobs},
		{query: answer.Over(`sum by (pod) (rate(http_requests_total[5m]))`, start, end, 5*time.Minute), groups: pods},
		{query: answer.Over(`avg by (pod) (http_requests_total)`, start, end, 10*time.Minute), groups: pods},
		{query: answer.Over(`sum by (pod) (rate(http_requests_total[5m]))`, start, end, 10*time.Second), refused: true},
		{query: answer.Over(`rate(http_requests_total[5m])`, start, end, time.Minute), refused: true},
	} {
		t.Run(c.query.Expr+" "+c.query.Step.String(), func(t *testing.T) {
			q := &fleet.Component{HTTP: fleet.FreeAddr(t), GRPC: fleet.FreeAddr(t)}
			q.URL = "http://" + q.HTTP
			q.Process = memory.Start(t, "query", fleet.KoiosProgram(t), "query", "--http-address="+q.HTTP, "--grpc-address="+q.GRPC,
				"--query.replica-label=replica", "--query.promql-engine=thanos", "--query.timeout=20m", "--endpoint="+store.GRPC)
			q.Ready(t)
			fleet.Eventually(t, "the querier knows the store", time.Minute, func() error {
				if n, _ := fleet.Metric(t.Context(), q.URL+"/metrics", "thanos_store_nodes_grpc_connections"); n != 1 {
					return fmt.Errorf("%v connections", n)
				}
				return nil
			})
			began := time.Now()
			a, err := answer.Ask(t.Context(), q.URL, c.query)
			if err != nil {
				a = &answer.Answer{}
			}
			t.Logf("%d series in %v, peak of %d MiB, error %v", len(a.Series), time.Since(began).Round(time.Second), q.PeakRSS(t)>>20, err)
			switch {
			case !c.refused && err != nil:
				t.Error(err)
			case c.refused && (err == nil || !strings.Contains(err.Error(), "--query.max-memory")):
				t.Errorf("want a refusal that names the flag, got %v", err)
			case len(a.Series) != c.groups:
				t.Errorf("%d groups, want %d", len(a.Series), c.groups)
			}
			if peak := q.PeakRSS(t); peak > budget {
				t.Errorf("peak of %d MiB, want at most %d", peak>>20, budget>>20)
			}
			if n := memory.Kills(t); n != 0 || !q.Running() {
				t.Fatalf("the kernel killed %d processes", n)
			}
			q.Stop(t)
		})
	}
}

// requests are the labels of a million series: ten of each pod, ten thousand pods of each job.
func requests() []labels.Labels {
	ls := make([]labels.Labels, series)
	for i := range ls {
		ls[i] = labels.FromStrings("__name__", "http_requests_total", "code", fmt.Sprint(200+i/pods), "job", fmt.Sprintf("job-%02d", i%jobs), "pod", fmt.Sprintf("pod-%06d", i%pods))
	}
	slices.SortFunc(ls, labels.Compare)
	return ls
}
