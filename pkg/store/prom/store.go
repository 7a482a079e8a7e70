// Package prom is a Store over one Prometheus, read through its HTTP API.
//
// Chunks come over remote read and pass through undecoded: a frame is read into a buffer, its checksum is
// verified, and the chunks handed out are parts of that buffer.
//
// # Labels and their order
//
// Prometheus streams series in the order of their stored labels, and merges its external labels into
// them as it sends them; of a stored and an external label with the same name it keeps the stored one.
// A Store promises the order of final labels, in which the external one wins. So what Prometheus merged
// in is taken off again and store.Relabel does the rest. It can do that while series stream if no
// stored label is named like an external or replica label, which the label names of the time range prove:
// they are asked for while the read is on its way (see clash.go).
package prom

import (
	"context"
	"fmt"
	"io"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/store"
)

// Config says how a Store calls itself and what it may use. Zero values mean the defaults.
type Config struct {
	// Name is how warnings and logs call the Store; the address of the Prometheus if empty.
	Name string
	// Budget bounds the memory for series that must be held before they can be handed out: all those of
	// a request for labels only, of a sampled answer, and of a request where a stored label is named
	// like an external or a replica label. Nil is no bound.
	Budget *store.Budget
	// FrameBytesMax is the largest frame accepted, 50 MB if 0. Prometheus makes frames of 1 MB
	// (--storage.remote.read-max-bytes-in-frame) and the rest of a chunk.
	FrameBytesMax int
	// SampledBytesMax is the largest decompressed sampled answer accepted, 256 MB if 0. Only
	// Prometheus before 2.13, and other servers of remote read, answer so.
	SampledBytesMax int
	// Version returns the version of the Prometheus, "" while it is unknown. Before 2.24 the label calls
	// of Prometheus ignore matchers, and series are asked for instead. Nil means a newer one.
	Version func() string
}

const (
	defaultFrameBytesMax   = 50 << 20
	defaultSampledBytesMax = 256 << 20
)

// Store answers from one Prometheus.
type Store struct {
	client    *promapi.Client
	external  func() labels.Labels
	timeRange func() (mint, maxt int64)
	cfg       Config
	logger    log.Logger
	metrics   *metrics
}

// New makes a Store. external returns the external labels of the Prometheus, and timeRange the range in ms,
// both ends inclusive, that is served; they are called once per request and may be called in parallel.
func New(client *promapi.Client, external func() labels.Labels, timeRange func() (mint, maxt int64), cfg Config, logger log.Logger, reg prometheus.Registerer) *Store {
	if cfg.Name == "" {
		cfg.Name = client.URL()
	}
	if cfg.FrameBytesMax <= 0 {
		cfg.FrameBytesMax = defaultFrameBytesMax
	}
	if cfg.SampledBytesMax <= 0 {
		cfg.SampledBytesMax = defaultSampledBytesMax
	}
	return &Store{client: client, external: external, timeRange: timeRange, cfg: cfg, logger: logger, metrics: newMetrics(reg)}
}

// Describe implements store.Store.
func (s *Store) Describe() store.Description {
	d := store.Description{Name: s.cfg.Name, Local: true, Replicas: true}
	d.MinTime, d.MaxTime = s.timeRange()
	if ext := s.external(); !ext.IsEmpty() {
		d.LabelSets = []labels.Labels{ext}
		d.TSDBs = []store.TSDB{{Labels: ext, MinTime: d.MinTime, MaxTime: d.MaxTime}}
	}
	return d
}

// query is a request as far as Prometheus is asked for it.
type query struct {
	external   labels.Labels
	mint, maxt int64             // within the range that is served and that Prometheus's API can express
	matchers   []*labels.Matcher // on stored labels
	drop       []string
	limit      int  // of series, as far as Prometheus can apply it; 0 is none
	abort      bool // rather than leave a chunk out
}

// query prepares a request; ok is false when nothing can match.
func (s *Store) query(mint, maxt int64, ms []*labels.Matcher) (q query, ok bool) {
	q.external = s.external()
	q.matchers, ok = store.MatchExternal(q.external, ms)
	if !ok {
		return q, false
	}
	from, to := s.timeRange()
	q.mint = max(mint, from, promapi.MinTime)
	q.maxt = min(maxt, to, promapi.MaxTime)
	return q, q.mint <= q.maxt
}

// Series implements store.Store.
func (s *Store) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	q, ok := s.query(req.MinTime, req.MaxTime, req.Matchers)
	if len(q.matchers) == 0 && (ok || q.mint > q.maxt) {
		return nil, store.ErrNoMatchers
	}
	if !ok {
		return store.NewSliceCursor(nil), nil
	}
	q.drop, q.abort = req.WithoutReplicaLabels, req.PartialResponse == store.Abort
	if req.Shard == nil {
		q.limit = req.Limit // of those of other shards there may be any number
	}

	var (
		cur store.Cursor
		err error
	)
	if req.SkipChunks {
		cur, err = s.labelsOnly(ctx, q)
	} else {
		cur, err = s.read(ctx, q)
	}
	if err != nil {
		return nil, err
	}
	if sh := req.Shard; sh != nil {
		cur = store.Where(cur, func(sr *store.Series) bool { return sh.Selects(sr.Labels) })
	}
	return store.Limit(cur, req.Limit), nil
}

// read opens a remote read whose cursor is in final order.
func (s *Store) read(ctx context.Context, q query) (store.Cursor, error) {
	a, kind, err := s.ask(ctx, q)
	if err != nil {
		return nil, err
	}
	cur, err := a.cursor(kind)
	if err != nil {
		return nil, err
	}
	return store.Relabel(cur, store.RelabelOptions{External: q.external, Drop: q.drop, MayClash: a.mayClash, Budget: s.cfg.Budget}), nil
}

// readStored opens a remote read whose cursor has labels as they are stored, in no order.
func (s *Store) readStored(ctx context.Context, q query) (store.Cursor, error) {
	a, kind, err := s.ask(ctx, q)
	if err != nil {
		return nil, err
	}
	return a.cursor(kind)
}

// ask sends a remote read and, at the same time, the question whether labels may clash.
func (s *Store) ask(ctx context.Context, q query) (*answer, promapi.ReadKind, error) {
	call, cancel := context.WithCancel(ctx)
	proof := make(chan bool, 1)
	go func() { proof <- s.mayClash(call, q) }()

	resp, err := s.client.Read(call, q.readRequest())
	if err != nil {
		cancel()
		<-proof
		return nil, 0, err
	}
	return &answer{ctx: ctx, cancel: cancel, body: resp.Body, store: s, query: q, mayClash: <-proof}, resp.Kind, nil
}

// answer is what the cursors over an answer to a remote read have in common.
type answer struct {
	ctx      context.Context    // the caller's
	cancel   context.CancelFunc // of the transfer
	body     io.ReadCloser
	store    *Store
	query    query
	mayClash bool
}

func (a *answer) cursor(kind promapi.ReadKind) (store.Cursor, error) {
	if kind == promapi.ReadSampled {
		s, err := newSampled(a)
		if err != nil {
			return nil, err // not s: a nil *sampled is not a nil Cursor
		}
		return s, nil
	}
	return newStreamed(a), nil
}

// close ends the transfer. A body that was not read to its end costs the connection. An error of closing says
// nothing about what was read.
func (a *answer) close() {
	_ = a.body.Close()
	a.cancel()
}

// wrap names the Prometheus in an error of its answer. When the caller has given up, that is the cause.
func (a *answer) wrap(err error) error {
	if a.ctx.Err() != nil {
		return fmt.Errorf("remote read of Prometheus %s: %w", a.store.cfg.Name, context.Cause(a.ctx))
	}
	return store.Errorf(store.KindOf(err), "remote read of Prometheus %s: %w", a.store.cfg.Name, err)
}

func (q *query) readRequest() *prompb.ReadRequest {
	ms := make([]*prompb.LabelMatcher, len(q.matchers))
	for i, m := range q.matchers {
		ms[i] = &prompb.LabelMatcher{Type: matcherTypes[m.Type], Name: m.Name, Value: m.Value}
	}
	return &prompb.ReadRequest{
		Queries:               []*prompb.Query{{StartTimestampMs: q.mint, EndTimestampMs: q.maxt, Matchers: ms}},
		AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES},
	}
}

var matcherTypes = map[labels.MatchType]prompb.LabelMatcher_Type{
	labels.MatchEqual:     prompb.LabelMatcher_EQ,
	labels.MatchNotEqual:  prompb.LabelMatcher_NEQ,
	labels.MatchRegexp:    prompb.LabelMatcher_RE,
	labels.MatchNotRegexp: prompb.LabelMatcher_NRE,
}
