package components

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/version"

	"github.com/koios-metrics/koios/pkg/serve"
	"github.com/koios-metrics/koios/pkg/tracing"
)

// process is what a component is built into.
//
//	signals ──┐ the first one to end, ends the others, in this order:
//	servers ──┤   1. the probe says not ready; HTTP and gRPC drain side by side
//	loops   ──┘   2. loops end (syncs, discovery, uploads), each waited for
//	closers       3. what was opened is closed, last opened first; the last spans are written
type process struct {
	component string
	started   time.Time
	flags     *flags
	logger    log.Logger
	reg       *prometheus.Registry
	probe     *serve.Probe
	tracing   *tracing.Provider
	// out is for what a command answers; logs go elsewhere.
	out io.Writer
	// task says that the process is there for one thing, so that ending before that is done is a failure.
	task bool
	// quiet says that a start and an end are nothing to log.
	quiet bool

	// reload is what SIGHUP asks for; nil is nothing.
	reload  func() error
	servers []func(context.Context) error
	loops   []func(context.Context) error
	closers []func() error
}

func newProcess(component string, fs *flags, logger log.Logger) *process {
	return &process{component: component, started: time.Now(), flags: fs, logger: logger, reg: serve.NewRegistry()}
}

// main sets up what every process has, builds the component and runs it to its end.
func (p *process) main(g *globals, build runner) (err error) {
	if p.quiet {
		p.logger = level.NewFilter(p.logger, level.AllowWarn())
	}
	_ = level.Info(p.logger).Log("msg", "starting", "component", p.component, "version", version.Info(), "build", version.BuildContext())
	if g.autoMemory {
		if err := serve.SetMemoryLimit(p.logger, g.autoMemoryRatio); err != nil {
			return err
		}
	}
	text, err := g.tracing.read()
	if err != nil {
		return err
	}
	if p.tracing, err = tracing.New(context.Background(), text, p.component, p.logger); err != nil {
		return fmt.Errorf("flag --tracing.config: %w", err)
	}
	p.tracing.Install(p.logger)
	p.probe = serve.NewProbe(p.component, p.logger, p.reg)
	p.warnLater()
	p.close(p.tracing.Shutdown)

	defer func() {
		for i := len(p.closers) - 1; i >= 0; i-- {
			if cerr := p.closers[i](); cerr != nil {
				_ = level.Warn(p.logger).Log("msg", "close", "err", cerr)
			}
		}
	}()
	if err := build(p); err != nil {
		return err
	}
	return p.run()
}

// serve adds a server: it must drain and return when its context ends.
func (p *process) serve(f func(context.Context) error) { p.servers = append(p.servers, f) }

// loop adds something that runs until its context ends. If it ends before, the process ends.
func (p *process) loop(f func(context.Context) error) { p.loops = append(p.loops, f) }

// once adds the one thing that the process is there for.
func (p *process) once(f func(context.Context) error) {
	p.task = true
	p.loop(f)
}

// close adds something to close after everything has ended.
func (p *process) close(f func() error) { p.closers = append(p.closers, f) }

func (p *process) run() error {
	var g run.Group
	ended := make(chan struct{})
	defer close(ended)

	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	stop := make(chan struct{})
	g.Add(func() error {
		for {
			select {
			case <-stop:
				return nil
			case s := <-signals:
				if s == syscall.SIGHUP {
					p.reloadNow()
					continue
				}
				_ = level.Info(p.logger).Log("msg", "ending: once more ends at once", "signal", s)
				go p.hardStop(signals, ended)
				return errInterrupted
			}
		}
	}, func(error) { close(stop) })

	p.addServers(&g)
	for _, f := range p.loops {
		ctx, cancel := context.WithCancelCause(context.Background())
		g.Add(func() error { return f(ctx) }, func(err error) { cancel(err) })
	}
	err := g.Run()
	if p.task && errors.Is(err, errInterrupted) {
		return err
	}
	if err != nil && !errors.Is(err, errInterrupted) && !errors.Is(err, context.Canceled) {
		return err
	}
	_ = level.Info(p.logger).Log("msg", "ended")
	return nil
}

func (p *process) reloadNow() {
	if p.reload == nil {
		_ = level.Info(p.logger).Log("msg", "there is nothing to reload")
		return
	}
	if err := p.reload(); err != nil {
		_ = level.Error(p.logger).Log("msg", "reload: what was before stays", "err", err)
		return
	}
	_ = level.Info(p.logger).Log("msg", "reloaded")
}

// hardStop ends the process at the next signal, unless it has ended by itself.
func (p *process) hardStop(signals <-chan os.Signal, ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case s := <-signals:
			if s == syscall.SIGHUP {
				continue
			}
			_ = level.Warn(p.logger).Log("msg", "ended without waiting", "signal", s)
			os.Exit(1)
		}
	}
}

// addServers adds all servers as one member of the group, so that they drain side by side and what they
// serve from outlives the last request.
func (p *process) addServers(g *run.Group) {
	if len(p.servers) == 0 {
		return // as a member it would be the first to end
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	g.Add(func() error {
		defer close(done)
		errs := make([]error, len(p.servers))
		var wg sync.WaitGroup
		for i, f := range p.servers {
			wg.Go(func() {
				errs[i] = f(ctx)
				cancel(errs[i])
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	}, func(err error) {
		p.probe.End(err)
		cancel(err)
		<-done
	})
}

// warnLater says which flags that were set have no effect yet, and which are gone.
func (p *process) warnLater() {
	for _, f := range p.flags.all {
		if reason, ok := later[p.component][f.name]; ok && f.changed() {
			_ = level.Warn(p.logger).Log("msg", "this flag has no effect yet", "flag", "--"+f.name, "value", strings.Join(f.text(), ","), "reason", reason)
		}
		if instead, ok := removed[p.component][f.name]; ok && f.changed() {
			_ = level.Warn(p.logger).Log("msg", "this flag is gone and accepted for old manifests' sake", "flag", "--"+f.name, "instead", instead)
		}
	}
}
