package standalone

import (
	"fmt"
	"net/http"
	"time"

	"github.com/go-kit/log"
	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/pkg/endpoint"
	"github.com/koios-metrics/koios/pkg/query"
	"github.com/koios-metrics/koios/pkg/query/api"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/server"
	"github.com/koios-metrics/koios/proto/infopb"
	"github.com/koios-metrics/koios/proto/storepb"
)

// componentType is how a querier above sees this process: like a sidecar it has both old and new data of
// one place.
const componentType = "sidecar"

// serveQueries makes the querier over the Store and adds its handlers, the page at the root and the reload
// of the scrape file to the HTTP server.
func (s *Standalone) serveQueries(st store.Store) error {
	logger := log.With(s.logger, "component", "query")
	var err error
	if s.querier, err = query.New(st, s.queryConfig(), logger, s.reg); err != nil {
		return err
	}
	a, err := api.New(s.querier, s.apiConfig(), logger, s.reg)
	if err != nil {
		return err
	}
	// Nothing but the frontend reaches the API.
	below := http.NewServeMux()
	a.Register(below, "", s.http.Wrap)
	front, err := s.frontend(below)
	if err != nil {
		return err
	}
	s.http.Handle("/api/v1/", s.http.Wrap("query-frontend", front))
	s.http.Handle("GET /{$}", http.HandlerFunc(root))
	s.http.Handle("POST /-/reload", http.HandlerFunc(s.reload))
	s.http.Handle("PUT /-/reload", http.HandlerFunc(s.reload))
	return nil
}

func (s *Standalone) queryConfig() query.Config {
	c := s.cfg.Query
	c.ChunkBytesMax = s.cfg.MemoryBytesMax
	return c
}

func (s *Standalone) apiConfig() api.Config {
	c := s.cfg.API
	c.PartialResponse = true
	c.Stores = s.statuses
	c.Status.Started = time.Now()
	return c
}

// statuses lists the database and the bucket as a querier lists its endpoints.
func (s *Standalone) statuses() []endpoint.Status {
	var all []endpoint.Status
	for i, st := range *s.stores.Load() {
		d := st.Describe()
		status := endpoint.Status{Name: d.Name, Component: endpoint.Sidecar, LastCheck: time.Now(), LabelSets: d.LabelSets, MinTime: d.MinTime, MaxTime: d.MaxTime}
		if i > 0 {
			status.Component = endpoint.Gateway
		}
		if _, ok := st.(pending); ok {
			status.LastError = errPending
		}
		all = append(all, status)
	}
	return all
}

// storeAPI are the gRPC services: what a querier elsewhere needs to have this process among its endpoints.
func (s *Standalone) storeAPI(st store.Store) []func(*grpc.Server) {
	info := server.NewInfo(func() (*infopb.InfoResponse, error) {
		if !s.probe.IsReady() {
			return nil, fmt.Errorf("standalone is not ready yet")
		}
		return server.InfoOf(componentType, st.Describe()), nil
	})
	stores := server.New(st, server.Config{}, log.With(s.logger, "component", "storeapi"), s.reg)
	return []func(*grpc.Server){func(g *grpc.Server) {
		storepb.RegisterStoreServer(g, stores)
		infopb.RegisterInfoServer(g, info)
	}}
}
