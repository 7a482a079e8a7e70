// Package server offers any Store over gRPC: it is the serving end of the StoreAPI and of the Info
// service that describes the Store to its callers.
//
// A Server translates and counts, and holds nothing: series are pulled from the Store one by one and
// encoded straight into the buffer that gRPC sends, so the memory of a request is one frame, and a slow
// reader slows the Store down rather than filling a queue.
package server

import (
	"context"
	"errors"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/wire"
	"github.com/koios-metrics/koios/proto/storepb"
)

// Config bounds what one Series request may be sent. 0 is no bound.
type Config struct {
	// SeriesLimit is the largest number of series.
	SeriesLimit uint64
	// SamplesLimit is the largest number of samples, each chunk counted as 120 of them.
	SamplesLimit uint64
	// Matchers keeps compiled matchers from one request to the next; nil keeps none.
	Matchers *wire.MatcherCache
}

// samplesPerChunk is how many samples a chunk counts for: as many as Prometheus cuts chunks at.
const samplesPerChunk = 120

// Server is the StoreAPI over a Store. It may serve any number of requests in parallel.
type Server struct {
	storepb.UnimplementedStoreServer

	store   store.Store
	config  Config
	logger  log.Logger
	metrics *metrics
}

var _ storepb.StoreServer = (*Server)(nil)

// New makes a Server of a Store.
func New(st store.Store, config Config, logger log.Logger, reg prometheus.Registerer) *Server {
	if logger == nil {
		logger = log.NewNopLogger()
	}
	return &Server{store: st, config: config, logger: logger, metrics: newMetrics(reg)}
}

func (s *Server) decoder() wire.Decoder { return wire.Decoder{Compiled: s.config.Matchers} }

// Series implements storepb.StoreServer. An error after some frames means that those frames are right,
// and that there is more.
func (s *Server) Series(m *storepb.SeriesRequest, stream storepb.Store_SeriesServer) error {
	s.metrics.pending.Inc()
	defer s.metrics.pending.Dec()

	req, err := s.decoder().SeriesRequest(m)
	if err != nil {
		return wire.Status(err)
	}
	cur, err := s.store.Series(stream.Context(), req)
	if err != nil {
		return wire.Status(err)
	}
	defer func() {
		if err := cur.Close(); err != nil {
			level.Warn(s.logger).Log("msg", "close a cursor", "store", s.store.Describe().Name, "err", err)
		}
	}()
	return wire.Status(s.send(cur, req, stream))
}

// send moves everything from the cursor to the stream.
func (s *Server) send(cur store.Cursor, req *store.SeriesRequest, stream storepb.Store_SeriesServer) error {
	q := quota{config: s.config, dropped: s.metrics.dropped}
	defer func() {
		s.metrics.series.Observe(float64(q.series))
		s.metrics.chunks.Observe(float64(q.chunks))
	}()
	out := newSender(stream, req.BatchSize)
	defer out.free()
	warn := warner{out: out, abort: req.PartialResponse == store.Abort}

	for first := true; cur.Next(); first = false {
		if first {
			// A peer that counts frames against its limit must see what was missing from the start.
			if err := warn.send(cur.Warnings()); err != nil {
				return err
			}
		}
		series := cur.At()
		if err := q.take(series); err != nil {
			return err
		}
		if err := out.series(series); err != nil {
			return err
		}
	}
	if err := cur.Err(); err != nil {
		return err
	}
	if err := out.flush(); err != nil {
		return err
	}
	return warn.send(cur.Warnings())
}

// warner sends each warning once. Infos go to those only who can stand warnings: a peer that wants all or
// nothing takes every frame of this kind for a failure.
type warner struct {
	out   *sender
	abort bool
	sent  map[string]bool
}

func (w *warner) send(warnings store.Warnings) error {
	for _, warning := range warnings {
		if err := refuseGap(warning, w.abort); err != nil {
			return err
		}
		text := warning.Error()
		if w.sent[text] || w.abort && store.IsInfo(warning) {
			continue
		}
		if w.sent == nil {
			w.sent = map[string]bool{}
		}
		w.sent[text] = true
		if err := w.out.warning(text); err != nil {
			return err
		}
	}
	return nil
}

// refuseGap makes an error of a hole in the answer when the request said not to answer with holes.
func refuseGap(warning error, abort bool) error {
	var gap *store.Gap
	if abort && errors.As(warning, &gap) {
		return store.Errorf(store.KindAborted, "%w", warning)
	}
	return nil
}

// LabelNames implements storepb.StoreServer.
func (s *Server) LabelNames(ctx context.Context, m *storepb.LabelNamesRequest) (*storepb.LabelNamesResponse, error) {
	req, err := s.decoder().LabelNamesRequest(m)
	if err != nil {
		return nil, wire.Status(err)
	}
	names, warnings, err := s.store.LabelNames(ctx, req)
	if err := answered(warnings, err, req.PartialResponse); err != nil {
		return nil, wire.Status(err)
	}
	return &storepb.LabelNamesResponse{Names: valid(names), Warnings: valid(sendable(warnings, req.PartialResponse).Strings())}, nil
}

// LabelValues implements storepb.StoreServer.
func (s *Server) LabelValues(ctx context.Context, m *storepb.LabelValuesRequest) (*storepb.LabelValuesResponse, error) {
	req, err := s.decoder().LabelValuesRequest(m)
	if err != nil {
		return nil, wire.Status(err)
	}
	values, warnings, err := s.store.LabelValues(ctx, req)
	if err := answered(warnings, err, req.PartialResponse); err != nil {
		return nil, wire.Status(err)
	}
	return &storepb.LabelValuesResponse{Values: valid(values), Warnings: valid(sendable(warnings, req.PartialResponse).Strings())}, nil
}

// sendable leaves out what would fail a request that wants all or nothing.
func sendable(ws store.Warnings, p store.PartialResponse) store.Warnings {
	if p == store.Abort {
		return ws.Doubts()
	}
	return ws
}

// answered returns the error of an answer, be it a hole that the request does not want.
func answered(warnings store.Warnings, err error, p store.PartialResponse) error {
	if err != nil {
		return err
	}
	for _, w := range warnings {
		if err := refuseGap(w, p == store.Abort); err != nil {
			return err
		}
	}
	return nil
}
