package standalone

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/go-kit/log"
	"github.com/klauspost/compress/gzhttp"

	"github.com/koios-metrics/koios/pkg/cache"
	"github.com/koios-metrics/koios/pkg/frontend"
)

// What stands before the querier has the query frontend's defaults.
const (
	splitInterval = 24 * time.Hour
	splitParallel = 14
	freshness     = time.Minute
)

// frontend is what stands before the querier's handlers: range queries are split by days and their parts kept in memory;
// everything else passes as it is.
func (s *Standalone) frontend(below http.Handler) (http.Handler, error) {
	logger := log.With(s.logger, "component", "query-frontend")
	cfg := frontend.Config{
		Downstream: &url.URL{Scheme: "http", Host: "querier"},
		Transport:  frontend.InProcess{Handler: below},
		Range: frontend.RangeConfig{
			// Ranges are not aligned: what is asked is answered, as a Prometheus would.
			Split:           frontend.SplitConfig{Interval: splitInterval.Milliseconds(), Parallel: splitParallel},
			PartialResponse: true,
			// Samples out of order come as late as the database takes them.
			Freshness: freshness + time.Duration(outOfOrder(s.first))*time.Millisecond,
		},
		Metadata: frontend.MetadataConfig{PartialResponse: true},
	}
	if s.cfg.AnswerBytesMax > 0 {
		kept := frontend.CacheConfig{Backend: cache.Backend{Type: cache.InMemory, Memory: cache.MemoryConfig{BytesMax: cache.Bytes(s.cfg.AnswerBytesMax)}}}
		var err error
		if s.answers, err = kept.Open(context.Background(), "query_range", logger, s.reg); err != nil {
			return nil, err
		}
		cfg.Range.Cache = s.answers
	}
	f, err := frontend.New(cfg, logger, s.reg)
	if err != nil {
		return nil, fmt.Errorf("make the query frontend: %w", err)
	}
	var h http.Handler = f
	if !s.cfg.API.DisableCORS {
		h = frontend.WithCORS(h)
	}
	gzip, err := gzhttp.NewWrapper(gzhttp.MinSize(1024))
	if err != nil {
		return nil, fmt.Errorf("set up compression of answers: %w", err)
	}
	return gzip(h), nil
}
