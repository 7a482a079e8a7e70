package query

import (
	"github.com/koios-metrics/koios/pkg/column"
)

// presence returns how far in ms a scan looks back that asks of each step only whether there is a value, and not
// which: then a first replica that has one at every step answers for all. 0 stands for scans that ask for more.
func (s *scan) presence() int64 {
	if asksPresence(s.function, s.then, s.op) {
		return s.span.Milliseconds()
	}
	return 0
}

// asksPresence tells whether an aggregation of a function asks only whether there is a value; native histograms
// count as well as floats then.
func asksPresence(f column.Function, then []pointwise, op column.Op) bool {
	return f.Name == "" && len(then) == 0 && (op == column.Count || op == column.Group)
}

// steadyPart is the part of the time looked back over that a replica may pause and still count as steady.
const steadyPart = 4

// steady tells whether a replica without staleness markers has samples all over the times from mint to maxt, none
// farther than a quarter of span from the next one or from an end. Then what is merged, which has all samples of
// the first replica, has one in every window of length span if the first is steady.
func steady(times []int64, mint, maxt, span int64) bool {
	last := mint
	for _, t := range times {
		if t-last > span/steadyPart {
			return false
		}
		last = t
	}
	return len(times) > 0 && maxt-last <= span/steadyPart
}
