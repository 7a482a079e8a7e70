//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/dataset"
	"github.com/koios-metrics/koios/test/fleet"
)

// past are questions about the fixed day of the data set.
func past() []answer.Query {
	from, to := dataset.Start.Add(10*time.Minute), dataset.End.Add(-10*time.Minute)
	return []answer.Query{
		answer.Over(`sum by (job) (rate(http_requests_total[5m]))`, from, to, time.Minute),
		answer.Over(`temperature_celsius`, from, to, 5*time.Minute),
		answer.Over(`histogram_quantile(0.9, sum(rate(rpc_duration_seconds[10m])))`, from, to, 5*time.Minute),
		answer.At(`count({__name__=~".+"})`, dataset.End.Add(-30*time.Minute)),
		answer.At(`max_over_time(temperature_celsius[5h])`, dataset.End.Add(-30*time.Minute)),
	}
}

// pastExternal are the external labels of the Prometheus that holds the data set.
var pastExternal = map[string]string{"cluster": "eu", "replica": "a"}

// pastPrometheus starts a Prometheus named past that holds the data set.
func pastPrometheus(t *testing.T, w *world) *container {
	t.Helper()
	if _, err := dataset.WriteBlocks(t.Context(), w.dataOf("past"), dataset.A); err != nil {
		t.Fatal(err)
	}
	giveAway(t, w.dataOf("past"))
	return w.prometheus("past", pastExternal).start().ready()
}

// giveAway gives the files in a folder to the user of the containers.
func giveAway(t testing.TB, dir string) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if err := os.Chown(path, 65534, 65534); err != nil {
			return err
		}
		return os.Chmod(path, info.Mode().Perm()|0o666|info.Mode().Perm()>>2&0o111)
	})
	if err != nil {
		t.Fatalf("give %s to the containers: %v", dir, err)
	}
}

// equal says how an answer, its external labels aside, differs from what it should be.
func equal(want, got *answer.Answer) error {
	if len(got.Warnings) > 0 {
		return fmt.Errorf("warnings %q", got.Warnings)
	}
	if d := answer.Diff(want, got.Without(map[string]string{"cluster": "eu"}), false); d != "" {
		return fmt.Errorf("it differs:\n%s", d)
	}
	return nil
}

// A sidecar uploads the blocks of its Prometheus to S3. Prometheus loses its disk; what it held comes from the bucket
// then, the same as Prometheus itself had answered.
func TestHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "history")
	_, bucket := w.s3()
	prom := pastPrometheus(t, w)
	side := w.sidecar("past", "--objstore.config-file="+bucket).ready()
	var want []*answer.Answer
	for _, q := range past() {
		a := prom.ask(q)
		if len(a.Series) == 0 {
			t.Fatalf("%s: Prometheus has no answer", q.Expr)
		}
		want = append(want, a)
	}
	fleet.Eventually(t, "all blocks are uploaded", wait, func() error {
		if n := side.metric("thanos_shipper_uploads_total"); n != dataset.Blocks {
			return fmt.Errorf("%v are", n)
		}
		return nil
	})

	prom.kill()
	if err := os.RemoveAll(w.dataOf("past")); err != nil {
		t.Fatal(err)
	}
	w.dataOf("past")
	prom.start().ready()
	if a := prom.ask(past()[0]); len(a.Series) > 0 {
		t.Fatal("Prometheus has not lost its data")
	}
	w.koios("store", "store", "--objstore.config-file="+bucket, "--sync-block-duration=1s", "--data-dir=/data").ready()
	query := w.query("query", []string{"sidecar-past", "store"}).ready()
	query.waitStores(2)
	for i, q := range past() {
		if err := equal(want[i], query.ask(q)); err != nil {
			t.Errorf("%s: %v", q.Expr, err)
		}
	}
}
