package frontend

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// list is an answer about labels or series, in any order.
type list struct {
	Code     int
	Elements []string
	Missing  bool
}

// read reads an answer about labels or series.
func (l *list) read(r *reply) error {
	l.Code = r.Code
	if r.Code != http.StatusOK {
		return nil
	}
	var body struct {
		Data     []any
		Warnings []string
		Infos    []string
	}
	if err := json.Unmarshal(r.text, &body); err != nil {
		return fmt.Errorf("%.300q: %w", r.text, err)
	}
	for _, e := range body.Data {
		text, err := json.Marshal(e) // keys sorted
		if err != nil {
			return err
		}
		l.Elements = append(l.Elements, string(text))
	}
	slices.Sort(l.Elements)
	for _, n := range slices.Concat(body.Warnings, body.Infos) {
		l.Missing = l.Missing || !strings.HasPrefix(n, "PromQL ")
	}
	return nil
}

func askList(t *testing.T, h http.Handler, q request) (l list) {
	t.Helper()
	if err := l.read(ask(t.Context(), t, h, q)); err != nil {
		t.Fatalf("%s %v: %v", q.path, q.form, err)
	}
	return l
}

// metadata asks for labels, values or series, and compares. While stores are away, the frontend may know more than
// the querier, and less than all only if it says so.
func (s *sequence) metadata(f *front) {
	s.t.Helper()
	q := question{request: request{
		path:   s.one("/api/v1/labels", "/api/v1/series", "/api/v1/label/instance/values", "/api/v1/label/job/values", "/api/v1/label/cluster/values"),
		header: http.Header{}, mixed: s.IntN(4) == 0, get: s.IntN(2) == 0,
	}}
	if strings.HasSuffix(q.path, "/values") {
		q.get = true
	}
	end := s.w.now.Load() - s.Int64N(3)*s.Int64N(length/2)
	q.form = url.Values{"start": {s.timeText(end - s.Int64N(4*3600_000))}, "end": {s.timeText(end)}}
	if s.IntN(3) == 0 { // whole parts
		q.form = url.Values{"start": {seconds((end - 3*3600_000) / 3600_000 * 3600_000)}, "end": {seconds(end/3600_000*3600_000 - 1)}}
	}
	if strings.HasSuffix(q.path, "series") || s.IntN(2) == 0 {
		q.form["match[]"] = [][]string{{`requests_total`}, {`{job="api"}`, `temperature`}, {`errors_total`}, {`latency`}}[s.IntN(4)]
	}
	set := func(often int, name string, values ...string) {
		if s.IntN(often) == 0 {
			v := s.one(values...)
			q.form.Set(name, v)
			s.covered[fmt.Sprintf("lists: %s=%s", name, v)]++
		}
	}
	set(6, "partial_response", "false", "true")
	set(8, "dedup", "false", "true")
	set(12, "end", "1", "x", "")
	set(12, "replicaLabels[]", "cluster")
	set(16, "storeMatch[]", `{__address__="eu-a"}`)
	set(16, "limit", "0", "-1")
	set(20, "unheard_of", "1")
	set(20, "match[]", "{", `{job=~".*"}`)
	s.who(&q)
	q.header.Del(viewHeader)
	below := q.request
	below.form = url.Values{}
	for name, vs := range q.form {
		below.form[name] = vs
	}
	if below.form.Get("partial_response") == "" {
		below.form.Set("partial_response", fmt.Sprint(f.cfg.Metadata.PartialResponse))
	}
	want := askList(s.t, s.w.querier, below)
	plan := s.trouble(f, q)
	f.down.set(plan, nil)
	answer := ask(s.t.Context(), s.t, f, q.request)
	met := len(plan) - f.down.left()
	f.down.set(nil, nil)
	s.history = append(s.history, fmt.Sprintf("%d: %s %v", answer.Code, q.String(), plan[:met]))
	var got list
	if answer.Code == 0 { // of a request that went through as it was
		answer.Code = http.StatusBadGateway
	}
	if err := got.read(answer); err != nil {
		s.fail(f, q, err.Error())
	}
	if cmp.Equal(want, got) || met > 0 && got.Code >= 500 && (met >= f.cfg.Metadata.Attempts || want.Code != http.StatusOK || q.form.Has("unheard_of")) {
		return
	}
	d := cmp.Diff(want, got)
	if now := s.w.state(); now.missing() {
		s.w.set(state{now: now.now})
		whole := askList(s.t, s.w.querier, below)
		s.w.set(now)
		switch {
		case !got.Missing:
			d = cmp.Diff(whole, got)
		case got.Code == http.StatusOK && want.Missing && within(want.Elements, got.Elements) && within(got.Elements, whole.Elements):
			d = ""
		}
	}
	if d != "" {
		s.fail(f, q, "querier against frontend: "+d)
	}
}

// within tells whether all elements of a are in b.
func within(a, b []string) bool {
	for _, e := range a {
		if !slices.Contains(b, e) {
			return false
		}
	}
	return true
}
