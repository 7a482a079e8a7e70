package integration

import (
	"errors"
	"fmt"
	"testing"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/fleet"
)

// A pair of replicas is one truth, by whichever road it is read: from the sidecars, from the bucket after
// upload, and from both together; and from the bucket alone once every Prometheus has stopped.
func TestPair(t *testing.T) {
	p := startPair(t)
	p.waitUploaded(t)
	store := fleet.StartStore(t, p.bucket)

	sidecars := fleet.StartQuery(t, []*fleet.Component{p.sideA, p.sideB})
	both := fleet.StartQuery(t, []*fleet.Component{p.sideA, p.sideB, store})
	bucket := fleet.StartQuery(t, []*fleet.Component{store})
	waitStores(t, sidecars, 2)
	waitStores(t, both, 3)
	waitStores(t, bucket, 1)

	t.Run("replicas from sidecars", func(t *testing.T) { replicasAreOne(t, p, sidecars) })
	t.Run("replicas from both", func(t *testing.T) { replicasAreOne(t, p, both) })
	t.Run("replicas from the bucket", func(t *testing.T) { replicasAreOne(t, p, bucket) })

	truth := remember(t, sidecars)
	t.Run("both", func(t *testing.T) { truth.compare(t, both) })
	t.Run("store match", func(t *testing.T) {
		truth.compare(t, both, "storeMatch[]", `{__address__="`+p.sideA.GRPC+`"}`, "storeMatch[]", `{__address__="`+p.sideB.GRPC+`"}`)
		truth.compare(t, both, "storeMatch[]", `{__address__="`+store.GRPC+`"}`)
	})

	// A querier over a querier is still the same truth.
	t.Run("stacked", func(t *testing.T) {
		above := fleet.StartQuery(t, []*fleet.Component{both})
		waitStores(t, above, 1)
		truth.compare(t, above)
	})

	p.a.Stop(t)
	p.b.Stop(t)
	t.Run("bucket alone", func(t *testing.T) { truth.compare(t, bucket) })
	t.Run("both without Prometheus", func(t *testing.T) { truth.compare(t, both) })
}

// truth is what a querier answered to every question. Without deduplication some joins are refused, because
// replicas match one another; then the refusal is the truth.
type truth struct {
	asked    []answer.Query
	of       []question
	answers  []*answer.Answer
	refusals []error
}

func remember(t *testing.T, query *fleet.Component) *truth {
	t.Helper()
	tr := &truth{}
	for _, q := range questions {
		for _, dedup := range []string{"true", "false"} {
			for _, asked := range q.asked("dedup", dedup) {
				tr.asked, tr.of = append(tr.asked, asked), append(tr.of, q)
				a, err := answer.Ask(t.Context(), query.URL, asked)
				if err != nil && kindOf(err) != refusedJoin {
					t.Fatalf("%s: %v", q.expr, err)
				}
				tr.answers, tr.refusals = append(tr.answers, a), append(tr.refusals, err)
			}
		}
	}
	return tr
}

// compare asks another querier the same, with more parameters.
func (tr *truth) compare(t *testing.T, query *fleet.Component, params ...string) {
	t.Helper()
	for i, asked := range tr.asked {
		again := asked
		again.Params = map[string][]string{}
		for name, vs := range asked.Params {
			again.Params[name] = vs
		}
		for j := 0; j+1 < len(params); j += 2 {
			again.Params.Add(params[j], params[j+1])
		}
		if tr.refusals[i] != nil {
			if _, err := answer.Ask(t.Context(), query.URL, again); kindOf(err) != refusedJoin {
				t.Errorf("%s: %v, want %v", again.Expr, err, tr.refusals[i])
			}
			continue
		}
		compare(t, tr.of[i], again, tr.answers[i], ask(t, query.URL, again))
	}
}

// refusedJoin is how a join with several matches is refused.
const refusedJoin = "422 execution"

// kindOf returns the status and type of a refusal.
func kindOf(err error) string {
	var no *answer.Error
	if !errors.As(err, &no) {
		return fmt.Sprint(err)
	}
	return fmt.Sprint(no.Status, " ", no.Type)
}
