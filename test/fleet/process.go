package fleet

import (
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// stopWait bounds the time from a polite signal to the end of a process. Every program here stops
	// in well under a second when it has nothing to drain.
	stopWait = 30 * time.Second
	// readyWait bounds the time from the start of a process to its readiness, on a machine that is busy.
	readyWait = 90 * time.Second
	// logTailLines is how much of a log a failed test prints for each process.
	logTailLines = 60
)

// Process is a running program. Its methods belong to the goroutine of the test.
type Process struct {
	name string
	path string
	args []string

	log  *logBuffer
	cmd  *exec.Cmd
	done chan struct{} // closed when the program has ended

	mtx sync.Mutex
	err error // how it ended; read after done
}

// Start starts a program. The test stops it at its end.
func Start(t testing.TB, name, path string, args ...string) *Process {
	t.Helper()
	p := &Process{name: name, path: path, args: args, log: &logBuffer{}}
	t.Cleanup(func() {
		_ = p.end(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("last lines of %s (%s %v):\n%s", p.name, p.path, p.args, p.log.tail(logTailLines))
		}
	})
	p.start(t)
	return p
}

func (p *Process) start(t testing.TB) {
	t.Helper()
	p.cmd = exec.Command(p.path, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = withoutOrphans()
	p.done = make(chan struct{})
	if err := p.cmd.Start(); err != nil {
		close(p.done)
		t.Fatalf("start %s: %v", p.name, err)
	}
	go func(cmd *exec.Cmd, done chan struct{}) {
		err := cmd.Wait()
		p.mtx.Lock()
		p.err = err
		p.mtx.Unlock()
		close(done)
	}(p.cmd, p.done)
}

// Stop asks the program to end and waits for it. An end that is late or unclean fails the test.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Fatalf("stop %s: %v\n%s", p.name, err, p.log.tail(logTailLines))
	}
}

// Kill ends the program as a power cut would (SIGKILL), and waits until it is gone.
func (p *Process) Kill() { _ = p.end(syscall.SIGKILL) }

// Restart starts the program again with the same arguments. It must have ended.
func (p *Process) Restart(t testing.TB) {
	t.Helper()
	select {
	case <-p.done:
	default:
		t.Fatalf("BUG: restart of %s, which is running", p.name)
	}
	_, _ = fmt.Fprintf(p.log, "\n--- %s starts again ---\n", p.name)
	p.start(t)
}

// end signals the program and waits. It does nothing to one that has ended.
func (p *Process) end(sig syscall.Signal) error {
	if p.done == nil {
		return nil
	}
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal: %w", err)
	}
	select {
	case <-p.done:
		return p.exitError()
	case <-time.After(stopWait):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("still running %v after %v", stopWait, sig)
	}
}

func (p *Process) exitError() error {
	p.mtx.Lock()
	defer p.mtx.Unlock()
	return p.err
}

// Running tells whether the program has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// WaitExit waits for a program that ends by itself, and returns its exit code.
func (p *Process) WaitExit(t testing.TB, wait time.Duration) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(wait):
		t.Fatalf("%s is still running after %v\n%s", p.name, wait, p.log.tail(logTailLines))
	}
	var exit *exec.ExitError
	switch err := p.exitError(); {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	default:
		t.Fatalf("wait for %s: %v", p.name, err)
		return -1
	}
}

// Log returns everything that the program wrote so far, over all of its starts.
func (p *Process) Log() string { return p.log.String() }

// PID returns the number of the running process.
func (p *Process) PID() int { return p.cmd.Process.Pid }
