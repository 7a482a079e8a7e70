package frontend

import (
	"encoding/json"
	"slices"

	"github.com/koios-metrics/koios/pkg/frontend/matrix"
)

// sampleStats are the statistics of an answer that can be added up.
type sampleStats struct {
	Samples struct {
		Total   int64        `json:"totalQueryableSamples"`
		PerStep [][2]float64 `json:"totalQueryableSamplesPerStep,omitempty"`
		Peak    int64        `json:"peakSamples"`
	} `json:"samples"`
}

// joinStats adds up what parts of a query read: totals are sums, peaks the highest, steps by time. Nil if a part says
// nothing or what it says can't be read.
func joinStats(parts []*matrix.Answer) json.RawMessage {
	var all sampleStats
	steps := map[float64]float64{}
	for _, p := range parts {
		var one sampleStats
		if p.Stats == nil || json.Unmarshal(p.Stats, &one) != nil {
			return nil
		}
		all.Samples.Total += one.Samples.Total
		all.Samples.Peak = max(all.Samples.Peak, one.Samples.Peak)
		for _, s := range one.Samples.PerStep {
			steps[s[0]] += s[1]
		}
	}
	for t, n := range steps {
		all.Samples.PerStep = append(all.Samples.PerStep, [2]float64{t, n})
	}
	slices.SortFunc(all.Samples.PerStep, func(a, b [2]float64) int {
		if a[0] < b[0] {
			return -1
		}
		return 1
	})
	b, err := json.Marshal(all)
	if err != nil {
		return nil
	}
	return b
}

// joinAnalysis keeps the first part's tree that says something.
func joinAnalysis(parts []*matrix.Answer) json.RawMessage {
	for _, p := range parts {
		if len(p.Analysis) > len("{}") {
			return p.Analysis
		}
	}
	return parts[0].Analysis
}
