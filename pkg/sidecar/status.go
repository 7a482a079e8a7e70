package sidecar

import (
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/store/wire"
	"github.com/koios-metrics/koios/proto/statuspb"
)

// tsdbStatus serves statistics of Prometheus's head. A Prometheus has one tenant, which has no name.
type tsdbStatus struct {
	statuspb.UnimplementedStatusServer
	leaf
}

// TSDBStatistics implements statuspb.StatusServer. Matchers are held against the external labels; if one
// does not match, the answer has no tenant in it.
func (s *tsdbStatus) TSDBStatistics(req *statuspb.TSDBStatisticsRequest, stream grpc.ServerStreamingServer[statuspb.TSDBStatisticsResponse]) error {
	warn := func(text string) error {
		return stream.Send(&statuspb.TSDBStatisticsResponse{Result: &statuspb.TSDBStatisticsResponse_Warning{Warning: text}})
	}
	return answer(stream.Context(), s.send(req, stream), req.GetPartialResponseStrategy(), warn)
}

func (s *tsdbStatus) send(req *statuspb.TSDBStatisticsRequest, stream grpc.ServerStreamingServer[statuspb.TSDBStatisticsResponse]) error {
	matchers, err := wire.DecodeMatchers(req.GetMatchers())
	if err != nil {
		return err
	}
	external, err := s.known.available()
	if err != nil {
		return err
	}
	out := &statuspb.TSDBStatistics{Statistics: map[string]*statuspb.TSDBStatisticsEntry{}}
	if matchAll(matchers, external) {
		found, err := s.prometheus.TSDBStatus(stream.Context(), int(req.GetLimit()))
		if err != nil {
			return err
		}
		out.Statistics[""] = statisticsEntry(found)
	}
	return stream.Send(&statuspb.TSDBStatisticsResponse{Result: &statuspb.TSDBStatisticsResponse_Statistics{Statistics: out}})
}

func matchAll(ms []*labels.Matcher, ls labels.Labels) bool {
	for _, m := range ms {
		if !m.Matches(ls.Get(m.Name)) {
			return false
		}
	}
	return true
}

func statisticsEntry(st *promapi.TSDBStatus) *statuspb.TSDBStatisticsEntry {
	return &statuspb.TSDBStatisticsEntry{
		HeadStatistics: &statuspb.HeadStatistics{
			NumSeries:     st.HeadStats.NumSeries,
			NumLabelPairs: st.HeadStats.NumLabelPairs,
			ChunkCount:    st.HeadStats.ChunkCount,
			MinTime:       st.HeadStats.MinTime,
			MaxTime:       st.HeadStats.MaxTime,
		},
		SeriesCountByMetricName:     statistics(st.SeriesCountByMetricName),
		LabelValueCountByLabelName:  statistics(st.LabelValueCountByLabelName),
		MemoryInBytesByLabelName:    statistics(st.MemoryInBytesByLabelName),
		SeriesCountByLabelValuePair: statistics(st.SeriesCountByLabelValuePair),
	}
}

func statistics(list []promapi.TSDBStat) []*statuspb.Statistic {
	out := make([]*statuspb.Statistic, 0, len(list))
	for _, s := range list {
		out = append(out, &statuspb.Statistic{Name: s.Name, Value: s.Value})
	}
	return out
}
