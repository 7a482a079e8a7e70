package standalone

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	reloadGood prometheus.Gauge
	reloadTime prometheus.Gauge
	aside      prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		reloadGood: f.NewGauge(prometheus.GaugeOpts{
			Name: "koios_standalone_config_last_reload_successful",
			Help: "Whether the scrape configuration could be used when it was last read (1) or not (0).",
		}),
		reloadTime: f.NewGauge(prometheus.GaugeOpts{
			Name: "koios_standalone_config_last_reload_success_timestamp_seconds",
			Help: "When the scrape configuration in use was read.",
		}),
		aside: f.NewGauge(prometheus.GaugeOpts{
			Name: "koios_standalone_blocks_set_aside",
			Help: "Blocks that could not be read at a start and were moved out of the TSDB, of all starts until they are removed.",
		}),
	}
}
