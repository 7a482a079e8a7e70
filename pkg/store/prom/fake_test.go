package prom

import (
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

// fakeProm serves what a Store asks for, from a real TSDB and with Prometheus's own handler of remote read.
// The label calls and the series call follow Prometheus 3.
type fakeProm struct {
	db *tsdb.DB
	// frameBytes is the size at which Prometheus ends a frame.
	frameBytes int
	// sampled makes it an old server that knows no streams.
	sampled bool
	// noLabels makes the label names fail, and hideLabels makes them an empty list.
	noLabels, hideLabels bool
	// read, if set, answers remote reads instead.
	read http.HandlerFunc

	external    labels.Labels
	labelCalls  atomic.Int64
	readCalls   atomic.Int64
	seriesLimit atomic.Value // of the last series call, a string
}

// newFakeProm makes one over the data.
func newFakeProm(t testing.TB, data storetest.Data) *fakeProm {
	t.Helper()
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = math.MaxInt64 / 2
	db, err := tsdb.Open(t.TempDir(), nil, nil, opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	type sample struct {
		storetest.Sample
		labels labels.Labels
	}
	var all []sample
	for _, s := range data.Series {
		for _, smp := range s.Samples {
			all = append(all, sample{smp, s.Labels})
		}
	}
	slices.SortStableFunc(all, func(a, b sample) int { return int(a.T - b.T) })
	app := db.Appender(t.Context())
	for _, s := range all {
		if s.H != nil || s.FH != nil {
			_, err = app.AppendHistogram(0, s.labels, s.T, s.H, s.FH)
		} else {
			_, err = app.Append(0, s.labels, s.T, s.V)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	return &fakeProm{db: db, external: data.External, frameBytes: 1 << 20}
}

// serve starts it.
func (p *fakeProm) serve(t testing.TB) *promapi.Client {
	t.Helper()
	srv := httptest.NewUnstartedServer(p.handler())
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) // Prometheus's handler complains when readers go
	srv.Start()
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return promapi.New(u, srv.Client(), "Koios/test")
}

// store starts it and makes a Store of it.
func (p *fakeProm) store(t testing.TB, cfg Config) *Store {
	t.Helper()
	return New(p.serve(t), func() labels.Labels { return p.external }, func() (int64, int64) { return math.MinInt64, math.MaxInt64 }, cfg, log.NewNopLogger(), prometheus.NewRegistry())
}

func (p *fakeProm) handler() http.Handler {
	cfg := config.Config{GlobalConfig: config.GlobalConfig{ExternalLabels: p.external}}
	read := remote.NewReadHandler(slog.New(slog.DiscardHandler), nil, p.db, func() config.Config { return cfg }, 1e6, 10, p.frameBytes)
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/read", func(w http.ResponseWriter, r *http.Request) {
		p.readCalls.Add(1)
		switch {
		case p.read != nil:
			p.read(w, r)
		case p.sampled:
			p.readSampled(w, r)
		default:
			read.ServeHTTP(w, r)
		}
	})
	mux.HandleFunc("/api/v1/labels", func(w http.ResponseWriter, r *http.Request) {
		p.labelCalls.Add(1)
		if p.noLabels {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		p.answer(w, r, func(q storage.Querier, ms []*labels.Matcher) (any, error) {
			if p.hideLabels {
				return []string{}, nil
			}
			names, _, err := q.LabelNames(r.Context(), nil, ms...)
			return names, err
		})
	})
	mux.HandleFunc("/api/v1/label/{name}/values", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		if strings.HasPrefix(name, "U__") {
			name = model.UnescapeName(name, model.ValueEncodingEscaping)
		}
		p.answer(w, r, func(q storage.Querier, ms []*labels.Matcher) (any, error) {
			values, _, err := q.LabelValues(r.Context(), name, nil, ms...)
			return values, err
		})
	})
	mux.HandleFunc("/api/v1/series", func(w http.ResponseWriter, r *http.Request) {
		p.seriesLimit.Store(r.FormValue("limit"))
		p.answer(w, r, func(q storage.Querier, ms []*labels.Matcher) (any, error) {
			if len(ms) == 0 {
				return nil, errors.New("no match[] parameter provided")
			}
			set := q.Select(r.Context(), false, nil, ms...)
			all := []labels.Labels{}
			for set.Next() {
				all = append(all, set.At().Labels())
			}
			slices.Reverse(all) // no order is promised
			if n, err := strconv.Atoi(r.FormValue("limit")); err == nil && len(all) > n {
				all = all[:n]
			}
			return all, set.Err()
		})
	})
	return mux
}

// readSampled answers as if the request had not offered streams.
func (p *fakeProm) readSampled(w http.ResponseWriter, r *http.Request) {
	req, err := remote.DecodeReadRequest(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	q := req.Queries[0]
	ms, err := remote.FromLabelMatchers(q.Matchers)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	querier, err := p.db.Querier(q.StartTimestampMs, q.EndTimestampMs)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer querier.Close()
	res, _, err := remote.ToQueryResult(querier.Select(r.Context(), false, nil, ms...), 1e6)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeSampled(w, p.external, res)
}

// answer frames what f returns as Prometheus's API does.
func (p *fakeProm) answer(w http.ResponseWriter, r *http.Request, f func(storage.Querier, []*labels.Matcher) (any, error)) {
	data, err := func() (any, error) {
		var ms []*labels.Matcher
		if sel := r.FormValue("match[]"); sel != "" {
			var err error
			if ms, err = parser.ParseMetricSelector(sel); err != nil {
				return nil, err
			}
			if !selective(ms) {
				return nil, errors.New("match[] must contain at least one non-empty matcher")
			}
		}
		q, err := p.db.Querier(formTime(r, "start", promapi.MinTime), formTime(r, "end", promapi.MaxTime))
		if err != nil {
			return nil, err
		}
		defer q.Close()
		return f(q, ms)
	}()
	out := map[string]any{"status": "success", "data": data}
	if n, _ := strconv.Atoi(r.FormValue("limit")); n > 0 {
		out["warnings"] = []string{truncated}
	}
	if err != nil {
		out = map[string]any{"status": "error", "errorType": "bad_data", "error": err.Error()}
		w.WriteHeader(http.StatusBadRequest)
	}
	_ = json.NewEncoder(w).Encode(out)
}

func formTime(r *http.Request, name string, otherwise int64) int64 {
	s, err := strconv.ParseFloat(r.FormValue(name), 64)
	if err != nil {
		return otherwise
	}
	return int64(math.Round(s * 1000))
}
