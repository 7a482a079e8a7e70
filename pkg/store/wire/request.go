package wire

import (
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/proto/hintspb"
	"github.com/koios-metrics/koios/proto/storepb"
)

// EncodeSeriesRequest turns a request into a message. Store matchers do not travel: they are for the
// fan-out that chose the peer.
func EncodeSeriesRequest(r *store.SeriesRequest) (*storepb.SeriesRequest, error) {
	hints, err := encodeHints(r.BlockMatchers, func(ms []*storepb.LabelMatcher) proto.Message {
		return &hintspb.SeriesRequestHints{BlockMatchers: ms}
	})
	if err != nil {
		return nil, err
	}
	m := &storepb.SeriesRequest{
		MinTime:                 r.MinTime,
		MaxTime:                 r.MaxTime,
		Matchers:                EncodeMatchers(r.Matchers),
		MaxResolutionWindow:     r.MaxResolution,
		PartialResponseDisabled: r.PartialResponse == store.Abort,
		PartialResponseStrategy: encodePartialResponse(r.PartialResponse),
		SkipChunks:              r.SkipChunks,
		Hints:                   hints,
		QueryHints:              encodeQueryHints(r.Hints),
		WithoutReplicaLabels:    r.WithoutReplicaLabels,
		Limit:                   int64(r.Limit),
		ResponseBatchSize:       int64(r.BatchSize),
	}
	for _, a := range r.Aggregates {
		m.Aggregates = append(m.Aggregates, storepb.Aggr(a))
	}
	if r.Shard != nil {
		m.ShardInfo = &storepb.ShardInfo{ShardIndex: r.Shard.Index, TotalShards: r.Shard.Total, By: r.Shard.By, Labels: r.Shard.Labels}
	}
	return m, nil
}

// DecodeSeriesRequest turns a message into a request. Its errors are of KindBadRequest.
func DecodeSeriesRequest(m *storepb.SeriesRequest) (*store.SeriesRequest, error) {
	return Decoder{}.SeriesRequest(m)
}

// SeriesRequest is DecodeSeriesRequest.
func (d Decoder) SeriesRequest(m *storepb.SeriesRequest) (*store.SeriesRequest, error) {
	r := &store.SeriesRequest{
		MinTime:              m.GetMinTime(),
		MaxTime:              m.GetMaxTime(),
		MaxResolution:        max(m.GetMaxResolutionWindow(), 0),
		SkipChunks:           m.GetSkipChunks(),
		WithoutReplicaLabels: m.GetWithoutReplicaLabels(),
		Limit:                decodeCount(m.GetLimit()),
		PartialResponse:      decodePartialResponse(m.GetPartialResponseStrategy(), m.GetPartialResponseDisabled()),
		BatchSize:            decodeCount(m.GetResponseBatchSize()),
		Hints:                decodeQueryHints(m.GetQueryHints()),
	}
	if err := checkTimes(r.MinTime, r.MaxTime); err != nil {
		return nil, err
	}
	var err error
	if r.Matchers, err = d.matchers(m.GetMatchers()); err != nil {
		return nil, err
	}
	if r.BlockMatchers, err = decodeHints(m.GetHints(), &hintspb.SeriesRequestHints{}); err != nil {
		return nil, err
	}
	for _, a := range m.GetAggregates() {
		if a < storepb.Aggr_RAW || a > storepb.Aggr_COUNTER {
			return nil, store.Errorf(store.KindBadRequest, "unknown aggregate %d", a)
		}
		r.Aggregates = append(r.Aggregates, store.Aggr(a))
	}
	if s := m.GetShardInfo(); s.GetTotalShards() >= 1 {
		if s.GetShardIndex() < 0 || s.GetShardIndex() >= s.GetTotalShards() {
			return nil, store.Errorf(store.KindBadRequest, "shard %d of %d: shards count from 0", s.GetShardIndex(), s.GetTotalShards())
		}
		r.Shard = &store.Shard{Index: s.GetShardIndex(), Total: s.GetTotalShards(), By: s.GetBy(), Labels: s.GetLabels()}
	}
	return r, nil
}

// EncodeLabelNamesRequest turns a request into a message, see EncodeSeriesRequest.
func EncodeLabelNamesRequest(r *store.LabelNamesRequest) (*storepb.LabelNamesRequest, error) {
	hints, err := encodeHints(r.BlockMatchers, func(ms []*storepb.LabelMatcher) proto.Message {
		return &hintspb.LabelNamesRequestHints{BlockMatchers: ms}
	})
	if err != nil {
		return nil, err
	}
	return &storepb.LabelNamesRequest{
		PartialResponseDisabled: r.PartialResponse == store.Abort,
		PartialResponseStrategy: encodePartialResponse(r.PartialResponse),
		Start:                   r.MinTime,
		End:                     r.MaxTime,
		Hints:                   hints,
		Matchers:                EncodeMatchers(r.Matchers),
		WithoutReplicaLabels:    r.WithoutReplicaLabels,
		Limit:                   int64(r.Limit),
	}, nil
}

// DecodeLabelNamesRequest turns a message into a request. Its errors are of KindBadRequest.
func DecodeLabelNamesRequest(m *storepb.LabelNamesRequest) (*store.LabelNamesRequest, error) {
	return Decoder{}.LabelNamesRequest(m)
}

// LabelNamesRequest is DecodeLabelNamesRequest.
func (d Decoder) LabelNamesRequest(m *storepb.LabelNamesRequest) (*store.LabelNamesRequest, error) {
	r := &store.LabelNamesRequest{
		MinTime:              m.GetStart(),
		MaxTime:              m.GetEnd(),
		WithoutReplicaLabels: m.GetWithoutReplicaLabels(),
		Limit:                decodeCount(m.GetLimit()),
		PartialResponse:      decodePartialResponse(m.GetPartialResponseStrategy(), m.GetPartialResponseDisabled()),
	}
	if err := checkTimes(r.MinTime, r.MaxTime); err != nil {
		return nil, err
	}
	var err error
	if r.Matchers, err = d.matchers(m.GetMatchers()); err != nil {
		return nil, err
	}
	if r.BlockMatchers, err = decodeHints(m.GetHints(), &hintspb.LabelNamesRequestHints{}); err != nil {
		return nil, err
	}
	return r, nil
}

// EncodeLabelValuesRequest turns a request into a message, see EncodeSeriesRequest.
func EncodeLabelValuesRequest(r *store.LabelValuesRequest) (*storepb.LabelValuesRequest, error) {
	hints, err := encodeHints(r.BlockMatchers, func(ms []*storepb.LabelMatcher) proto.Message {
		return &hintspb.LabelValuesRequestHints{BlockMatchers: ms}
	})
	if err != nil {
		return nil, err
	}
	return &storepb.LabelValuesRequest{
		Label:                   r.Label,
		PartialResponseDisabled: r.PartialResponse == store.Abort,
		PartialResponseStrategy: encodePartialResponse(r.PartialResponse),
		Start:                   r.MinTime,
		End:                     r.MaxTime,
		Hints:                   hints,
		Matchers:                EncodeMatchers(r.Matchers),
		WithoutReplicaLabels:    r.WithoutReplicaLabels,
		Limit:                   int64(r.Limit),
	}, nil
}

// DecodeLabelValuesRequest turns a message into a request. Its errors are of KindBadRequest.
func DecodeLabelValuesRequest(m *storepb.LabelValuesRequest) (*store.LabelValuesRequest, error) {
	return Decoder{}.LabelValuesRequest(m)
}

// LabelValuesRequest is DecodeLabelValuesRequest.
func (d Decoder) LabelValuesRequest(m *storepb.LabelValuesRequest) (*store.LabelValuesRequest, error) {
	r := &store.LabelValuesRequest{
		Label:                m.GetLabel(),
		MinTime:              m.GetStart(),
		MaxTime:              m.GetEnd(),
		WithoutReplicaLabels: m.GetWithoutReplicaLabels(),
		Limit:                decodeCount(m.GetLimit()),
		PartialResponse:      decodePartialResponse(m.GetPartialResponseStrategy(), m.GetPartialResponseDisabled()),
	}
	if r.Label == "" {
		return nil, store.Errorf(store.KindBadRequest, "label name is empty")
	}
	if err := checkTimes(r.MinTime, r.MaxTime); err != nil {
		return nil, err
	}
	var err error
	if r.Matchers, err = d.matchers(m.GetMatchers()); err != nil {
		return nil, err
	}
	if r.BlockMatchers, err = decodeHints(m.GetHints(), &hintspb.LabelValuesRequestHints{}); err != nil {
		return nil, err
	}
	return r, nil
}

func checkTimes(mint, maxt int64) error {
	if mint > maxt {
		return store.Errorf(store.KindBadRequest, "the time range starts at %s (%d), after its end at %s (%d)", store.FormatTime(mint), mint, store.FormatTime(maxt), maxt)
	}
	return nil
}

// decodeCount reads a limit: below 0 is like 0, and more than fits is the most that fits.
func decodeCount(n int64) int { return int(min(max(n, 0), math.MaxInt)) }

func encodePartialResponse(p store.PartialResponse) storepb.PartialResponseStrategy {
	if p == store.Abort {
		return storepb.PartialResponseStrategy_ABORT
	}
	return storepb.PartialResponseStrategy_WARN
}

func decodePartialResponse(s storepb.PartialResponseStrategy, disabled bool) store.PartialResponse {
	if disabled || s == storepb.PartialResponseStrategy_ABORT {
		return store.Abort
	}
	return store.Warn
}

func encodeQueryHints(h *store.Hints) *storepb.QueryHints {
	if h == nil {
		return nil
	}
	m := &storepb.QueryHints{
		StepMillis:          h.StepMillis,
		ProjectionLabels:    h.ProjectionLabels,
		ProjectionInclude:   h.ProjectionInclude,
		SeriesHashLabelName: h.SeriesHashLabelName,
	}
	if h.Func != "" {
		m.Func = &storepb.Func{Name: h.Func}
	}
	if h.By || len(h.Grouping) > 0 {
		m.Grouping = &storepb.Grouping{By: h.By, Labels: h.Grouping}
	}
	if h.RangeMillis != 0 {
		m.Range = &storepb.Range{Millis: h.RangeMillis}
	}
	return m
}

func decodeQueryHints(m *storepb.QueryHints) *store.Hints {
	if m == nil {
		return nil
	}
	return &store.Hints{
		StepMillis:          m.GetStepMillis(),
		RangeMillis:         m.GetRange().GetMillis(),
		Func:                m.GetFunc().GetName(),
		By:                  m.GetGrouping().GetBy(),
		Grouping:            m.GetGrouping().GetLabels(),
		ProjectionLabels:    m.GetProjectionLabels(),
		ProjectionInclude:   m.GetProjectionInclude(),
		SeriesHashLabelName: m.GetSeriesHashLabelName(),
	}
}
