package integration

import (
	"testing"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/dataset"
	"github.com/koios-metrics/koios/test/fleet"
)

// The questions are worth asking: Prometheus itself, over the blocks of the data, has an answer to each of
// them in which there is something. So an equal answer of Koios is never equal for being empty.
func TestPrometheusAnswersTheQuestions(t *testing.T) {
	dir := t.TempDir()
	if _, err := dataset.WriteBlocks(t.Context(), dir, dataset.A); err != nil {
		t.Fatal(err)
	}
	p := fleet.StartPrometheus(t, fleet.PrometheusConfig{Name: "prometheus", Dir: dir})
	for _, q := range questions {
		for _, asked := range q.asked() {
			a, err := answer.Ask(t.Context(), p.URL, asked)
			if err != nil {
				t.Errorf("%s: %v", q.expr, err)
				continue
			}
			if len(a.Series) == 0 && !q.empty {
				t.Errorf("%s: empty at step %v", q.expr, asked.Step)
			}
		}
	}
}
