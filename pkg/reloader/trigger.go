package reloader

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Trigger makes a process read its configuration again.
type Trigger interface {
	// Method is "http" or "signal", as the metric thanos_sidecar_reloader_info says it.
	Method() string
	// Reload returns when the process has read its configuration, or says why it has not.
	Reload(ctx context.Context) error
}

// HTTPTrigger triggers by POST <URL>/-/reload. The Prometheus must run with --web.enable-lifecycle.
type HTTPTrigger struct {
	// URL is that of Prometheus, including its route prefix.
	URL    *url.URL
	Client *http.Client
}

// Method implements Trigger.
func (*HTTPTrigger) Method() string { return "http" }

// Reload implements Trigger.
func (t *HTTPTrigger) Reload(ctx context.Context) error {
	u := t.URL.JoinPath("-", "reload")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return err
	}
	resp, err := t.Client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if resp.StatusCode != http.StatusOK {
		hint := ""
		if resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusMethodNotAllowed {
			hint = " (is Prometheus started with --web.enable-lifecycle?)"
		}
		return fmt.Errorf("POST %s: %s: %s%s", u.Redacted(), resp.Status, bytes.TrimSpace(body), hint)
	}
	return nil
}

// SignalTrigger triggers by SIGHUP to all processes of a name, and asks Prometheus whether it went
// well: a signal has no answer.
type SignalTrigger struct {
	// ProcessName is the name of the executable, as in /proc/<pid>/comm.
	ProcessName string
	// URL and Client reach Prometheus's status; with a nil URL nobody is asked.
	URL    *url.URL
	Client *http.Client
	// Proc is where the process table is mounted; empty is /proc.
	Proc string
	// Wait bounds how long the outcome is asked for; 0 is 30 s.
	Wait time.Duration

	kill func(pid int, sig syscall.Signal) error
}

// Method implements Trigger.
func (*SignalTrigger) Method() string { return "signal" }

// Reload implements Trigger.
func (t *SignalTrigger) Reload(ctx context.Context) error {
	pids, err := findProcesses(t.proc(), t.ProcessName)
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return fmt.Errorf("no process named %q found (does the pod share its process namespace, is --reloader.process-name right?)", t.ProcessName)
	}
	before, asked := runtimeInfo{}, t.URL != nil
	if asked {
		if before, err = t.runtimeInfo(ctx); err != nil {
			return fmt.Errorf("ask for the state before the reload: %w", err)
		}
	}
	kill := t.kill
	if kill == nil {
		kill = syscall.Kill
	}
	sent := time.Now()
	var errs []error
	for _, pid := range pids {
		if err := kill(pid, syscall.SIGHUP); err != nil {
			errs = append(errs, fmt.Errorf("send SIGHUP to process %d: %w", pid, err))
		}
	}
	if err := errors.Join(errs...); err != nil || !asked {
		return err
	}
	return t.await(ctx, before, sent)
}

func (t *SignalTrigger) proc() string {
	if t.Proc == "" {
		return "/proc"
	}
	return t.Proc
}

// await asks until Prometheus tells of a reload after the one it told of before, or one since the signal
// was sent: it tells the time of its last good configuration in whole seconds. A reload that fails does
// not move that time, so one that was failing already can't be told from one that has not happened yet;
// it is taken as failed at the end.
func (t *SignalTrigger) await(ctx context.Context, before runtimeInfo, sent time.Time) error {
	wait := t.Wait
	if wait == 0 {
		wait = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var why error
	for {
		now, err := t.runtimeInfo(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			why = err
		case err != nil:
		case !now.ReloadConfigSuccess && before.ReloadConfigSuccess:
			return errors.New("prometheus refused its new configuration; its log says why")
		case now.ReloadConfigSuccess && (now.LastConfigTime.After(before.LastConfigTime) || !now.LastConfigTime.Before(sent.Truncate(time.Second))):
			return nil
		default:
			why = errors.New("prometheus still runs its old configuration")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no sign of a reload %s after SIGHUP: %w", wait, errors.Join(why, context.Cause(ctx)))
		case <-tick.C:
		}
	}
}

type runtimeInfo struct {
	ReloadConfigSuccess bool      `json:"reloadConfigSuccess"`
	LastConfigTime      time.Time `json:"lastConfigTime"`
}

func (t *SignalTrigger) runtimeInfo(ctx context.Context) (runtimeInfo, error) {
	u := t.URL.JoinPath("api", "v1", "status", "runtimeinfo")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return runtimeInfo{}, err
	}
	resp, err := t.Client.Do(req)
	if err != nil {
		return runtimeInfo{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return runtimeInfo{}, fmt.Errorf("GET %s: %s", u.Redacted(), resp.Status)
	}
	var answer struct {
		Data runtimeInfo `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer); err != nil {
		return runtimeInfo{}, fmt.Errorf("decode the answer of %s: %w", u.Redacted(), err)
	}
	return answer.Data, nil
}

// findProcesses returns the ids of the processes with this name, this one excepted. A name matches the
// kernel's, which is cut to 15 bytes, or the last part of the command.
func findProcesses(proc, name string) ([]int, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("read the process table: %w", err)
	}
	const commMax = 15
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// A process that is gone by now matches nothing.
		comm, _ := os.ReadFile(filepath.Join(proc, e.Name(), "comm"))
		cmdline, _ := os.ReadFile(filepath.Join(proc, e.Name(), "cmdline"))
		argv0, _, _ := bytes.Cut(cmdline, []byte{0})
		if name == filepath.Base(string(argv0)) || (len(name) <= commMax && name == string(bytes.TrimSuffix(comm, []byte("\n")))) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
