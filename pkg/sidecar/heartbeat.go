package sidecar

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/go-kit/log/level"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/store"
)

// ErrNoExternalLabels ends Run when Prometheus has no external labels: its data could not be told from
// that of any other.
var ErrNoExternalLabels = errors.New("prometheus has no external labels: set external_labels under global in prometheus.yml, to something that no other Prometheus has")

// knowledge is what is known of Prometheus. Methods may be called in parallel.
type knowledge struct {
	mu      sync.RWMutex
	labels  labels.Labels // Empty: not known, or lost again.
	lowest  int64         // In ms.
	version string
	up      bool // Whether the last heartbeat was good.
	why     error
}

// externalLabels returns the last labels known, empty if there are none.
func (k *knowledge) externalLabels() labels.Labels {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.labels
}

// available returns the labels, or an error of KindUnavailable if they are not known: what is said without
// them would be said of somebody else.
func (k *knowledge) available() (labels.Labels, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.labels.IsEmpty() {
		return labels.EmptyLabels(), store.Errorf(store.KindUnavailable, "external labels of Prometheus are not known: %w", k.why)
	}
	return k.labels, nil
}

// ready returns why the last heartbeat failed, nil if it did not.
func (k *knowledge) ready() error {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.up {
		return nil
	}
	return k.why
}

func (k *knowledge) buildVersion() string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.version
}

func (k *knowledge) lowestTime() int64 {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.lowest
}

// beat is what one heartbeat has found.
type beat struct {
	labels  labels.Labels
	lowest  int64
	version string
}

// ask asks Prometheus for everything, within GetConfigTimeout.
func (s *Sidecar) ask(ctx context.Context) (b beat, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.GetConfigTimeout)
	defer cancel()
	p := s.deps.Prometheus
	if b.version, err = p.BuildVersion(ctx); err != nil && !errors.Is(err, promapi.ErrNotFound) {
		return b, err
	}
	if b.lowest, err = p.LowestTimestamp(ctx); err != nil {
		return b, err
	}
	if b.lowest == math.MaxInt64 {
		// It holds nothing yet. What it holds by the next heartbeat may be of any time.
		b.lowest = math.MinInt64
	}
	if b.labels, err = p.ExternalLabels(ctx); err != nil {
		return b, err
	}
	if b.labels.IsEmpty() {
		return b, ErrNoExternalLabels
	}
	return b, nil
}

// heartbeat asks once and tells everyone of the outcome.
func (s *Sidecar) heartbeat(ctx context.Context) error {
	b, err := s.ask(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		s.lost(err)
		return err
	}
	k := s.known
	k.mu.Lock()
	first, changed := k.labels.IsEmpty(), !labels.Equal(k.labels, b.labels)
	was := k.up
	k.labels, k.lowest, k.version, k.up, k.why = b.labels, b.lowest, b.version, true, nil
	k.mu.Unlock()

	s.metrics.up.Set(1)
	if changed || !was {
		level.Info(s.logger).Log("msg", "prometheus answers", "external_labels", b.labels.String(), "mint", store.FormatTime(s.minTime()), "version", b.version)
	}
	if first {
		s.onLabels.Do(func() { close(s.labelsKnown) })
	}
	s.deps.Probe.Ready()
	return nil
}

// lost notes that a heartbeat failed. Labels stay known while Prometheus is away; they are forgotten when
// it says that it has none.
func (s *Sidecar) lost(err error) {
	noLabels := errors.Is(err, ErrNoExternalLabels)
	k := s.known
	k.mu.Lock()
	k.up, k.why = false, err
	if noLabels {
		k.labels = labels.EmptyLabels()
	}
	k.mu.Unlock()
	up := 0.0
	if noLabels {
		up = 1
	}
	s.metrics.up.Set(up)
	s.deps.Probe.NotReady(fmt.Errorf("heartbeat: %w", err))
}

// watch makes heartbeats until ctx ends. It returns an error only if Prometheus has no external labels
// from the start.
func (s *Sidecar) watch(ctx context.Context) error {
	retry := min(s.cfg.RetryInterval, s.cfg.GetConfigInterval)
	for began := false; ctx.Err() == nil; {
		wait := s.cfg.GetConfigInterval
		err := s.heartbeat(ctx)
		switch {
		case err == nil:
			began = true
		case !began && errors.Is(err, ErrNoExternalLabels):
			return err
		case ctx.Err() == nil:
			wait = retry
			level.Warn(s.logger).Log("msg", "heartbeat; it is tried again", "in", wait, "err", err)
		}
		sleep(ctx, wait)
	}
	return nil
}
