package query

import (
	"github.com/prometheus/prometheus/model/value"

	"github.com/koios-metrics/koios/pkg/chunk/xor"
	"github.com/koios-metrics/koios/pkg/column"
)

// presence returns how far in ms a scan looks back that asks of each step only whether there is a value, and not
// which: then any replica that has one at every step answers for all. 0 stands for scans that ask for more.
func (s *scan) presence() int64 {
	if s.function.Name == "" && (s.op == column.Count || s.op == column.Group) {
		return s.span.Milliseconds()
	}
	return 0
}

// steadyPart is the part of the time looked back over that a replica may pause and still count as steady.
const steadyPart = 4

// steady tells whether a replica has samples all over the times from mint to maxt, none farther than a quarter
// of span from the next one or from an end, and no staleness marker. Where all replicas are steady, what is
// merged of them has a sample in every window of length span, and no marker: merging loses no more than an
// interval of the replicas' own.
func steady(lane *xor.Samples, mint, maxt, span int64) bool {
	in := lane.Between(mint, maxt)
	last := mint
	for i, t := range in.Times {
		if t-last > span/steadyPart || value.IsStaleNaN(in.Values[i]) {
			return false
		}
		last = t
	}
	return len(in.Times) > 0 && maxt-last <= span/steadyPart
}
