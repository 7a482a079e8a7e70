package frontend

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"os/user"
	"syscall"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/koios-metrics/koios/pkg/frontend"
)

// server is a real memcached or Redis, which can be stopped, killed and started again on its port.
type server struct {
	t    *testing.T
	args []string
	addr string
	cmd  *exec.Cmd
}

func newServer(t *testing.T, program string, args func(port string) []string) *server {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is needed to test with: %v", program, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(addr)
	s := &server{t: t, args: append([]string{path}, args(port)...), addr: addr}
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("tcp", s.addr); err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s does not listen", s.args[0])
		}
	}
}

func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *server) signal(sig syscall.Signal) {
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(sig)
	}
}

// Shows that a real memcached and a real Redis that are stalled, killed, restarted and small while queries run make
// neither an error nor a wrong answer, and that they are of use.
func TestRealCacheServers(t *testing.T) {
	kinds := map[string]struct {
		program string
		args    func(port string) []string
		config  string
	}{
		"memcached": {"memcached", func(port string) []string {
			args := []string{"-l", "127.0.0.1", "-p", port, "-U", "0", "-m", "2"} // small: it forgets
			if u, err := user.Current(); err == nil && u.Uid == "0" {
				args = append(args, "-u", "root")
			}
			return args
		}, "{type: MEMCACHED, config: {addresses: [%s], timeout: 100ms}}"},
		"redis": {"redis-server", func(port string) []string {
			return []string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru"}
		}, "{type: REDIS, config: {addr: '%s', read_timeout: 100ms}}"},
	}
	for kind, k := range kinds {
		t.Run(kind, func(t *testing.T) {
			s := newServer(t, k.program, k.args)
			cfg, err := frontend.ParseCache([]byte(fmt.Sprintf(k.config, s.addr)))
			if err != nil {
				t.Fatal(err)
			}
			reg := prometheus.NewRegistry()
			c, err := cfg.Open(t.Context(), "query_range", log.NewNopLogger(), reg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			w := newWorld(t, 42)
			w.now.Store(begin + length)
			w.metadata.Cache = c
			w.setFrontend(t, standard(c))
			rnd := rand.New(rand.NewPCG(42, 6))
			favourites := []string{`sum by (job) (rate(requests_total[5m]))`, `temperature`, `max_over_time(temperature[10m])`}
			for i := range 200 {
				switch i {
				case 60:
					s.signal(syscall.SIGSTOP)
				case 90:
					s.signal(syscall.SIGCONT)
				case 120:
					s.kill()
				case 150:
					s.start()
				}
				if rnd.IntN(6) == 0 {
					w.checkMetadata(t, rnd, 42)
					continue
				}
				form, header := question(rnd, w, favourites[rnd.IntN(len(favourites))], 60_000)
				want, got := alike(ask(t, t.Context(), w.querier.URL, alignedForm(form), header)), alike(ask(t, t.Context(), w.frontend.URL, form, header))
				if got.Code != http.StatusOK {
					t.Fatalf("question %d: %d", i, got.Code)
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Fatalf("question %d: %v\nquerier against frontend: %s", i, form, d)
				}
			}
			if hits := counter(t, reg, "cortex_cache_hits_total", "tripperware", "query_range"); hits < 20 {
				t.Errorf("%v entries were found: the server was of no use", hits)
			}
		})
	}
}
