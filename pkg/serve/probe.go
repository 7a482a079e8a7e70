package serve

import (
	"io"
	"net/http"
	"sync"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Probe says whether a process is healthy (it runs) and ready (it is useful). It begins healthy and not
// ready. All methods may be called in parallel.
type Probe struct {
	logger log.Logger
	status *prometheus.GaugeVec

	mtx       sync.Mutex
	healthy   bool
	ready     bool
	ended     bool
	listeners []func(ready bool)
}

// NewProbe makes the probe of a component and registers its gauge thanos_status.
func NewProbe(component string, logger log.Logger, reg prometheus.Registerer) *Probe {
	p := &Probe{
		logger: logger,
		status: promauto.With(reg).NewGaugeVec(prometheus.GaugeOpts{
			Name:        "thanos_status",
			Help:        "Whether the component passes the check (1) or not (0).",
			ConstLabels: prometheus.Labels{"component": component},
		}, []string{"check"}),
		healthy: true,
	}
	p.status.WithLabelValues("healthy").Set(1)
	p.status.WithLabelValues("ready").Set(0)
	return p
}

// Ready tells that the process is useful. After End it has no effect.
func (p *Probe) Ready() { p.setReady(true, nil) }

// NotReady tells that the process is not useful now, and why. A nil reason is fine.
func (p *Probe) NotReady(reason error) { p.setReady(false, reason) }

// End tells that the process is ending: it is not ready and never will be again.
func (p *Probe) End(reason error) {
	p.mtx.Lock()
	p.ended = true
	p.mtx.Unlock()
	p.setReady(false, reason)
}

func (p *Probe) setReady(ready bool, reason error) {
	p.mtx.Lock()
	defer p.mtx.Unlock()
	if p.ready == ready || ready && p.ended {
		return
	}
	p.ready = ready
	p.status.WithLabelValues("ready").Set(number(ready))
	switch {
	case ready:
		_ = level.Info(p.logger).Log("msg", "ready")
	case p.ended:
		_ = level.Info(p.logger).Log("msg", "not ready: ending", "reason", reason)
	default:
		_ = level.Warn(p.logger).Log("msg", "not ready", "reason", reason)
	}
	for _, f := range p.listeners {
		f(ready)
	}
}

// Healthy tells that the process runs.
func (p *Probe) Healthy() { p.setHealthy(true, nil) }

// NotHealthy tells that the process should be restarted, and why.
func (p *Probe) NotHealthy(reason error) { p.setHealthy(false, reason) }

func (p *Probe) setHealthy(healthy bool, reason error) {
	p.mtx.Lock()
	defer p.mtx.Unlock()
	if p.healthy == healthy {
		return
	}
	p.healthy = healthy
	p.status.WithLabelValues("healthy").Set(number(healthy))
	if !healthy {
		_ = level.Error(p.logger).Log("msg", "not healthy", "reason", reason)
	}
}

// IsReady returns the current readiness.
func (p *Probe) IsReady() bool {
	p.mtx.Lock()
	defer p.mtx.Unlock()
	return p.ready
}

// IsHealthy returns the current health.
func (p *Probe) IsHealthy() bool {
	p.mtx.Lock()
	defer p.mtx.Unlock()
	return p.healthy
}

// OnReady calls f with the current readiness and again at every change, one call at a time. f must not
// call the probe.
func (p *Probe) OnReady(f func(ready bool)) {
	p.mtx.Lock()
	defer p.mtx.Unlock()
	p.listeners = append(p.listeners, f)
	f(p.ready)
}

// HealthyHandler answers 200 OK or 503 NOT OK.
func (p *Probe) HealthyHandler() http.HandlerFunc { return answer(p.IsHealthy) }

// ReadyHandler answers 200 OK or 503 NOT OK.
func (p *Probe) ReadyHandler() http.HandlerFunc { return answer(p.IsReady) }

func answer(ok func() bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if !ok() {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, "NOT OK")
			return
		}
		_, _ = io.WriteString(w, "OK")
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
