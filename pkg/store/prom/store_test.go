package prom

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/go-kit/log"
	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

func writeSampled(w http.ResponseWriter, external labels.Labels, res *prompb.QueryResult) {
	for _, ts := range res.Timeseries {
		b := labels.NewBuilder(labels.EmptyLabels())
		external.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		for _, l := range ts.Labels { // stored ones win
			b.Set(l.Name, l.Value)
		}
		ts.Labels = prompb.FromLabels(b.Labels(), nil)
	}
	msg, _ := (&prompb.ReadResponse{Results: []*prompb.QueryResult{res}}).Marshal()
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.Header().Set("Content-Encoding", "snappy")
	_, _ = w.Write(snappy.Encode(nil, msg))
}

// The suite of every Store, over streams as Prometheus sends them.
func TestStore(t *testing.T) {
	storetest.Run(t, func(t testing.TB, data storetest.Data) store.Store {
		return newFakeProm(t, data).store(t, Config{})
	})
}

// The suite of every Store, with one chunk a frame, so that all longer series come in several.
func TestStoreWithSmallFrames(t *testing.T) {
	storetest.Run(t, func(t testing.TB, data storetest.Data) store.Store {
		p := newFakeProm(t, data)
		p.frameBytes = 1
		return p.store(t, Config{})
	})
}

// The suite of every Store, over sampled answers as old servers send them.
func TestStoreOverSampledAnswers(t *testing.T) {
	storetest.Run(t, func(t testing.TB, data storetest.Data) store.Store {
		p := newFakeProm(t, data)
		p.sampled = true
		return p.store(t, Config{})
	})
}

// The suite of every Store, when Prometheus does not tell its label names, so that nothing is proven about
// clashing labels, and is older than 2.24, so that label calls go through series.
func TestStoreWithoutLabelNames(t *testing.T) {
	storetest.Run(t, func(t testing.TB, data storetest.Data) store.Store {
		p := newFakeProm(t, data)
		return p.store(t, Config{Version: func() string { return "2.23.0" }})
	})
	p := newFakeProm(t, storetest.Common())
	p.noLabels = true
	cur, err := p.store(t, Config{}).Series(t.Context(), everything())
	if err != nil {
		t.Fatal(err)
	}
	all, _, err := store.Drain(cur)
	if err != nil || len(all) != len(storetest.Common().Series) {
		t.Errorf("%d series, %v", len(all), err)
	}
}

func everything() *store.SeriesRequest {
	return &store.SeriesRequest{MinTime: math.MinInt64, MaxTime: math.MaxInt64, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotEqual, "__name__", "")}}
}

var (
	_ = context.Background
	_ = errors.New
	_ = httptest.NewServer
	_ url.URL
	_ = strings.Contains
	_ = log.NewNopLogger
	_ prometheus.Registerer
	_ = testutil.ToFloat64
	_ = promapi.New
)
