package components

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
)

// asProgram makes the test binary behave as the program, so that tests see real processes.
const asProgram = "KOIOS_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		code := Main("koios", os.Args[1:], All()...)
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// program is a running koios.
type program struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mtx sync.Mutex
	log bytes.Buffer
}

func (p *program) Write(b []byte) (int, error) {
	p.mtx.Lock()
	defer p.mtx.Unlock()
	return p.log.Write(b)
}

func (p *program) text() string {
	p.mtx.Lock()
	defer p.mtx.Unlock()
	return p.log.String()
}

// start runs koios; it is killed at the end of the test if it still runs.
func start(t *testing.T, args ...string) *program {
	t.Helper()
	p := &program{cmd: exec.Command(os.Args[0], args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stderr, p.cmd.Stdout = p, p
	p.cmd.Dir = t.TempDir()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("log of koios %s:\n%s", args[0], p.text())
		}
	})
	return p
}

// end waits for the end of the program and returns its exit code.
func (p *program) end(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		t.Fatal("the program does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

var httpAddress = regexp.MustCompile(`service=http .*address=(\S+)`)

// url waits until the program serves HTTP.
func (p *program) url(t *testing.T) string {
	t.Helper()
	var u string
	waitFor(t, "HTTP is served", func() bool {
		if m := httpAddress.FindStringSubmatch(p.text()); m != nil {
			u = "http://" + m[1]
		}
		return u != ""
	})
	return u
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

var anyPort = []string{"--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"}

// deadURL is the address of a server that is gone.
func deadURL() string {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	return s.URL
}

// arguments are what each component needs at least, over nothing.
func arguments(t *testing.T, component string, more ...string) []string {
	t.Helper()
	args := append([]string{component}, anyPort...)
	bucket := "--objstore.config={type: FILESYSTEM, config: {directory: " + t.TempDir() + "}}"
	switch component {
	case "sidecar":
		args = append(args, "--prometheus.url="+deadURL(), "--tsdb.path="+t.TempDir())
	case "store":
		args = append(args, "--data-dir="+t.TempDir(), bucket)
	case "compact":
		args = append(slices.DeleteFunc(args, func(a string) bool { return strings.HasPrefix(a, "--grpc") }), "--wait", "--data-dir="+t.TempDir(), bucket)
	case "query-frontend":
		args = append(slices.DeleteFunc(args, func(a string) bool { return strings.HasPrefix(a, "--grpc") }), "--query-frontend.downstream-url="+deadURL())
	case "standalone":
		args = append(args, "--data-dir="+t.TempDir())
	}
	return append(args, more...)
}

// longRunning are the components that run until they are told to end.
func longRunning() (names []string) {
	for _, c := range All() {
		if len(c.subs) == 0 && !c.quiet {
			names = append(names, c.name)
		}
	}
	return names
}

// Every component is healthy from its first answer, says so in its metrics, and ends with code 0 at a
// signal, after it has turned not ready.
func TestLife(t *testing.T) {
	for _, name := range longRunning() {
		t.Run(name, func(t *testing.T) {
			p := start(t, arguments(t, name)...)
			u := p.url(t)
			if code, body := get(t, u+"/-/healthy"); code != 200 || body != "OK" {
				t.Errorf("healthy: %d %q", code, body)
			}
			if name == "sidecar" || name == "query-frontend" { // What it stands before is gone.
				if code, body := get(t, u+"/-/ready"); code != 503 || body != "NOT OK" {
					t.Errorf("ready: %d %q", code, body)
				}
			} else {
				waitFor(t, "ready", func() bool { code, _ := get(t, u+"/-/ready"); return code == 200 })
			}
			_, metrics := get(t, u+"/metrics")
			if want := fmt.Sprintf("thanos_status{check=%q,component=%q} 1", "healthy", name); !strings.Contains(metrics, want) {
				t.Errorf("metrics lack %s", want)
			}
			if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the reload", func() bool { return strings.Contains(p.text(), "reload") })
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if code := p.end(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
			for _, line := range []string{"signal=terminated", "msg=ended"} {
				if !strings.Contains(p.text(), line) {
					t.Errorf("the log lacks %s", line)
				}
			}
		})
	}
}

// What can't work ends the process with code 1, and its last line on standard error says what and where.
func TestBadStarts(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bad := file("bad.yml", "a: [")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()

	f := func(want, component string, more ...string) {
		t.Helper()
		p := start(t, arguments(t, component, more...)...)
		code := p.end(t)
		lines := strings.Split(strings.TrimSpace(p.text()), "\n")
		if last := lines[len(lines)-1]; code != 1 || !strings.Contains(last, want) {
			t.Errorf("%q: code %d, last line: %s\nwant %s", more, code, last, want)
		}
	}
	f("Error: unknown flag --tsdb.pat: did you mean --tsdb.path?", "sidecar", "--tsdb.pat=x")
	f(`level=error msg="sidecar ends" err="flags --objstore.config and --objstore.config-file exclude each other: give one of them"`, "sidecar", "--objstore.config=x", "--objstore.config-file=y")
	f(`err="flag --objstore.config-file: open /nowhere/b.yml: no such file or directory"`, "sidecar", "--objstore.config-file=/nowhere/b.yml")
	f(`err="flag --objstore.config: environment variable NOT_SET_ANYWHERE is referred to as $(NOT_SET_ANYWHERE) and not set"`, "sidecar", "--objstore.config=$(NOT_SET_ANYWHERE)")
	f("flag --objstore.config: ", "sidecar", "--objstore.config=a: [")
	f("flag --prometheus.http-client: ", "sidecar", "--prometheus.http-client-file="+bad)
	f("flag --tracing.config: parse tracing config: yaml", "sidecar", "--tracing.config-file="+bad)
	f("flag --request.logging-config: parse request logging config: yaml", "sidecar", "--request.logging-config-file="+bad)
	f("flag --http.config: read http config "+bad+": yaml", "sidecar", "--http.config="+bad)
	f(`err="gRPC server: TLS needs both a server certificate and its key"`, "sidecar", "--grpc-server-tls-cert="+bad)
	f(`err="gRPC server: load TLS certificate `+bad+" with key "+bad+": tls: failed to find any PEM data", "sidecar", "--grpc-server-tls-cert="+bad, "--grpc-server-tls-key="+bad)
	f(`unknown TLS curve \"P1\"`, "sidecar", "--grpc-server-tls-cert="+bad, "--grpc-server-tls-key="+bad, "--grpc-server-tls-curves=P1")
	f(`err="auto-gomemlimit.ratio 2: want more than 0 and at most 1"`, "sidecar", "--enable-auto-gomemlimit", "--auto-gomemlimit.ratio=2")

	f(`flag --selector.relabel-config: `, "store", "--selector.relabel-config=[{action: replace, target_label: a}]")
	f(`flag --index-cache.config: index cache config: type: \"TAPE\"`, "store", "--index-cache.config=type: TAPE")
	f("guess", "store", "--block-discovery-strategy=guess")
	f(`flag --web.external-prefix: `, "store", "--web.external-prefix=/a{b}")
	f(`must be 0 where --query-range.horizontal-shards`, "query-frontend", "--query-range.horizontal-shards=4")
	f(`need each other`, "query-frontend", "--query-range.horizontal-shards=4", "--query-range.split-interval=0")
	f(`err="flag --labels.default-time-range must be above 0"`, "query-frontend", "--labels.default-time-range=0s")
	f(`--query-frontend.org-id-header and --query-frontend.tenant-header exclude each other`, "query-frontend", "--query-frontend.org-id-header=a", "--query-frontend.tenant-header=b")
	f(`flag --query-range.response-cache-config: parse response cache config: type: \"TAPE\"`, "query-frontend", "--query-range.response-cache-config=type: TAPE")
	f(`flag --query-frontend.downstream-tripper-config: parse downstream tripper config: yaml`, "query-frontend", "--query-frontend.downstream-tripper-config=a: 1")
	f(`a results cache needs queries to be split`, "query-frontend", "--query-range.split-interval=0", "--query-range.response-cache-config={type: IN-MEMORY, config: {max_size: 1MB}}")
	f(`a cache of labels needs requests to be split`, "query-frontend", "--labels.split-interval=0", "--labels.response-cache-config={type: IN-MEMORY, config: {max_size: 1MB}}")
	f(`\"a=b\" is no weight like team-a=2`, "query-frontend", "--query-frontend.tenant-weight=a=b")
	f(`flag --cache-compression-type: \"zstd\" is neither empty nor snappy`, "query-frontend", "--cache-compression-type=zstd")
	f(`flag --selector-label: \"a\" is no label like name=\"value\"`, "query", "--selector-label=a")
	f(`flags --endpoint.sd-config and --endpoint.sd-config-file exclude each other`, "query", "--endpoint.sd-config=a", "--endpoint.sd-config-file=b")
	f("/nowhere/sd.yml", "query", "--endpoint.sd-config-file=/nowhere/sd.yml")
	f("smoke", "query", "--store.sd-dns-resolver=smoke")
	f("dns+", "query", "--endpoint-strict=dns+a:1")
	f("/nowhere/ca", "query", "--grpc-client-tls-secure", "--grpc-client-tls-ca=/nowhere/ca", "--endpoint=a:1")

	p := start(t, append([]string{"store", "--data-dir=" + t.TempDir()}, anyPort...)...)
	if code := p.end(t); code != 1 || !strings.Contains(p.text(), "one of the flags --objstore.config and --objstore.config-file is required") {
		t.Errorf("no bucket: code %d\n%s", code, p.text())
	}
	p = start(t, "sidecar", "--prometheus.url="+deadURL(), "--grpc-address=127.0.0.1:0", "--http-address="+taken.Addr().String())
	if code := p.end(t); code != 1 || !strings.Contains(p.text(), fmt.Sprintf("listen for HTTP on %s: listen tcp %s: bind: address already in use", taken.Addr(), taken.Addr())) {
		t.Errorf("port in use: code %d\n%s", code, p.text())
	}
}

// A second signal ends a process that is still draining, at once and with code 1.
func TestSecondSignal(t *testing.T) {
	p := start(t, arguments(t, "sidecar")...)
	p.url(t)
	addr := regexp.MustCompile(`service=grpc .*address=(\S+)`).FindStringSubmatch(p.text())[1]
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cc.Close() }()
	// A stream that nobody ends is a call in flight.
	stream, err := reflectionpb.NewServerReflectionClient(cc).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
	if err := stream.Send(list); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end begins", func() bool { return strings.Contains(p.text(), "signal=terminated") })
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := p.end(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(p.text(), "ended without waiting") {
		t.Error("the log does not say why")
	}
}

// Flags that have no effect yet, and flags that are gone, are each warned of once, and only when set.
func TestFlagWarnings(t *testing.T) {
	f := func(component string, warn map[string]string, args ...string) {
		t.Helper()
		c, fault := parse(t, append(strings.Fields(component), args...)...)
		if c == nil {
			t.Fatal(fault)
		}
		var logs bytes.Buffer
		logger := testLogger(t, &logs)
		p := newProcess(component, c.flags, logger)
		p.warnLater()
		got := map[string]string{}
		for line := range strings.Lines(logs.String()) {
			flag := regexp.MustCompile(`flag=--(\S+)`).FindStringSubmatch(line)[1]
			if got[flag] != "" {
				t.Errorf("--%s is warned of twice", flag)
			}
			got[flag] = line
		}
		for flag, word := range warn {
			if !strings.Contains(got[flag], word) || !strings.Contains(got[flag], "level=warn") {
				t.Errorf("%s: --%s is warned of with %q", component, flag, got[flag])
			}
			delete(got, flag)
		}
		if len(got) > 0 {
			t.Errorf("%s: unexpected warnings %v", component, got)
		}
	}
	f("sidecar", nil)
	f("store", nil)
	f("query", nil)
	f("store", map[string]string{"debug.advertise-compatibility-label": "is gone"}, "--debug.advertise-compatibility-label")
	f("query", map[string]string{"store": "is gone", "rule": "--endpoint", "log.request.decision": "--request.logging-config"},
		"--store=a:1", "--store=b:1", "--rule=c:1", "--log.request.decision=NoLogCall")
	// Every flag of the table, set to something else than its default.
	for component, flags := range later {
		for name := range flags {
			c, _ := parse(t, strings.Fields(component)...)
			f(component, map[string]string{name: "no effect yet"}, otherThanDefault(t, c.flags.get(name))...)
		}
	}
}

// otherThanDefault returns arguments that change a flag.
func otherThanDefault(t *testing.T, fl *declared) []string {
	t.Helper()
	arg := "--" + fl.name
	def := strings.Join(fl.def, "")
	switch kind := fl.kind; {
	case kind == "bool" && def == "true":
		return []string{"--no-" + fl.name}
	case kind == "bool":
		return []string{arg}
	case strings.Contains(kind, "enum"):
		for word := range strings.SplitSeq(kind[strings.Index(kind, "(")+1:len(kind)-1], ",") {
			if word != `""` && !strings.Contains(def, word) {
				return []string{arg + "=" + word}
			}
		}
	case strings.Contains(kind, "duration"):
		return []string{arg + "=77s"}
	case strings.Contains(kind, "string"), strings.Contains(kind, "yaml"), strings.Contains(kind, "address"):
		return []string{arg + "=other:1"}
	}
	return []string{arg + "=77"}
}

// errors that hold several lines become one.
func TestOneLine(t *testing.T) {
	err := errors.Join(errors.New("a"), errors.New("b"))
	if got := oneLine(err); got != "a; b" {
		t.Errorf("%q", got)
	}
}
