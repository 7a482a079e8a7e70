package reloader

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	info              *prometheus.GaugeVec
	applies           prometheus.Counter
	applyFailures     prometheus.Counter
	expansionErrors   prometheus.Gauge
	lastReloadOK      prometheus.Gauge
	lastReloadSuccess prometheus.Gauge
	reloads           prometheus.Counter
	reloadFailures    prometheus.Counter
	watches           prometheus.Gauge
	watchEvents       prometheus.Counter
	watchErrors       prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		info: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "thanos_sidecar_reloader_info",
			Help: "Always 1; the label says how reloads are triggered.",
		}, []string{"method"}),
		applies: f.NewCounter(prometheus.CounterOpts{
			Name: "thanos_sidecar_reloader_config_apply_operations_total",
			Help: "Looks at the watched files.",
		}),
		applyFailures: f.NewCounter(prometheus.CounterOpts{
			Name: "thanos_sidecar_reloader_config_apply_operations_failed_total",
			Help: "Looks at the watched files that failed.",
		}),
		expansionErrors: f.NewGauge(prometheus.GaugeOpts{
			Name: "thanos_sidecar_reloader_config_environment_variable_expansion_errors",
			Help: "Environment variables that the configuration names and that were not set at the last look.",
		}),
		lastReloadOK: f.NewGauge(prometheus.GaugeOpts{
			Name: "thanos_sidecar_reloader_last_reload_successful",
			Help: "Whether the last reload succeeded.",
		}),
		lastReloadSuccess: f.NewGauge(prometheus.GaugeOpts{
			Name: "thanos_sidecar_reloader_last_reload_success_timestamp_seconds",
			Help: "Unix time of the last reload that succeeded.",
		}),
		reloads: f.NewCounter(prometheus.CounterOpts{
			Name: "thanos_sidecar_reloader_reloads_total",
			Help: "Reloads triggered.",
		}),
		reloadFailures: f.NewCounter(prometheus.CounterOpts{
			Name: "thanos_sidecar_reloader_reloads_failed_total",
			Help: "Reloads triggered that failed.",
		}),
		watches: f.NewGauge(prometheus.GaugeOpts{
			Name: "thanos_sidecar_reloader_watches",
			Help: "Directories watched for events.",
		}),
		watchEvents: f.NewCounter(prometheus.CounterOpts{
			Name: "thanos_sidecar_reloader_watch_events_total",
			Help: "Events received from watched directories.",
		}),
		watchErrors: f.NewCounter(prometheus.CounterOpts{
			Name: "thanos_sidecar_reloader_watch_errors_total",
			Help: "Errors while watching directories.",
		}),
	}
}
