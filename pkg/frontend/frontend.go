package frontend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/koios-metrics/koios/pkg/tenancy"
)

// Frontend is an http.Handler that answers as the queriers below would. It may be called in parallel.
type Frontend struct {
	cfg     Config
	logger  log.Logger
	metrics *metrics
	down    *downstream
	ranges  rangeHandler
	kept    *metadataCache
	proxy   *httputil.ReverseProxy
}

// New makes a frontend. The error names what is wrong with the configuration.
func New(cfg Config, logger log.Logger, reg prometheus.Registerer) (*Frontend, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	f := &Frontend{cfg: cfg, logger: logger, metrics: newMetrics(reg)}
	f.down = &downstream{
		url: cfg.Downstream, client: &http.Client{Transport: cfg.Transport}, bytesMax: cfg.AnswerBytesMax,
		queue: newQueue(cfg.Queue, f.metrics), metrics: f.metrics, forceStats: cfg.ForceStats,
	}
	m := cfg.Metadata
	f.kept = &metadataCache{cache: m.Cache, freshness: m.Freshness, ttl: m.TTL, compress: m.Compress, now: cfg.Now, logger: logger, metrics: f.metrics}
	f.ranges = f.rangeChain()
	f.proxy = &httputil.ReverseProxy{
		Rewrite:       f.rewrite,
		Transport:     cfg.Transport,
		FlushInterval: -1, // as it comes
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, err error) { f.writeError(w, err) },
	}
	return f, nil
}

// rangeChain builds the chain of range queries from its end.
func (f *Frontend) rangeChain() rangeHandler {
	c := f.cfg.Range
	h := retry(c.Attempts, f.metrics, f.down)
	if c.Cache != nil {
		h = &results{
			cache: c.Cache, freshness: c.Freshness, interval: c.Split.interval, ttl: c.TTL, compress: c.Compress,
			parallel: c.Split.Parallel, now: f.cfg.Now, next: h, logger: f.logger, metrics: f.metrics,
		}
	}
	if f.cfg.Shards > 1 {
		h = &sharder{shards: f.cfg.Shards, parallel: c.Split.Parallel, next: h, metrics: f.metrics}
	}
	h = &splitter{cfg: c.Split, parse: f.cfg.Parse, next: h, metrics: f.metrics}
	if c.Downsampled {
		h = &downsampled{next: h, metrics: f.metrics}
	}
	if c.Align {
		h = align(h)
	}
	return h
}

// formBytesMax bounds the body of a request.
const formBytesMax = 10 << 20

// ServeHTTP implements http.Handler.
func (f *Frontend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	stats := &queryStats{begin: time.Now()}
	defer func() { f.slow(w, r, stats, time.Since(stats.begin)) }()
	op, serve := f.handler(r)
	if serve == nil {
		f.proxy.ServeHTTP(w, r)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, formBytesMax)
	if err := r.ParseForm(); err != nil {
		f.writeError(w, err)
		return
	}
	c, err := f.callOf(r)
	if err != nil {
		f.writeError(w, &badRequestError{err})
		return
	}
	c.stats = stats
	f.metrics.request(op, c.org)
	defer func() { f.metrics.seconds.WithLabelValues(c.org).Add(time.Since(stats.begin).Seconds()) }()
	serve(w, r, c)
}

// handler returns what serves a request and the name of what is asked; nil passes it through.
func (f *Frontend) handler(r *http.Request) (op string, serve func(http.ResponseWriter, *http.Request, call)) {
	get, post := r.Method == http.MethodGet, r.Method == http.MethodPost
	_, name, _ := strings.Cut(r.URL.Path, "/api/v1/")
	switch {
	case !get && !post:
	case name == "query_range":
		return opRange, f.serveRange
	case name == "query":
		return opInstant, f.serveInstant
	case name == "labels":
		return opLabelNames, f.serveMetadata
	case name == "series":
		return opSeries, f.serveMetadata
	case get && strings.HasPrefix(name, "label/") && strings.HasSuffix(name, "/values"):
		return opLabelValues, f.serveMetadata
	}
	return "", nil
}

func (f *Frontend) serveRange(w http.ResponseWriter, r *http.Request, c call) {
	form := r.Form
	if form.Get("partial_response") == "" {
		form.Set("partial_response", fmt.Sprint(f.cfg.Range.PartialResponse))
	}
	q, err := parseRange(c, form, f.cfg.Parse)
	if err != nil {
		// The querier says what is wrong with it, or knows more than we do.
		f.pass(w, r, &c, form)
		return
	}
	if limit := f.cfg.Range.LengthMax; limit > 0 && q.end-q.start > limit {
		f.writeError(w, &badRequestError{fmt.Errorf("the range is %d s long, %d s are allowed (--query-range.max-query-length)", (q.end-q.start)/1000, limit/1000)})
		return
	}
	a, err := f.ranges.do(r.Context(), q)
	f.metrics.observeRange(c.stats, err)
	if err != nil {
		f.writeError(w, err)
		return
	}
	for name, vs := range a.header {
		if name != "Content-Length" && name != "Content-Encoding" && name != "Date" && name != "Connection" && name != "Transfer-Encoding" {
			w.Header()[name] = vs
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if a.noStore {
		w.Header().Set("Cache-Control", "no-store")
	}
	w.Header().Set("Content-Length", strconv.FormatInt(a.EncodedBytes(), 10))
	c.stats.tell(w)
	if err := a.Encode(w); err != nil {
		level.Debug(f.logger).Log("msg", "client went before the end of its answer", "err", err)
	}
}

// serveMetadata answers a request for labels, label values or series.
func (f *Frontend) serveMetadata(w http.ResponseWriter, r *http.Request, c call) {
	form := r.Form
	if form.Get("partial_response") == "" {
		form.Set("partial_response", fmt.Sprint(f.cfg.Metadata.PartialResponse))
	}
	q, err := parseMetadata(c, form, &f.cfg.Metadata, f.cfg.Now().UnixMilli())
	if err != nil {
		leave, err := f.down.queue.enter(r.Context(), c.tenant)
		if err != nil {
			f.writeError(w, err)
			return
		}
		defer leave()
		f.proxy.ServeHTTP(w, withForm(r, form))
		return
	}
	a, err := f.metadata(r.Context(), q)
	var body []byte
	if err == nil {
		body, err = a.envelope(q.series)
	}
	if err != nil {
		f.writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if a.noStore {
		w.Header().Set("Cache-Control", "no-store")
	}
	_, _ = w.Write(body)
}

// withForm is a request with its parameters back where they came from.
func withForm(r *http.Request, form url.Values) *http.Request {
	out := r.Clone(r.Context())
	if r.Method == http.MethodGet {
		out.URL.RawQuery, out.Body = form.Encode(), http.NoBody
		return out
	}
	body := form.Encode()
	out.URL.RawQuery = ""
	out.Body, out.ContentLength = readCloser(body), int64(len(body))
	return out
}

// callOf reads what every request has.
func (f *Frontend) callOf(r *http.Request) (call, error) {
	tenant, err := f.cfg.Tenancy.FromRequest(r)
	if err != nil {
		return call{}, err
	}
	c := call{path: r.URL.Path, tenant: tenant, org: "anonymous", header: http.Header{}, noCache: noStore(r.Header)}
	for _, name := range slices.Concat(f.cfg.OrgHeaders, []string{f.cfg.Tenancy.Header, tenancy.DefaultHeader}) {
		if v := r.Header.Get(name); name != "" && v != "" {
			c.org = v
			break
		}
	}
	c.requestID = r.Header.Get(requestIDHeader)
	for _, name := range f.cfg.ForwardHeaders {
		if vs := r.Header.Values(name); len(vs) > 0 {
			c.header[http.CanonicalHeaderKey(name)] = vs
		}
	}
	return c, nil
}

// pass sends a form on as it came, and its answer back.
func (f *Frontend) pass(w http.ResponseWriter, r *http.Request, c *call, form url.Values) {
	out := r.Clone(r.Context())
	out.Method = http.MethodPost
	body := form.Encode()
	out.Header = http.Header{}
	for _, name := range []string{"Accept", "Accept-Encoding"} {
		if vs := r.Header.Values(name); len(vs) > 0 {
			out.Header[name] = vs
		}
	}
	c.head(out.Header)
	out.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	out.URL.RawQuery = ""
	out.Body, out.ContentLength = readCloser(body), int64(len(body))
	leave, err := f.down.queue.enter(r.Context(), c.tenant)
	if err != nil {
		f.writeError(w, err)
		return
	}
	defer leave()
	f.proxy.ServeHTTP(w, out)
}

// rewrite aims a request at the queriers.
func (f *Frontend) rewrite(p *httputil.ProxyRequest) {
	u := f.down.target(p.In.URL.Path)
	u.RawQuery = p.In.URL.RawQuery
	p.Out.URL = u
	p.Out.Host = ""
	if tenant, err := f.cfg.Tenancy.FromRequest(p.In); err == nil {
		p.Out.Header.Set(tenancy.DefaultHeader, tenant)
	}
	p.SetXForwarded()
}

// Ready tells whether the queriers can be asked: they answer their readiness page with neither 4xx nor 5xx.
func (f *Frontend) Ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.down.target("/-/ready").String(), nil)
	if err != nil {
		return err
	}
	resp, err := f.down.client.Do(req)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 400 {
		err = fmt.Errorf("%s answers %s", req.URL, resp.Status)
	}
	return errors.Join(err, resp.Body.Close())
}
