package frontend

import (
	"context"
	"encoding/json"
	"maps"
	"net/url"

	"github.com/prometheus/client_golang/prometheus"
)

// shardsMax bounds the shards of a query.
const shardsMax = 256

// sharder asks for an expression by shards of its series, where that is known to be the same.
type sharder struct {
	shards, parallel int
	next             rangeHandler
	metrics          *metrics
}

// do implements rangeHandler.
func (s *sharder) do(ctx context.Context, q *rangeQuery) (*rangeAnswer, error) {
	by := shardLabels(q.expr)
	countShardable(s.metrics.shardable, len(by) > 0)
	if len(by) == 0 {
		return s.next.do(ctx, q)
	}
	parts := make([]*rangeQuery, s.shards)
	for i, form := range shardForms(q.form, by, s.shards) {
		c := *q
		c.form = form
		parts[i] = &c
	}
	return inParallel(ctx, s.parallel, parts, s.next)
}

func countShardable(c *prometheus.CounterVec, shardable bool) {
	if shardable {
		c.WithLabelValues("true").Inc()
		return
	}
	c.WithLabelValues("false").Inc()
}

// shardForms are the forms that ask for the shards of a query.
func shardForms(form url.Values, by []string, shards int) []url.Values {
	out := make([]url.Values, shards)
	for i := range out {
		info, err := json.Marshal(struct {
			Index  int      `json:"shard_index"`
			Total  int      `json:"total_shards"`
			By     bool     `json:"by"`
			Labels []string `json:"labels"`
		}{i, shards, true, by})
		if err != nil {
			panic("BUG: frontend: " + err.Error()) // numbers and strings can always be encoded
		}
		out[i] = maps.Clone(form)
		out[i].Set("shard_info", string(info))
	}
	return out
}
