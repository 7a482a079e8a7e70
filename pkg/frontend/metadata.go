package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"

	"github.com/koios-metrics/koios/pkg/cache"
	"github.com/koios-metrics/koios/pkg/frontend/matrix"
)

// MetadataConfig says what is done to requests for labels, label values and series.
type MetadataConfig struct {
	// RangeMs is how far back a request without a start looks, in ms; with 0 such a request goes down as it is.
	RangeMs int64
	// SplitMs is how long the parts are that a request is split into, in ms; 0 splits nothing.
	SplitMs int64
	// Parallel is how many parts of one request are asked at a time, Attempts how often each at most.
	Parallel, Attempts int
	// PartialResponse is for requests that don't say.
	PartialResponse bool
	// Cache keeps answers; nil keeps none. What is about time later than Freshness ago is not kept, and nothing for longer
	// than TTL (0: as long as there is room). Compress makes entries smaller.
	Cache     cache.Cache
	Freshness time.Duration
	TTL       time.Duration
	Compress  bool
}

// metadataQuery is a request for labels, label values or series.
type metadataQuery struct {
	call
	series     bool
	start, end int64 // ms, both inclusive
	limit      int   // 0 is none
}

// The parameters of metadata requests. Others make a request pass untouched.
var (
	metadataApart  = []string{"start", "end", "limit"}
	metadataKnown  = []string{"match[]", "dedup", "partial_response", "replicaLabels[]", "storeMatch[]"}
	errNotMetadata = errors.New("the querier's answer is not a list")
)

// parseMetadata reads a request for labels, label values or series. An error means that it has to go down as it is.
func parseMetadata(c call, form url.Values, cfg *MetadataConfig, now int64) (*metadataQuery, error) {
	rest, err := known(form, metadataApart, metadataKnown)
	if err != nil {
		return nil, err
	}
	q := &metadataQuery{call: c, series: strings.HasSuffix(c.path, "/series"), end: now, start: math.MinInt64}
	q.form = rest
	for name, to := range map[string]*int64{"start": &q.start, "end": &q.end} {
		if s := form.Get(name); s != "" {
			if *to, err = parseTime(s); err != nil {
				return nil, fmt.Errorf("parameter %q: %w", name, err)
			}
		}
	}
	if q.start == math.MinInt64 {
		if cfg.RangeMs <= 0 {
			return nil, errMissing
		}
		q.start = q.end - cfg.RangeMs
	}
	if s := form.Get("limit"); s != "" {
		if q.limit, err = strconv.Atoi(s); err != nil || q.limit < 0 {
			return nil, errors.New("the querier refuses this limit")
		}
	}
	if q.end < q.start {
		return nil, errors.New("the querier refuses this range")
	}
	return q, nil
}

// metadataAnswer is a list and what was said beside. The list is of names or values, or of the labels of series.
type metadataAnswer struct {
	texts           []string
	sets            []labelSet
	warnings, infos []string
	noStore         bool
}

// labelSet is the labels of a series, and their JSON as it came.
type labelSet struct {
	labels labels.Labels
	text   json.RawMessage
}

// metadata answers requests for labels, label values and series by the parts of their range.
func (f *Frontend) metadata(ctx context.Context, q *metadataQuery) (*metadataAnswer, error) {
	parts := q.parts(f.cfg.Metadata.SplitMs)
	f.metrics.metadataSplits.Add(float64(len(parts)))
	answers := f.kept.fetch(ctx, q, parts)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, f.cfg.Metadata.Parallel))
	observe := func(again int) { f.metrics.metadataRetries.Observe(float64(again)) }
	for i, p := range parts {
		if answers[i] != nil {
			continue
		}
		g.Go(func() (err error) {
			answers[i], err = attempt(ctx, f.cfg.Metadata.Attempts, observe, func(ctx context.Context) (*metadataAnswer, error) { return f.down.metadata(ctx, q, p) })
			if err == nil {
				f.kept.store(q, p, answers[i])
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return joinMetadata(answers), nil
}

// parts cuts the range at multiples of an interval.
func (q *metadataQuery) parts(interval int64) (parts []span) {
	// A querier stops at the limit wherever it is, so parts of a limited answer do not make up the whole.
	if interval <= 0 || q.limit > 0 || (q.end-q.start)/interval > metadataPartsMax {
		return []span{{q.start, q.end}}
	}
	for start := q.start; start <= q.end; {
		end := min(q.end, floor(start, interval)+interval-1)
		parts = append(parts, span{start, end})
		start = end + 1
	}
	return parts
}

// metadataPartsMax bounds the parts of a request; who asks for more asks for all time, which is one question.
const metadataPartsMax = 400

// metadata asks the querier about a part of the range.
func (d *downstream) metadata(ctx context.Context, q *metadataQuery, part span) (*metadataAnswer, error) {
	form := url.Values{}
	for name, vs := range q.form {
		form[name] = vs
	}
	form.Set("start", formatTime(part.start))
	form.Set("end", formatTime(part.end))
	if q.limit > 0 {
		form.Set("limit", strconv.Itoa(q.limit))
	}
	var (
		body   []byte
		header http.Header
		err    error
	)
	if strings.HasSuffix(q.path, "/values") { // which are not asked for with POST
		header, err = d.get(ctx, &q.call, form, into(&body))
	} else {
		header, err = d.post(ctx, &q.call, form, into(&body))
	}
	if err != nil {
		return nil, err
	}
	var a struct {
		Status          string          `json:"status"`
		Data            json.RawMessage `json:"data"`
		Warnings, Infos []string
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, fmt.Errorf("read the querier's answer: %w", err)
	}
	if a.Status != "success" {
		return nil, fmt.Errorf("read the querier's answer: %w", errNotMetadata)
	}
	out := &metadataAnswer{warnings: a.Warnings, infos: a.Infos, noStore: noStore(header)}
	if err := out.read(a.Data, q.series); err != nil {
		return nil, fmt.Errorf("read the querier's answer: %w", err)
	}
	return out, nil
}

// read reads the list.
func (a *metadataAnswer) read(data json.RawMessage, series bool) error {
	if !series {
		return json.Unmarshal(data, &a.texts)
	}
	var texts []json.RawMessage
	if err := json.Unmarshal(data, &texts); err != nil {
		return err
	}
	a.sets = make([]labelSet, len(texts))
	for i, text := range texts {
		ls, err := matrix.ParseLabels(text)
		if err != nil {
			return err
		}
		a.sets[i] = labelSet{ls, text}
	}
	return nil
}

// get asks with the form in the URL.
func (d *downstream) get(ctx context.Context, c *call, form url.Values, read reading) (http.Header, error) {
	u := d.target(c.path)
	u.RawQuery = form.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	c.head(req.Header)
	return d.send(req, c, read)
}

// joinMetadata makes one sorted list of several, with each element once.
func joinMetadata(answers []*metadataAnswer) *metadataAnswer {
	if len(answers) == 1 {
		return answers[0]
	}
	out := &metadataAnswer{}
	for _, a := range answers {
		out.texts, out.sets = append(out.texts, a.texts...), append(out.sets, a.sets...)
		out.warnings, out.infos = append(out.warnings, a.warnings...), append(out.infos, a.infos...)
		out.noStore = out.noStore || a.noStore
	}
	for _, texts := range []*[]string{&out.texts, &out.warnings, &out.infos} {
		slices.Sort(*texts)
		*texts = slices.Compact(*texts)
	}
	slices.SortFunc(out.sets, func(a, b labelSet) int { return labels.Compare(a.labels, b.labels) })
	out.sets = slices.CompactFunc(out.sets, func(a, b labelSet) bool { return labels.Equal(a.labels, b.labels) })
	return out
}

// envelope is the answer as it is sent.
func (a *metadataAnswer) envelope(series bool) ([]byte, error) {
	out := struct {
		Status   string   `json:"status"`
		Data     any      `json:"data"`
		Warnings []string `json:"warnings,omitempty"`
		Infos    []string `json:"infos,omitempty"`
	}{"success", a.list(series), a.warnings, a.infos}
	return json.Marshal(out)
}

// list is the list as it is sent.
func (a *metadataAnswer) list(series bool) any {
	switch {
	case series:
		texts := make([]json.RawMessage, len(a.sets))
		for i := range a.sets {
			texts[i] = a.sets[i].text
		}
		return texts
	case a.texts == nil:
		return []string{}
	}
	return a.texts
}
