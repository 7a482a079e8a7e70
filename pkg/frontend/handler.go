package frontend

import (
	"context"
	"net/http"

	"github.com/koios-metrics/koios/pkg/frontend/matrix"
)

// rangeHandler answers range queries. It may be called in parallel; queries and answers are shared and never
// changed. Errors are *statusError where the querier answered with one.
type rangeHandler interface {
	do(ctx context.Context, q *rangeQuery) (*rangeAnswer, error)
}

// rangeFunc is a function as a rangeHandler.
type rangeFunc func(ctx context.Context, q *rangeQuery) (*rangeAnswer, error)

func (f rangeFunc) do(ctx context.Context, q *rangeQuery) (*rangeAnswer, error) { return f(ctx, q) }

// rangeAnswer is what a range query got.
type rangeAnswer struct {
	*matrix.Answer
	// noStore is true when the answer must not be kept: data may be missing.
	noStore bool
	// header are the headers of the one answer from below that this is, nil if it is made of several or was kept.
	header http.Header
}

// joined is the answer of several parts of a query.
func joined(parts []*rangeAnswer) *rangeAnswer {
	if len(parts) == 1 {
		return parts[0]
	}
	out := &rangeAnswer{}
	answers := make([]*matrix.Answer, len(parts))
	for i, p := range parts {
		answers[i] = p.Answer
		out.noStore = out.noStore || p.noStore
	}
	out.Answer = matrix.Join(answers...)
	out.Stats = joinStats(answers)
	out.Analysis = joinAnalysis(answers)
	return out
}
