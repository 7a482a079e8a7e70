package query

import (
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// grouping says which labels an aggregation keeps.
type grouping struct {
	without bool
	names   []string // sorted; with without, the metric name is among them
}

func newGrouping(names []string, without bool) grouping {
	g := grouping{without: without, names: slices.Clone(names)}
	if without {
		g.names = append(g.names, model.MetricNameLabel)
	}
	slices.Sort(g.names)
	g.names = slices.Compact(g.names)
	return g
}

// key appends to buf what tells the group of a series from others.
func (g *grouping) key(buf []byte, ls labels.Labels) []byte {
	switch {
	case g.without:
		return ls.BytesWithoutLabels(buf, g.names...)
	case len(g.names) == 0:
		return buf[:0]
	}
	return ls.BytesWithLabels(buf, g.names...)
}

// labels are those of the group of a series. They share no memory with the series.
func (g *grouping) labels(ls labels.Labels) labels.Labels {
	b := labels.NewBuilder(ls)
	if g.without {
		b.Del(g.names...)
	} else {
		b.Keep(g.names...)
	}
	out := b.Labels()
	if labels.Equal(out, ls) {
		return ls.Copy()
	}
	return out
}
