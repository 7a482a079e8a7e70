package query

import (
	"context"
	"fmt"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/promql-engine/execution/model"
	"github.com/thanos-io/promql-engine/execution/telemetry"
	enginequery "github.com/thanos-io/promql-engine/query"

	"github.com/koios-metrics/koios/pkg/column"
)

// streamOperator hands the result of a scan to the engine, step by step. The scan runs when the engine
// first asks for anything.
type streamOperator struct {
	opts      *enginequery.Options
	scan      *scan
	name      string
	source    model.VectorOperator // what Explain shows below
	telemetry telemetry.OperatorTelemetry

	once   sync.Once
	groups *column.Groups
	series []labels.Labels
	err    error

	step int // the next one to hand out
}

func (o *streamOperator) run(ctx context.Context) error {
	o.once.Do(func() {
		var read []int64
		if o.groups, read, o.err = o.scan.run(ctx); o.err != nil {
			return
		}
		o.series = make([]labels.Labels, o.groups.Len())
		for i := range o.series {
			o.series[i] = o.groups.Labels(i)
		}
		o.telemetry.UpdatePeak(o.scan.peak())
		for i, n := range read {
			if n > 0 {
				o.telemetry.IncrementSamplesAtTimestamp(int(n), o.at(i))
			}
		}
	})
	return o.err
}

// at is the time of the i-th step.
func (o *streamOperator) at(i int) int64 {
	return o.opts.Start.UnixMilli() + int64(i)*o.opts.Step.Milliseconds()
}

// Series implements model.VectorOperator.
func (o *streamOperator) Series(ctx context.Context) ([]labels.Labels, error) {
	if err := o.run(ctx); err != nil {
		return nil, err
	}
	return o.series, nil
}

// Next implements model.VectorOperator.
func (o *streamOperator) Next(ctx context.Context, buf []model.StepVector) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := o.run(ctx); err != nil {
		return 0, err
	}
	n := 0
	for n < min(len(buf), o.opts.StepsBatch) && o.step < o.scan.steps.N {
		b := &buf[n]
		b.Reset(o.at(o.step))
		for g := range o.series {
			if v, ok := o.groups.At(g, o.step); ok {
				b.AppendSampleWithSizeHint(uint64(g), v, len(o.series))
			}
		}
		o.step++
		n++
	}
	if n == 0 {
		o.groups = nil // The engine has it all.
	}
	return n, nil
}

// Explain implements model.VectorOperator.
func (o *streamOperator) Explain() []model.VectorOperator { return []model.VectorOperator{o.source} }

// String implements model.VectorOperator.
func (o *streamOperator) String() string { return o.name }

// sourceOperator stands for the selector and its function where a query is explained. It is never asked
// for anything: the scan evaluates it along with the aggregation.
type sourceOperator struct{ name string }

func newSource(name string, opts *enginequery.Options) (model.VectorOperator, telemetry.OperatorTelemetry) {
	s := sourceOperator{name: name}
	t := telemetry.NewTelemetry(s, opts)
	return telemetry.NewOperator(t, s), t
}

// Series implements model.VectorOperator.
func (s sourceOperator) Series(context.Context) ([]labels.Labels, error) {
	return nil, fmt.Errorf("BUG: %s is evaluated along with its aggregation", s.name)
}

// Next implements model.VectorOperator.
func (s sourceOperator) Next(ctx context.Context, _ []model.StepVector) (int, error) {
	_, err := s.Series(ctx)
	return 0, err
}

// Explain implements model.VectorOperator.
func (s sourceOperator) Explain() []model.VectorOperator { return nil }

// String implements model.VectorOperator.
func (s sourceOperator) String() string { return s.name }
