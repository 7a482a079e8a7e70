package query

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/koios-metrics/koios/pkg/dedup"
	"github.com/koios-metrics/koios/pkg/store"
)

// The names of the engines.
const (
	// EnginePrometheus is Prometheus's own.
	EnginePrometheus = "prometheus"
	// EngineThanos is promql-engine, which evaluates column by column.
	EngineThanos = "thanos"
)

// Config says how queries are evaluated. The zero value of a field is its default.
type Config struct {
	// Engine evaluates requests that name none: EngineThanos (the default) or EnginePrometheus.
	Engine string
	// DisableFallback refuses what EngineThanos can't evaluate and takes its answers as they are; otherwise
	// EnginePrometheus evaluates what EngineThanos can't, and what it is known to be wrong about.
	DisableFallback bool
	// EnableXFunctions adds xrate, xincrease and xdelta to EngineThanos.
	EnableXFunctions bool
	// DisableStreaming leaves aggregations to EngineThanos's own operators, which hold all series of a
	// selector at once.
	DisableStreaming bool
	// EnginesMode is the value of the engines' metric label "mode"; the default is "local".
	EnginesMode string

	// Timeout bounds one query; the default is 2 minutes.
	Timeout time.Duration
	// LookbackDelta is how far back an instant selector looks for a sample; the default is 5 minutes.
	LookbackDelta time.Duration
	// DynamicLookback raises LookbackDelta for downsampled data, whose samples are further apart.
	DynamicLookback bool
	// DefaultEvaluationInterval is the step of subqueries that state none; the default is 1 minute.
	DefaultEvaluationInterval time.Duration
	// ActiveQueryPath is the folder where running queries are noted, so that those which a crash
	// interrupted are logged at the next start; empty is none.
	ActiveQueryPath string

	// MaxConcurrent bounds the queries evaluated at once; the default is 20.
	MaxConcurrent int
	// MaxConcurrentSelect bounds the selects that one query runs at once; the default is 4.
	MaxConcurrentSelect int
	// MaxSamples bounds the samples that one query holds decoded at once; 0 is no bound.
	MaxSamples int
	// ChunkBytesMax bounds the memory in bytes for the series and encoded chunks of all running
	// queries, and for the groups of streamed aggregations; 0 is no bound.
	ChunkBytesMax int64
	// QueryBytesMax bounds the same memory for each query by itself; 0 is no bound.
	QueryBytesMax int64
	// Budget is charged instead of one of ChunkBytesMax if it is not
	// nil, for whoever shares one with others.
	Budget *store.Budget

	// ShadowSample is the part, from 0 to 1, of the queries answered by EngineThanos that EnginePrometheus evaluates
	// again when the answer has been sent, to count differences.
	ShadowSample float64
	// ShadowBytesMax bounds the memory in bytes of these evaluations, beside ChunkBytesMax; 0 is no bound.
	ShadowBytesMax int64

	// Dedup says how replicas are merged.
	Dedup dedup.Mode
}

func (c Config) withDefaults() Config {
	or := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	or(&c.Timeout, 2*time.Minute)
	or(&c.DefaultEvaluationInterval, time.Minute)
	if c.Engine == "" {
		c.Engine = EngineThanos
	}
	if c.EnginesMode == "" {
		c.EnginesMode = "local"
	}
	if c.Budget == nil {
		c.Budget = store.NewBudget("memory for the series of queries", c.ChunkBytesMax)
	}
	if c.MaxConcurrent == 0 {
		c.MaxConcurrent = 20
	}
	if c.MaxConcurrentSelect == 0 {
		c.MaxConcurrentSelect = 4
	}
	return c
}

// Validate explains what is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	if err := validateEngine(c.Engine); err != nil && c.Engine != "" {
		errs = append(errs, err)
	}
	if c.ShadowSample < 0 || c.ShadowSample > 1 || math.IsNaN(c.ShadowSample) {
		errs = append(errs, fmt.Errorf("shadow sample of %v: it is a part of the queries, from 0 to 1", c.ShadowSample))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"timeout", c.Timeout}, {"lookback delta", c.LookbackDelta}, {"default evaluation interval", c.DefaultEvaluationInterval}} {
		if d.value < 0 {
			errs = append(errs, fmt.Errorf("%s of %s: it must not be negative", d.name, d.value))
		}
	}
	return errors.Join(errs...)
}

func validateEngine(name string) error {
	if name != EnginePrometheus && name != EngineThanos {
		return fmt.Errorf("unknown query engine %q: use %s or %s", name, EnginePrometheus, EngineThanos)
	}
	return nil
}
