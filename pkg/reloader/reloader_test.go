package reloader

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	check(t, os.MkdirAll(filepath.Dir(path), 0o777))
	check(t, os.WriteFile(path, []byte(content), 0o666))
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	check(t, err)
	return string(b)
}

// eventually polls until cond is true; the deadline only ends a test that has failed.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// counting is a trigger that counts, and fails while told so.
type counting struct {
	mu   sync.Mutex
	n    int
	fail bool
}

func (c *counting) Method() string { return "http" }

func (c *counting) Reload(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	if c.fail {
		return errors.New("prometheus is away")
	}
	return nil
}

func (c *counting) setFail(fail bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = fail
}

func (c *counting) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// start runs a Reloader until the test ends, and checks that nothing of it stays behind. The interval
// between looks is long unless the test sets it: events have to do.
func start(t *testing.T, cfg Config) (*Reloader, *counting) {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	trigger := &counting{}
	if cfg.Settle == 0 {
		cfg.Settle = time.Millisecond
	}
	if cfg.WatchInterval == 0 {
		cfg.WatchInterval = time.Hour
	}
	if cfg.RetryInterval == 0 {
		cfg.RetryInterval = 5 * time.Millisecond
	}
	r, err := New(cfg, trigger, log.NewNopLogger(), prometheus.NewRegistry())
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		goleak.VerifyNone(t, leaks)
	})
	return r, trigger
}

// reloadsAre waits until there have been this many reloads.
func reloadsAre(t *testing.T, c *counting, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("reload %d", want), func() bool { return c.count() >= want })
}

// Shows that a change of the configuration writes the output, with variables filled in, and reloads; and
// that writing the same contents again does not.
func TestConfigChange(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in", "prometheus.yml"), filepath.Join(dir, "out", "prometheus.yml")
	t.Setenv("RELOADER_TEST_REPLICA", "a")
	write(t, in, "replica: $(RELOADER_TEST_REPLICA)\n")
	check(t, os.Mkdir(filepath.Dir(out), 0o777))
	r, c := start(t, Config{ConfigFile: in, ConfigEnvsubstFile: out})
	reloadsAre(t, c, 1)
	if got := read(t, out); got != "replica: a\n" {
		t.Fatalf("output is %q", got)
	}

	write(t, in, "replica: $(RELOADER_TEST_REPLICA)\nx: 1\n")
	reloadsAre(t, c, 2)
	if got := read(t, out); got != "replica: a\nx: 1\n" {
		t.Fatalf("output is %q", got)
	}

	looks := testutil.ToFloat64(r.metrics.applies)
	write(t, in, "replica: $(RELOADER_TEST_REPLICA)\nx: 1\n")
	eventually(t, "a look at the unchanged file", func() bool { return testutil.ToFloat64(r.metrics.applies) > looks })
	if c.count() != 2 {
		t.Fatalf("%d reloads without a change", c.count()-2)
	}
	if got := testutil.ToFloat64(r.metrics.lastReloadOK); got != 1 {
		t.Fatalf("last_reload_successful is %v", got)
	}
	if left, _ := filepath.Glob(out + "*"); len(left) != 1 {
		t.Fatalf("left over: %v", left)
	}
}

// Shows that a compressed configuration comes out plain, and that one that is only half there does not
// come out at all.
func TestGzip(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "prometheus.yml.gz"), filepath.Join(dir, "prometheus.yml")
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	fmt.Fprint(w, "global: {}\n")
	check(t, w.Close())
	write(t, in, z.String()[:z.Len()-6])
	r, c := start(t, Config{ConfigFile: in, ConfigEnvsubstFile: out})
	eventually(t, "a failed look", func() bool { return testutil.ToFloat64(r.metrics.applyFailures) > 0 })
	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) || c.count() != 0 {
		t.Fatalf("half a file came out: %v, %d reloads", err, c.count())
	}
	write(t, in, z.String())
	reloadsAre(t, c, 1)
	if got := read(t, out); got != "global: {}\n" {
		t.Fatalf("output is %q", got)
	}
}

// Shows that a reload that fails is tried again until it succeeds, and counted.
func TestRetry(t *testing.T) {
	in := filepath.Join(t.TempDir(), "prometheus.yml")
	write(t, in, "a")
	r, c := start(t, Config{ConfigFile: in})
	reloadsAre(t, c, 1)
	c.setFail(true)
	write(t, in, "b")
	reloadsAre(t, c, 4)
	if got := testutil.ToFloat64(r.metrics.lastReloadOK); got != 0 {
		t.Fatalf("last_reload_successful is %v", got)
	}
	c.setFail(false)
	eventually(t, "a success", func() bool { return testutil.ToFloat64(r.metrics.lastReloadOK) == 1 })
	if total, failed := testutil.ToFloat64(r.metrics.reloads), testutil.ToFloat64(r.metrics.reloadFailures); failed < 3 || total != failed+2 {
		t.Fatalf("%v reloads, %v failed", total, failed)
	}
}

// Shows that a variable that is not set refuses the file and is counted by name; the old output stays.
// Tolerated, the reference stays in the output.
func TestUndefinedVariable(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	write(t, in, "ok")
	r, c := start(t, Config{ConfigFile: in, ConfigEnvsubstFile: out})
	reloadsAre(t, c, 1)
	write(t, in, "$(RELOADER_TEST_NONE) $(RELOADER_TEST_NONE) $(RELOADER_TEST_NEITHER)")
	eventually(t, "two errors", func() bool { return testutil.ToFloat64(r.metrics.expansionErrors) == 2 })
	eventually(t, "a failed look", func() bool { return testutil.ToFloat64(r.metrics.applyFailures) > 0 })
	if got := read(t, out); got != "ok" || c.count() != 1 {
		t.Fatalf("output is %q after %d reloads", got, c.count())
	}
	write(t, in, "$(not a variable) $$(x $")
	reloadsAre(t, c, 2)
	if got := testutil.ToFloat64(r.metrics.expansionErrors); got != 0 {
		t.Fatalf("%v expansion errors", got)
	}

	tolerant := filepath.Join(dir, "tolerant")
	write(t, in, "x $(RELOADER_TEST_NONE)")
	r, c = start(t, Config{ConfigFile: in, ConfigEnvsubstFile: tolerant, TolerateUndefined: true})
	reloadsAre(t, c, 1)
	if got := read(t, tolerant); got != "x $(RELOADER_TEST_NONE)" || testutil.ToFloat64(r.metrics.expansionErrors) != 1 {
		t.Fatalf("output is %q", got)
	}
}

// Shows that every way in which rule files change is noticed by events alone: written, added, removed,
// renamed, in subdirectories old and new, and behind symbolic links.
func TestRuleDirs(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "a.yml"), "a")
	write(t, filepath.Join(dir, "sub", "b.yml"), "b")
	write(t, filepath.Join(elsewhere, "c.yml"), "c")
	write(t, filepath.Join(elsewhere, "tree", "d.yml"), "d")
	check(t, os.Symlink(filepath.Join(elsewhere, "c.yml"), filepath.Join(dir, "c.yml")))
	check(t, os.Symlink(filepath.Join(elsewhere, "tree"), filepath.Join(dir, "tree")))
	check(t, os.Symlink(dir, filepath.Join(dir, "loop")))

	r, c := start(t, Config{RuleDirs: []string{dir}})
	reloadsAre(t, c, 1)
	for _, step := range []struct {
		what   string
		change func()
	}{
		{"write", func() { write(t, filepath.Join(dir, "a.yml"), "a2") }},
		{"add", func() { write(t, filepath.Join(dir, "a2.yml"), "x") }},
		{"rename", func() { check(t, os.Rename(filepath.Join(dir, "a2.yml"), filepath.Join(dir, "a3.yml"))) }},
		{"write below", func() { write(t, filepath.Join(dir, "sub", "b.yml"), "b2") }},
		{"write where a link leads", func() { write(t, filepath.Join(elsewhere, "c.yml"), "c2") }},
		{"write in a linked directory", func() { write(t, filepath.Join(elsewhere, "tree", "d.yml"), "d2") }},
	} {
		before := c.count()
		step.change()
		eventually(t, "a reload after: "+step.what, func() bool { return c.count() > before })
	}
	before := c.count()
	write(t, filepath.Join(dir, "new", "deep", "e.yml"), "e")
	eventually(t, "a reload for a new subdirectory", func() bool { return c.count() > before })
	eventually(t, "a reload for a file in it", func() bool {
		write(t, filepath.Join(dir, "new", "deep", "e.yml"), fmt.Sprint(c.count()))
		return c.count() > before+2
	})
	before = c.count()
	check(t, os.RemoveAll(filepath.Join(dir, "new")))
	eventually(t, "a reload after removal", func() bool { return c.count() > before })
	if testutil.ToFloat64(r.metrics.watches) < 4 || testutil.ToFloat64(r.metrics.watchEvents) == 0 {
		t.Fatalf("%v watches, %v events", testutil.ToFloat64(r.metrics.watches), testutil.ToFloat64(r.metrics.watchEvents))
	}
}

// Shows that the swap of a mounted ConfigMap is noticed, for a configuration and a directory of rules:
// the files are links into ..data, which is itself a link that is renamed over.
func TestConfigMapSwap(t *testing.T) {
	mount := func(dir string, files map[string]string) {
		stamp, err := os.MkdirTemp(dir, "..2025_")
		check(t, err)
		for name, content := range files {
			write(t, filepath.Join(stamp, name), content)
			link := filepath.Join(dir, name)
			if _, err := os.Lstat(link); err != nil {
				check(t, os.Symlink(filepath.Join("..data", name), link))
			}
		}
		old, _ := os.Readlink(filepath.Join(dir, "..data"))
		check(t, os.Symlink(filepath.Base(stamp), filepath.Join(dir, "..data_tmp")))
		check(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		if old != "" {
			check(t, os.RemoveAll(filepath.Join(dir, old)))
		}
	}
	config, rules, out := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "out.yml")
	mount(config, map[string]string{"prometheus.yml": "one"})
	mount(rules, map[string]string{"a.yml": "one"})
	// Some mount a single file by a link of their own.
	link := filepath.Join(t.TempDir(), "linked.yml")
	check(t, os.Symlink(filepath.Join(config, "prometheus.yml"), link))

	_, c := start(t, Config{ConfigFile: link, ConfigEnvsubstFile: out, RuleDirs: []string{rules}})
	reloadsAre(t, c, 1)
	for i := range 3 {
		before := c.count()
		mount(config, map[string]string{"prometheus.yml": fmt.Sprint("config ", i)})
		eventually(t, "the new configuration", func() bool { return read(t, out) == fmt.Sprint("config ", i) && c.count() > before })
		before = c.count()
		mount(rules, map[string]string{"a.yml": fmt.Sprint("rules ", i)})
		eventually(t, "a reload for new rules", func() bool { return c.count() > before })
	}
}

// Shows that what can't be watched is still looked at each interval, that a missing directory is an error
// that heals, and that a Reloader with nothing to do does nothing.
func TestIntervalAndMissing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet")
	r, c := start(t, Config{RuleDirs: []string{dir}, WatchInterval: 5 * time.Millisecond})
	eventually(t, "failed looks", func() bool { return testutil.ToFloat64(r.metrics.applyFailures) > 2 })
	write(t, filepath.Join(dir, "a.yml"), "a")
	reloadsAre(t, c, 1)

	_, c = start(t, Config{})
	if c.count() != 0 {
		t.Fatal("reloaded nothing")
	}
}

// Shows that moving bytes from one file to the next, or renaming one, changes the hash.
func TestHashFramesFiles(t *testing.T) {
	of := func(files map[string]string) digest {
		dir := filepath.Join(t.TempDir(), "r")
		check(t, os.Mkdir(dir, 0o777))
		tr := newTree()
		for name, content := range files {
			write(t, filepath.Join(dir, name), content)
		}
		check(t, os.Chdir(filepath.Dir(dir)))
		check(t, tr.rules("r"))
		return tr.sum()
	}
	wd, err := os.Getwd()
	check(t, err)
	defer func() { check(t, os.Chdir(wd)) }()
	seen := map[digest]bool{}
	for _, files := range []map[string]string{
		{"a": "xy", "b": "z"}, {"a": "x", "b": "yz"}, {"ab": "xy", "b": "z"}, {"a": "xy"}, {"a": "xy", "b": "z", "c": ""},
	} {
		seen[of(files)] = true
	}
	if len(seen) != 5 {
		t.Fatalf("%d different hashes, want 5", len(seen))
	}
}

// Shows what the HTTP trigger asks for, with a prefix, and that a refusal says what to do.
func TestHTTPTrigger(t *testing.T) {
	status := http.StatusOK
	var got string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Method + " " + r.URL.Path
		http.Error(w, "Lifecycle API is not enabled.", status)
	}))
	defer srv.Close()
	u, err := url.Parse(srv.URL + "/prefix/")
	check(t, err)
	tr := &HTTPTrigger{URL: u, Client: srv.Client()}
	check(t, tr.Reload(context.Background()))
	if got != "POST /prefix/-/reload" {
		t.Fatalf("asked %s", got)
	}
	status = http.StatusForbidden
	if err := tr.Reload(context.Background()); err == nil || !strings.Contains(err.Error(), "--web.enable-lifecycle") {
		t.Fatalf("error %v", err)
	}
}

// Shows which processes get the signal, and that the outcome is asked for: a signal has no answer.
func TestSignalTrigger(t *testing.T) {
	proc := t.TempDir()
	process := func(pid, comm, cmdline string) {
		write(t, filepath.Join(proc, pid, "comm"), comm+"\n")
		write(t, filepath.Join(proc, pid, "cmdline"), cmdline)
	}
	process("7", "prometheus", "/bin/prometheus\x00--x")
	process("8", "thanos", "/bin/thanos\x00prometheus")
	process("9", "prometheus-wit-", "/bin/prometheus-with-a-long-name\x00")
	process("notapid", "prometheus", "/bin/prometheus")
	process(fmt.Sprint(os.Getpid()), "prometheus", "prometheus")
	check(t, os.Mkdir(filepath.Join(proc, "10"), 0o777))

	find := func(name string, want ...int) {
		t.Helper()
		got, err := findProcesses(proc, name)
		check(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", name, diff)
		}
	}
	find("prometheus", 7)
	find("prometheus-with-a-long-name", 9)
	find("none")

	var mu sync.Mutex
	ok, last, after := true, time.Unix(1, 0).UTC(), func() {}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(w, `{"status":"success","data":{"reloadConfigSuccess":%v,"lastConfigTime":%q}}`, ok, last.Format(time.RFC3339))
	}))
	defer srv.Close()
	u, err := url.Parse(srv.URL)
	check(t, err)
	var killed []int
	tr := &SignalTrigger{ProcessName: "prometheus", Proc: proc, URL: u, Client: srv.Client(), Wait: 300 * time.Millisecond,
		kill: func(pid int, sig syscall.Signal) error {
			mu.Lock()
			defer mu.Unlock()
			killed = append(killed, pid)
			if sig != syscall.SIGHUP {
				t.Errorf("sent %v", sig)
			}
			after()
			return nil
		}}
	outcome := func(want string, f func()) {
		t.Helper()
		after = f
		err := tr.Reload(context.Background())
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Fatalf("error %v, want %q", err, want)
		}
	}
	outcome("", func() { last = last.Add(time.Minute) })
	outcome("still runs its old configuration", func() {})
	outcome("refused", func() { ok = false })
	outcome("", func() { ok, last = true, last.Add(time.Minute) })
	if len(killed) != 4 {
		t.Fatalf("killed %v", killed)
	}
	tr.ProcessName = "none"
	outcome("--reloader.process-name", func() {})
}

// Shows that contradictions are explained.
func TestValidate(t *testing.T) {
	for want, cfg := range map[string]Config{
		"needs --reloader.config-file":     {ConfigEnvsubstFile: "x"},
		"overwrite":                        {ConfigFile: "x", ConfigEnvsubstFile: "x"},
		"--reloader.watch-interval is -1s": {WatchInterval: -time.Second},
		"--reloader.retry-interval is -1s": {RetryInterval: -time.Second},
	} {
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// Shows the names of all metrics that are there from the first scrape.
func TestMetricNames(t *testing.T) {
	reg := prometheus.NewRegistry()
	_, err := New(Config{}, &counting{}, log.NewNopLogger(), reg)
	check(t, err)
	fams, err := reg.Gather()
	check(t, err)
	var got []string
	for _, f := range fams {
		got = append(got, strings.TrimPrefix(f.GetName(), "thanos_sidecar_reloader_"))
	}
	want := []string{
		"config_apply_operations_failed_total", "config_apply_operations_total", "config_environment_variable_expansion_errors",
		"info", "last_reload_success_timestamp_seconds", "last_reload_successful", "reloads_failed_total", "reloads_total",
		"watch_errors_total", "watch_events_total", "watches",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
}

// Whatever a configuration holds, expansion touches nothing but references, and what it can't fill in
// it names.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"$(A)", "$(B)$(A)", "$$(A)", "$(A", "$()", "${A}", "$(1)", "\xff$(A)"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		out, undefined := expand(text, func(name string) (string, bool) { return "$(" + name + ")", name == "A" })
		if !bytes.Equal(out, text) {
			t.Fatalf("%q became %q", text, out)
		}
		for _, name := range undefined {
			if name == "A" || !bytes.Contains(text, []byte("$("+name+")")) {
				t.Fatalf("%q is said to be undefined", name)
			}
		}
	})
}
