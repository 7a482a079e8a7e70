//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/efficientgo/e2e"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/fleet"
)

// wait bounds what a story waits for on a machine that is busy. Most of it takes a second.
const wait = 2 * time.Minute

// world is one network with what runs on it.
type world struct {
	*e2e.DockerEnvironment
	t   *testing.T
	log *containerLog
}

// container is a container of a world. A container that was stopped or killed can be started again; its ports on this
// machine are others then.
type container struct {
	e2e.Runnable
	t     *testing.T
	world *world
}

// newWorld makes a network, which goes with everything on it when the test ends.
func newWorld(t *testing.T, name string) *world {
	t.Helper()
	w := &world{t: t, log: &containerLog{}}
	env, err := e2e.New(e2e.WithName("koios-"+name), e2e.WithLogger(w.log))
	if err != nil {
		t.Fatalf("make the network %s: %v\n%s", name, err, w.log.tail(20))
	}
	w.DockerEnvironment = env
	t.Cleanup(func() {
		env.Close()
		if t.Failed() {
			t.Logf("last lines of the containers of %s:\n%s", name, w.log.tail(200))
		}
	})
	openTo(t, env.SharedDir())
	return w
}

// openTo lets the users of the containers write to a folder.
func openTo(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
}

// options are what a container may have besides its arguments.
type options struct {
	ports   map[string]int
	user    string
	volumes []string
	env     map[string]string
}

// container lays out a container without starting it.
func (w *world) container(name, image string, o options, args ...string) *container {
	w.t.Helper()
	r := w.Runnable(name).WithPorts(o.ports).Init(e2e.StartOptions{
		Image: image, User: o.user, Volumes: o.volumes, EnvVars: o.env, Command: e2e.Command{Args: args},
	})
	if err := r.BuildErr(); err != nil {
		w.t.Fatal(err)
	}
	return &container{Runnable: r, t: w.t, world: w}
}

// dir is a folder on this machine that every container of the world sees at the same path, and may write to.
func (w *world) dir(name string) string {
	w.t.Helper()
	dir := filepath.Join(w.SharedDir(), name)
	openTo(w.t, dir)
	return dir
}

// file writes a file that the containers of the world see at the path that it returns. A file that was there before is
// replaced at once.
func (w *world) file(name, content string) string {
	w.t.Helper()
	path := filepath.Join(w.SharedDir(), name)
	openTo(w.t, filepath.Dir(path))
	if err := os.WriteFile(path+".new", []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// The ports of Koios's components.
var koiosPorts = map[string]int{"http": 10902, "grpc": 10901}

// koios starts a component from the image: name is the container's, args begin with the component's.
func (w *world) koios(name string, args ...string) *container {
	w.t.Helper()
	return w.container(name, koiosImage, options{ports: koiosPorts}, args...).start()
}

// start starts a container and fails the test if it doesn't.
func (c *container) start() *container {
	c.t.Helper()
	// The name of a container that has just ended may be taken for a moment.
	name := c.world.Name() + "-" + c.Name()
	fleet.Eventually(c.t, "the name of "+c.Name()+" is free", wait, func() error {
		out, err := docker("ps", "-aq", "--filter=name=^"+name+"$")
		if err == nil && out != "" {
			err = fmt.Errorf("container %s is there", out)
		}
		return err
	})
	if err := c.Start(); err != nil {
		c.t.Fatalf("start %s: %v\n%s", c.Name(), err, c.world.log.tail(60))
	}
	return c
}

// ready waits until the component answers its readiness page.
func (c *container) ready() *container {
	c.t.Helper()
	fleet.Eventually(c.t, c.Name()+" is ready", wait, func() error {
		status, body := fleet.Get(c.t.Context(), c.url()+"/-/ready")
		if status != http.StatusOK {
			return fmt.Errorf("status %d %s\n%s", status, body, c.world.log.tail(10))
		}
		return nil
	})
	return c
}

// stop ends a container as an orchestrator does, with SIGTERM, and waits.
func (c *container) stop() {
	c.t.Helper()
	if err := c.Stop(); err != nil {
		c.t.Fatalf("stop %s: %v", c.Name(), err)
	}
}

// kill ends a container with SIGKILL.
func (c *container) kill() {
	c.t.Helper()
	if err := c.Kill(); err != nil {
		c.t.Fatalf("kill %s: %v", c.Name(), err)
	}
}

// url is where this machine reaches the HTTP server of the container.
func (c *container) url() string { return "http://" + c.Endpoint("http") }

// metric is the sum of a metric of the container.
func (c *container) metric(name string, with ...string) float64 {
	c.t.Helper()
	v, _ := fleet.Metric(c.t.Context(), c.url()+"/metrics", name, with...)
	return v
}

// ask asks a question that must have an answer.
func (c *container) ask(q answer.Query) *answer.Answer {
	c.t.Helper()
	a, err := answer.Ask(c.t.Context(), c.url(), q)
	if err != nil {
		c.t.Fatalf("%s at %s: %v\n%s", q.Expr, c.Name(), err, c.world.log.tail(30))
	}
	return a
}

// waitStores waits until a querier lists n endpoints, each of them without an error.
func (c *container) waitStores(n int) {
	c.t.Helper()
	fleet.Eventually(c.t, fmt.Sprintf("%s sees %d endpoints", c.Name(), n), wait, func() error {
		seen := 0
		for name, refused := range c.stores() {
			if refused != "" {
				return fmt.Errorf("%s: %s", name, refused)
			}
			seen++
		}
		if seen != n {
			return fmt.Errorf("it sees %d", seen)
		}
		return nil
	})
}

// stores are the endpoints that a querier lists, each with the last error.
func (c *container) stores() map[string]string {
	c.t.Helper()
	var byType map[string][]struct {
		Name      string  `json:"name"`
		LastError *string `json:"lastError"`
	}
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.url()+"/api/v1/stores", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := answer.Do(req, &byType); err != nil {
		c.t.Fatalf("stores of %s: %v", c.Name(), err)
	}
	all := map[string]string{}
	for _, list := range byType {
		for _, s := range list {
			all[s.Name] = ""
			if s.LastError != nil {
				all[s.Name] = *s.LastError
			}
		}
	}
	return all
}

// containerLog keeps what the containers of a world write. Its methods may be called in parallel.
type containerLog struct {
	mtx   sync.Mutex
	lines []string
}

// logLines bounds the lines that are kept of a world.
const logLines = 5000

// Log implements e2e.Logger.
func (l *containerLog) Log(keyvals ...any) error {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	l.lines = append(l.lines, strings.TrimSpace(fmt.Sprintln(keyvals...)))
	if len(l.lines) > logLines {
		l.lines = l.lines[len(l.lines)-logLines/2:]
	}
	return nil
}

// tail returns the last n lines that contain all the words.
func (l *containerLog) tail(n int, words ...string) string {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	var last []string
	for i := len(l.lines) - 1; i >= 0 && len(last) < n; i-- {
		if contains(l.lines[i], words) {
			last = append(last, l.lines[i])
		}
	}
	slices.Reverse(last)
	return strings.Join(last, "\n")
}

// line returns the last line that contains all the words, "" if there is none.
func (l *containerLog) line(words ...string) string { return l.tail(1, words...) }

func contains(line string, words []string) bool {
	return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
}
