package reloader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
)

// Reloader watches files and triggers reloads. Make one with New; Run does the work.
type Reloader struct {
	cfg     Config
	trigger Trigger
	logger  log.Logger
	metrics *metrics
	getenv  func(string) (string, bool)

	// Only the goroutine of Run touches these.
	applied digest   // What the last successful reload was about.
	loaded  bool     // Whether there was one.
	watched []string // The directories under watch.
}

// New makes a Reloader; metrics are registered with reg.
func New(cfg Config, trigger Trigger, logger log.Logger, reg prometheus.Registerer) (*Reloader, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Settle == 0 {
		cfg.Settle = DefaultSettle
	}
	if cfg.RetryInterval == 0 {
		cfg.RetryInterval = DefaultRetryInterval
	}
	r := &Reloader{cfg: cfg, trigger: trigger, logger: logger, metrics: newMetrics(reg), getenv: os.LookupEnv}
	r.metrics.info.WithLabelValues(trigger.Method()).Set(1)
	return r, nil
}

// Run watches until ctx ends, and then returns nil. What it finds at first is reloaded too: nobody
// knows which state Prometheus has read.
func (r *Reloader) Run(ctx context.Context) error {
	if !r.cfg.Enabled() {
		<-ctx.Done()
		return nil
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch for events: %w", err)
	}
	defer w.Close()
	level.Info(r.logger).Log("msg", "watching configuration", "file", r.cfg.ConfigFile, "output", r.cfg.ConfigEnvsubstFile, "rule_dirs", fmt.Sprint(r.cfg.RuleDirs), "method", r.trigger.Method())

	next := time.NewTimer(0)
	defer next.Stop()
	settling := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.Events:
			r.metrics.watchEvents.Inc()
			if !settling {
				settling = true
				next.Reset(r.cfg.Settle)
			}
		case err := <-w.Errors:
			r.metrics.watchErrors.Inc()
			level.Warn(r.logger).Log("msg", "watch for events; looking at files instead", "err", err)
			if !settling {
				settling = true
				next.Reset(r.cfg.Settle)
			}
		case <-next.C:
			settling = false
			wait := r.cfg.WatchInterval
			if err := r.apply(ctx, w); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				level.Error(r.logger).Log("msg", "apply configuration; it is tried again", "in", r.cfg.RetryInterval, "err", err)
				wait = r.cfg.RetryInterval
			}
			if wait > 0 {
				next.Reset(wait)
			}
		}
	}
}

// apply looks at the files once, and reloads if they have changed since the last good reload.
func (r *Reloader) apply(ctx context.Context, w *fsnotify.Watcher) error {
	r.metrics.applies.Inc()
	t := newTree()
	err := r.look(t)
	// What was found so far is watched even if the rest can't be read: its repair is then noticed.
	if r.watch(w, t.watchDirs()) {
		// What changed before a new watch stood gave no event.
		t = newTree()
		err = r.look(t)
	}
	if err != nil {
		r.metrics.applyFailures.Inc()
		return err
	}
	sum := t.sum()
	if r.loaded && sum == r.applied {
		return nil
	}
	r.metrics.reloads.Inc()
	// A Prometheus that hangs must not keep us from the next change for ever.
	ctx, cancel := context.WithTimeout(ctx, max(r.cfg.WatchInterval, reloadTimeoutMin))
	defer cancel()
	if err := r.trigger.Reload(ctx); err != nil {
		r.metrics.reloadFailures.Inc()
		r.metrics.lastReloadOK.Set(0)
		return fmt.Errorf("trigger reload: %w", err)
	}
	r.applied, r.loaded = sum, true
	r.metrics.lastReloadOK.Set(1)
	r.metrics.lastReloadSuccess.SetToCurrentTime()
	level.Info(r.logger).Log("msg", "reloaded configuration", "file", r.cfg.ConfigFile, "rule_dirs", fmt.Sprint(r.cfg.RuleDirs))
	return nil
}

// look reads all files into t and writes the configuration's output.
func (r *Reloader) look(t *tree) error {
	if file := r.cfg.ConfigFile; file != "" {
		t.watchDirsOf(file)
		text, err := readConfig(file)
		if err != nil {
			return err
		}
		if out := r.cfg.ConfigEnvsubstFile; out != "" {
			if text, err = r.expand(text); err != nil {
				return err
			}
			if err := writeAtomic(out, text); err != nil {
				return err
			}
		}
		t.contents(file, text)
	}
	var errs []error
	for _, dir := range r.cfg.RuleDirs {
		if err := t.rules(dir); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (r *Reloader) expand(text []byte) ([]byte, error) {
	out, undefined := expand(text, r.getenv)
	r.metrics.expansionErrors.Set(float64(len(undefined)))
	if len(undefined) == 0 {
		return out, nil
	}
	err := &undefinedError{file: r.cfg.ConfigFile, names: undefined}
	if !r.cfg.TolerateUndefined {
		return nil, err
	}
	level.Warn(r.logger).Log("msg", "references are left as they are", "err", err)
	return out, nil
}

// watch makes dirs the directories under watch, and tells whether some are new. One that can't be
// watched is looked at by interval.
func (r *Reloader) watch(w *fsnotify.Watcher, dirs []string) (added bool) {
	keep := make(map[string]bool, len(dirs))
	for _, d := range dirs {
		keep[d] = true
		// Adding again is how a directory that was removed and made anew is found.
		if err := w.Add(d); err != nil {
			r.metrics.watchErrors.Inc()
			level.Warn(r.logger).Log("msg", "watch directory; it is looked at by interval", "dir", d, "err", err)
		}
	}
	for _, d := range r.watched {
		if !keep[d] {
			_ = w.Remove(d) // It may be gone.
		}
	}
	for _, d := range dirs {
		added = added || !slices.Contains(r.watched, d)
	}
	r.watched = dirs
	r.metrics.watches.Set(float64(len(w.WatchList())))
	return added
}
