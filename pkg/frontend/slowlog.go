package frontend

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-kit/log/level"
	"github.com/prometheus/common/model"
)

// traceHeader names the trace of an answer.
const traceHeader = "X-Thanos-Trace-Id"

// slow logs a request of the API that took longer than is usual. The form has been parsed where somebody needed it.
func (f *Frontend) slow(w http.ResponseWriter, r *http.Request, stats *queryStats, took time.Duration) {
	limit := f.cfg.SlowQuery
	if limit == 0 || limit > 0 && took <= limit || !strings.Contains(r.URL.Path, "/api/v1") {
		return
	}
	user, _, _ := r.BasicAuth()
	if f.cfg.SlowQueryUserHeader != "" {
		user = r.Header.Get(f.cfg.SlowQueryUserHeader)
	}
	fields := []any{
		"msg", "slow query detected", "method", r.Method, "host", r.Host, "path", r.URL.Path, "remote_user", user, "remote_addr", r.RemoteAddr,
		"time_taken_ms", took.Milliseconds(),
		"grafana_dashboard_uid", orDash(r.Header.Get("X-Dashboard-Uid")), "grafana_panel_id", orDash(r.Header.Get("X-Panel-Id")),
		"trace_id", orDash(w.Header().Get(traceHeader)),
	}
	form := r.Form
	if form == nil {
		form = r.URL.Query()
	}
	names := make([]string, 0, len(form))
	for name := range form {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fields = append(fields, "param_"+name, strings.Join(form[name], ","))
	}
	start, err := parseTime(form.Get("start"))
	end, err2 := parseTime(form.Get("end"))
	if err == nil && err2 == nil && end >= start {
		d := time.Duration(end-start) * time.Millisecond
		fields = append(fields, "query_range_hours", int(d.Hours()), "query_range_human", model.Duration(d).String())
	}
	if total, peak, some := stats.samples(); some {
		fields = append(fields, "peak_samples", peak, "total_samples_loaded", total)
	}
	level.Info(f.logger).Log(fields...)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
