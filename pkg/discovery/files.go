package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"go.yaml.in/yaml/v2"
)

// FilesConfig says which files to follow.
type FilesConfig struct {
	// Patterns are paths that end in .json, .yml or .yaml; their last element may hold a *.
	Patterns []string
	// Interval is how often the files are read though nothing was seen to change.
	Interval time.Duration
	// Changed, if given, is called by Run after the addresses have changed. It must not block.
	Changed func()
}

// Files keeps the targets of Prometheus file_sd files. A file that can't be read or parsed keeps the
// targets that it had; a file that is gone has none. Its methods may be called in parallel.
type Files struct {
	cfg    FilesConfig
	logger log.Logger

	mu      sync.RWMutex
	targets map[string][]string // by file
}

// NewFiles makes a Files and reads the files once; what can't be read is logged.
func NewFiles(cfg FilesConfig, logger log.Logger) (*Files, error) {
	for _, p := range cfg.Patterns {
		switch ext := strings.ToLower(filepath.Ext(p)); ext {
		case ".json", ".yml", ".yaml":
		default:
			return nil, fmt.Errorf("service discovery file %q: want a name in .json, .yml or .yaml", p)
		}
		if _, err := filepath.Match(p, ""); err != nil {
			return nil, fmt.Errorf("service discovery file %q: %w", p, err)
		}
	}
	if len(cfg.Patterns) > 0 && cfg.Interval <= 0 {
		return nil, fmt.Errorf("service discovery files need an interval above zero, have %s", cfg.Interval)
	}
	f := &Files{cfg: cfg, logger: logger}
	f.refresh()
	return f, nil
}

// Addresses returns the targets of all files: sorted, unique, the caller's own.
func (f *Files) Addresses() []string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var all []string
	for _, ts := range f.targets {
		all = append(all, ts...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Run follows the files until the context ends. Without notifications of changes, for example on file
// systems that have none, the interval remains.
func (f *Files) Run(ctx context.Context) error {
	if len(f.cfg.Patterns) == 0 {
		<-ctx.Done()
		return nil
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		level.Warn(f.logger).Log("msg", "can't watch service discovery files; they are read at intervals only", "interval", f.cfg.Interval, "err", err)
		watcher = &fsnotify.Watcher{} // its nil channels never deliver
	} else {
		defer watcher.Close()
		f.watch(watcher)
	}
	tick := time.NewTicker(f.cfg.Interval)
	defer tick.Stop()
	for {
		f.update()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err == nil {
				f.watch(watcher) // folders come and go
			}
		case <-watcher.Events:
		case e := <-watcher.Errors:
			level.Warn(f.logger).Log("msg", "watching service discovery files", "err", e)
		}
	}
}

// watch watches the folders, not the files: editors and ConfigMaps replace files by renaming.
func (f *Files) watch(w *fsnotify.Watcher) {
	for _, p := range f.cfg.Patterns {
		dirs, _ := filepath.Glob(filepath.Dir(p))
		for _, dir := range dirs {
			if err := w.Add(dir); err != nil {
				level.Warn(f.logger).Log("msg", "watch a folder of service discovery files", "folder", dir, "err", err)
			}
		}
	}
}

func (f *Files) update() {
	if f.refresh() && f.cfg.Changed != nil {
		f.cfg.Changed()
	}
}

// refresh reads all files and tells whether a target came or went.
func (f *Files) refresh() (changed bool) {
	before := f.Addresses()
	targets := map[string][]string{}
	for _, p := range f.cfg.Patterns {
		files, _ := filepath.Glob(p)
		for _, file := range files {
			ts, err := readTargets(file)
			if err != nil {
				level.Error(f.logger).Log("msg", "a service discovery file is of no use and keeps its previous targets", "file", file, "err", err)
				f.mu.RLock()
				ts = f.targets[file]
				f.mu.RUnlock()
			}
			targets[file] = ts
		}
	}
	f.mu.Lock()
	f.targets = targets
	f.mu.Unlock()
	return !slices.Equal(before, f.Addresses())
}

func readTargets(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseTargets(b)
}

// parseTargets reads target groups in YAML, and so in JSON.
func parseTargets(b []byte) ([]string, error) {
	if len(bytes.TrimSpace(b)) == 0 {
		// As a file is for a moment when an editor rewrites it in place.
		return nil, errors.New("the file is empty; no targets are written []")
	}
	var groups []*targetgroup.Group
	if err := yaml.UnmarshalStrict(b, &groups); err != nil {
		return nil, fmt.Errorf("parse target groups: %w", err)
	}
	var targets []string
	for i, g := range groups {
		if g == nil {
			return nil, fmt.Errorf("target group %d is empty", i)
		}
		for _, t := range g.Targets {
			addr := string(t[model.AddressLabel])
			if addr == "" {
				return nil, errors.New("a target has no address")
			}
			targets = append(targets, addr)
		}
	}
	return targets, nil
}
