package federate

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/koios-metrics/koios/pkg/endpoint"
	"github.com/koios-metrics/koios/proto/statuspb"
)

// TSDBStatistics returns the statistics of all peers, by tenant. The strategy of the request is overwritten.
func (f *Federation) TSDBStatistics(ctx context.Context, req *statuspb.TSDBStatisticsRequest) (*Answer[map[string]*statuspb.TSDBStatisticsEntry], error) {
	req = proto.CloneOf(req)
	req.PartialResponseStrategy = strategy(f.cfg.Status)
	all, err := f.askStatus(ctx, req)
	if err != nil {
		return nil, err
	}
	byTenant := map[string][]*statuspb.TSDBStatisticsEntry{}
	for _, m := range all.frames {
		for tenant, e := range m.GetStatistics().GetStatistics() {
			byTenant[tenant] = append(byTenant[tenant], e)
		}
	}
	data := make(map[string]*statuspb.TSDBStatisticsEntry, len(byTenant))
	for tenant, es := range byTenant {
		data[tenant] = MergeStatistics(es)
	}
	return &Answer[map[string]*statuspb.TSDBStatisticsEntry]{Data: data, Warnings: all.warnings, release: all.release}, nil
}

func (f *Federation) askStatus(ctx context.Context, req *statuspb.TSDBStatisticsRequest) (*said[*statuspb.TSDBStatisticsResponse], error) {
	return ask(ctx, f, question[statuspb.TSDBStatisticsResponse, *statuspb.TSDBStatisticsResponse]{
		what: "TSDB statistics", capability: endpoint.HasStatus, strategy: req.GetPartialResponseStrategy(),
		open: func(ctx context.Context, p endpoint.Peer) (grpc.ServerStreamingClient[statuspb.TSDBStatisticsResponse], error) {
			return statuspb.NewStatusClient(p.Conn).TSDBStatistics(ctx, req)
		},
		holds: func(m *statuspb.TSDBStatisticsResponse) bool { return m.GetStatistics() != nil },
	})
}

// MergeStatistics adds statistics up, those of peers or of tenants. Replicas count as often as they are
// there: statistics are about the room that data takes. Values of one label name may be the same in all
// databases, so their count is the largest one. Nil entries count for nothing.
func MergeStatistics(all []*statuspb.TSDBStatisticsEntry) *statuspb.TSDBStatisticsEntry {
	add := func(a, b uint64) uint64 { return a + b }
	larger := func(a, b uint64) uint64 { return max(a, b) }
	head := &statuspb.HeadStatistics{}
	for i, e := range all {
		h := e.GetHeadStatistics()
		head.NumSeries += h.GetNumSeries()
		head.NumLabelPairs += h.GetNumLabelPairs()
		head.ChunkCount += h.GetChunkCount()
		if i == 0 {
			head.MinTime, head.MaxTime = h.GetMinTime(), h.GetMaxTime()
			continue
		}
		head.MinTime = earlier(head.MinTime, h.GetMinTime())
		head.MaxTime = max(head.MaxTime, h.GetMaxTime())
	}
	return &statuspb.TSDBStatisticsEntry{
		HeadStatistics:              head,
		SeriesCountByMetricName:     mergeLists(all, (*statuspb.TSDBStatisticsEntry).GetSeriesCountByMetricName, add),
		LabelValueCountByLabelName:  mergeLists(all, (*statuspb.TSDBStatisticsEntry).GetLabelValueCountByLabelName, larger),
		MemoryInBytesByLabelName:    mergeLists(all, (*statuspb.TSDBStatisticsEntry).GetMemoryInBytesByLabelName, add),
		SeriesCountByLabelValuePair: mergeLists(all, (*statuspb.TSDBStatisticsEntry).GetSeriesCountByLabelValuePair, add),
	}
}

// earlier returns the smaller of two times in ms; one that is not above 0 was never set.
func earlier(a, b int64) int64 {
	if a <= 0 || b <= 0 {
		return max(a, b)
	}
	return min(a, b)
}

func mergeLists(all []*statuspb.TSDBStatisticsEntry, get func(*statuspb.TSDBStatisticsEntry) []*statuspb.Statistic, join func(a, b uint64) uint64) []*statuspb.Statistic {
	values := map[string]uint64{}
	for _, e := range all {
		for _, s := range get(e) {
			values[s.GetName()] = join(values[s.GetName()], s.GetValue())
		}
	}
	out := make([]*statuspb.Statistic, 0, len(values))
	for name, v := range values {
		out = append(out, &statuspb.Statistic{Name: name, Value: v})
	}
	slices.SortFunc(out, func(a, b *statuspb.Statistic) int {
		return cmp.Or(-cmp.Compare(a.GetValue(), b.GetValue()), strings.Compare(a.GetName(), b.GetName()))
	})
	return out
}
