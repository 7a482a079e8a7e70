package cache

import (
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"os/user"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

// process is a real memcached or Redis on a port of its own.
type process struct {
	t    testing.TB
	args []string
	addr string
	cmd  *exec.Cmd
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func startProcess(t testing.TB, program, debian string, args func(port string) []string) *process {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is needed to test with: install it, for example with apt-get install %s", program, debian)
	}
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	p := &process{t: t, args: append([]string{path}, args(port)...), addr: addr}
	p.start()
	t.Cleanup(p.kill)
	return p
}

func startMemcached(t testing.TB) *process {
	return startProcess(t, "memcached", "memcached", func(port string) []string {
		args := []string{"-l", "127.0.0.1", "-p", port, "-U", "0", "-m", "64"}
		if u, err := user.Current(); err == nil && u.Uid == "0" {
			args = append(args, "-u", "root")
		}
		return args
	})
}

func startRedis(t testing.TB) *process {
	dir := t.TempDir()
	return startProcess(t, "redis-server", "redis-server", func(port string) []string {
		return []string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", dir}
	})
}

func (p *process) start() {
	p.t.Helper()
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	eventually(p.t, p.args[0]+" listens", func() bool {
		c, err := net.Dial("tcp", p.addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never became true that %s", what)
		}
	}
}

// kinds are the caches outside of this process, each with a real server.
var kinds = map[string]func(t testing.TB, addr string) Backend{
	"memcached": func(_ testing.TB, addr string) Backend {
		c := DefaultMemcachedConfig
		c.Addresses = []string{addr}
		return Backend{Type: Memcached, Memcached: c}
	},
	"redis": func(_ testing.TB, addr string) Backend {
		c := DefaultRedisConfig
		c.Addr = addr
		return Backend{Type: Redis, Redis: c}
	},
	"redis with a cache in the client": func(_ testing.TB, addr string) Backend {
		c := DefaultRedisConfig
		c.Addr, c.CacheSize = addr, 1<<20
		return Backend{Type: Redis, Redis: c}
	},
}

func startKind(t testing.TB, kind string) *process {
	if strings.HasPrefix(kind, "redis") {
		return startRedis(t)
	}
	return startMemcached(t)
}

func newCache(t testing.TB, b Backend, o Options) (*remote, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	o.Reg = reg
	c, err := New(t.Context(), "test", b, o)
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	t.Cleanup(func() { once.Do(func() { _ = c.Close() }) })
	r, ok := c.(*remote)
	if !ok {
		r = c.(*Peers).remote
	}
	return r, reg
}

// stored stores entries and waits until they are there.
func stored(t testing.TB, c Cache, entries ...Entry) {
	t.Helper()
	c.Store(entries...)
	for _, e := range entries {
		eventually(t, e.Key+" is kept", func() bool { _, ok := FetchOne(context.Background(), c, e.Key); return ok })
	}
}

// Shows what every cache outside promises, with real servers: values come back as they were, in order, empty and large
// ones and under odd keys too; what is unknown is nil; what is too old is gone.
func TestRemote(t *testing.T) {
	for kind, backend := range kinds {
		t.Run(kind, func(t *testing.T) {
			c, _ := newCache(t, backend(t, startKind(t, kind).addr), Options{})
			odd := []string{"plain", "with space", "new\nline", "\x00\xff", strings.Repeat("long", 100), "#hash", "ünïcode", ""}
			var keys []string
			for i, k := range odd {
				stored(t, c, Entry{Key: k, Value: []byte(fmt.Sprint("value ", i)), TTL: time.Hour})
				keys = append(keys, k, "unknown"+k)
			}
			stored(t, c, Entry{Key: "empty"}, Entry{Key: "large", Value: make([]byte, 900_000)})
			eventually(t, "all of them are found at once", func() bool {
				for i, v := range c.Fetch(t.Context(), keys) {
					if i%2 == 0 && v == nil {
						return false // not in time
					}
				}
				return true
			})
			for i, v := range c.Fetch(t.Context(), keys) {
				if v == nil {
					continue
				}
				want := fmt.Sprint("value ", i/2)
				if i%2 == 0 && string(v) != want || i%2 == 1 && v != nil {
					t.Errorf("%q: got %q, want %q", keys[i], v, want)
				}
			}
			eventually(t, "an empty value is found", func() bool { v, ok := FetchOne(t.Context(), c, "empty"); return ok && len(v) == 0 })
			eventually(t, "a large value is found in time", func() bool { v, ok := FetchOne(t.Context(), c, "large"); return ok && len(v) == 900_000 })
			stored(t, c, Entry{Key: "short", Value: []byte("x"), TTL: 1100 * time.Millisecond})
			eventually(t, "an old entry is gone", func() bool { _, ok := FetchOne(t.Context(), c, "short"); return !ok })
			many := make([]string, 1000)
			for i := range many {
				many[i] = fmt.Sprint("many", i)
				c.Store(Entry{Key: many[i], Value: []byte(many[i])})
			}
			eventually(t, "all of many are found", func() bool {
				all := true
				for i, v := range c.Fetch(t.Context(), many) {
					if v == nil {
						// Not in time, or dropped while the server was thought to be too slow.
						c.Store(Entry{Key: many[i], Value: []byte(many[i])})
						all = false
					} else if string(v) != many[i] {
						t.Fatalf("%s: %q", many[i], v)
					}
				}
				return all
			})
		})
	}
}

// Shows that a server that dies costs nothing but its entries, is left alone, and is used again when it is back.
func TestRemoteDies(t *testing.T) {
	for kind, backend := range kinds {
		t.Run(kind, func(t *testing.T) {
			p := startKind(t, kind)
			c, _ := newCache(t, backend(t, p.addr), Options{Origin: func() time.Duration { return 100 * time.Millisecond }})
			stored(t, c, Entry{Key: "a", Value: []byte("a")})
			p.kill()
			eventually(t, "the dead server is left alone", func() bool {
				c.Fetch(t.Context(), []string{"b"})
				return testutil.ToFloat64(c.metrics.leftAlone) == 1
			})
			c.Store(Entry{Key: "c", Value: []byte("c")})
			if _, ok := FetchOne(t.Context(), c, "a"); ok {
				t.Error("a dead server answers")
			}
			p.start()
			eventually(t, "the server is used again", func() bool { return testutil.ToFloat64(c.metrics.leftAlone) == 0 })
			stored(t, c, Entry{Key: "a", Value: []byte("again")})
		})
	}
}

// Shows that a server that hangs is not waited for: some reads are given up, then it is left alone; when it goes on it
// is used again, and answers right.
func TestRemoteHangs(t *testing.T) {
	for kind, backend := range kinds {
		t.Run(kind, func(t *testing.T) {
			p := startKind(t, kind)
			c, _ := newCache(t, backend(t, p.addr), Options{Origin: func() time.Duration { return 100 * time.Millisecond }})
			stored(t, c, Entry{Key: "a", Value: []byte("a")})
			p.signal(syscall.SIGSTOP)
			eventually(t, "the hanging server is left alone", func() bool {
				c.Fetch(t.Context(), []string{"b"})
				return testutil.ToFloat64(c.metrics.leftAlone) == 1
			})
			if n := testutil.ToFloat64(c.metrics.abandoned); n == 0 {
				t.Error("no read was given up")
			}
			p.signal(syscall.SIGCONT)
			eventually(t, "the server is used again", func() bool {
				v, ok := FetchOne(t.Context(), c, "a")
				return ok && string(v) == "a"
			})
		})
	}
}

// Shows that a server which refuses entries, being full or for their size, is not taken for a broken one: what it has is
// found all the time. A mutant that counts refusals as failures leaves it alone.
func TestRemoteRefuses(t *testing.T) {
	memcached, redis := DefaultMemcachedConfig, DefaultRedisConfig
	memcached.MaxItemSize = 0 // more than the server's own limit, which is a megabyte
	f := func(b Backend) {
		t.Helper()
		c, _ := newCache(t, b, Options{})
		stored(t, c, Entry{Key: "small", Value: []byte("v")})
		large := make([]byte, 2<<20)
		for i := range 3 * failuresOf {
			c.Store(Entry{Key: fmt.Sprint("large", i), Value: large})
			eventually(t, "the entry is tried", func() bool { return c.queueBytes.Load() == 0 })
			if got := testutil.ToFloat64(c.metrics.leftAlone); got != 0 {
				t.Fatalf("%s: it is left alone after %d refusals", b.Type, i+1)
			}
		}
		if got := testutil.ToFloat64(c.metrics.failures.WithLabelValues(opSet, "server-error")); got < failuresOf {
			t.Errorf("%s: %v refusals are counted: this shows nothing", b.Type, got)
		}
		eventually(t, "the small one is found", func() bool { _, ok := FetchOne(context.Background(), c, "small"); return ok })
	}
	p := startMemcached(t)
	memcached.Addresses = []string{p.addr}
	f(Backend{Type: Memcached, Memcached: memcached})
	p = startProcess(t, "redis-server", "redis-server", func(port string) []string {
		return []string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir(), "--maxmemory", "3mb", "--maxmemory-policy", "noeviction"}
	})
	redis.Addr = p.addr
	f(Backend{Type: Redis, Redis: redis})
}

// Shows that servers which are not there at the start are no error, and are found later.
func TestRemoteLater(t *testing.T) {
	for kind, backend := range kinds {
		t.Run(kind, func(t *testing.T) {
			p := startKind(t, kind)
			p.kill()
			c, _ := newCache(t, backend(t, p.addr), Options{})
			if _, ok := FetchOne(t.Context(), c, "a"); ok {
				t.Error("found something nowhere")
			}
			p.start()
			eventually(t, "the server is found", func() bool {
				c.Store(Entry{Key: "a", Value: []byte("a")})
				v, ok := FetchOne(t.Context(), c, "a")
				return ok && string(v) == "a"
			})
		})
	}
}

// Shows that entries that were damaged, cut, made by others or kept for another key are dropped and counted, with every
// byte of an entry flipped in turn.
//
// Mutant seen killed: the checksum leaves out the key.
func TestRemoteCorrupt(t *testing.T) {
	p := startMemcached(t)
	c, _ := newCache(t, kinds["memcached"](t, p.addr), Options{})
	stored(t, c, Entry{Key: "a", Value: []byte("value")}, Entry{Key: "b", Value: []byte("other")})
	g := c.servers.all()[0]
	key := wireKey(c.cfg.Prefix, "a")
	raw := func(k string) (b []byte) {
		if err := g.get(t.Context(), []string{k}, func(_ int, v []byte) { b = v }); err != nil || b == nil {
			t.Fatal(k, err)
		}
		return b
	}
	good := raw(key)
	bad := [][]byte{{}, []byte("foreign"), good[:len(good)-1], append(append([]byte{}, good...), 0), raw(wireKey(c.cfg.Prefix, "b"))}
	for i := range good {
		b := append([]byte{}, good...)
		b[i] ^= 0x10
		bad = append(bad, b)
	}
	for _, b := range bad {
		before := testutil.ToFloat64(c.metrics.foreign)
		if err := g.set(t.Context(), []wireEntry{{key: key, value: b}}); err != nil {
			t.Fatal(err)
		}
		// A wait that is given up is no answer; ask until one comes.
		eventually(t, "the entry is looked at", func() bool {
			if v, ok := FetchOne(t.Context(), c, "a"); ok {
				t.Fatalf("believed %q: %q", b, v)
			}
			return testutil.ToFloat64(c.metrics.foreign) > before
		})
	}
	if err := g.set(t.Context(), []wireEntry{{key: key, value: good}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the good one is believed again", func() bool { v, ok := FetchOne(t.Context(), c, "a"); return ok && string(v) == "value" })
}

// Shows that a server which is always slower than its share of the storage's time is left alone: waiting for it would
// cost more than its absence.
func TestSlowerThanTheStorage(t *testing.T) {
	p := startMemcached(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	var open []net.Conn
	var mu sync.Mutex
	defer func() {
		_ = l.Close()
		mu.Lock()
		for _, o := range open {
			_ = o.Close()
		}
		mu.Unlock()
		conns.Wait()
	}()
	conns.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", p.addr)
			if err != nil {
				_ = in.Close()
				continue
			}
			mu.Lock()
			open = append(open, in, out)
			mu.Unlock()
			conns.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
			conns.Go(func() {
				defer in.Close()
				b := make([]byte, 4096)
				for {
					n, err := out.Read(b)
					time.Sleep(30 * time.Millisecond) // the slow network
					if _, werr := in.Write(b[:n]); err != nil || werr != nil {
						return
					}
				}
			})
		}
	})
	c, _ := newCache(t, kinds["memcached"](t, l.Addr().String()), Options{Origin: func() time.Duration { return 80 * time.Millisecond }})
	eventually(t, "the slow server is left alone", func() bool {
		c.Fetch(t.Context(), []string{"a"})
		return testutil.ToFloat64(c.metrics.leftAlone) == 1
	})
}

// Shows that what waits to be written is bounded, in entries and bytes, and that what is over is dropped and counted.
func TestQueueBound(t *testing.T) {
	b := kinds["memcached"](t, freeAddr(t))
	b.Memcached.MaxAsyncBufferSize, b.Memcached.MaxAsyncConcurrency, b.Memcached.MaxItemSize = 10, 1, 1000
	c, _ := newCache(t, b, Options{})
	c.cancel()
	c.running.Wait() // nobody writes
	full := c.metrics.skipped.WithLabelValues(opSet, reasonQueueFull)
	for range 30 {
		c.Store(Entry{Key: "a"})
	}
	if n := testutil.ToFloat64(full); n != 20 {
		t.Errorf("%v dropped", n)
	}
	c.Store(Entry{Key: "a", Value: make([]byte, 1001)})
	if n := testutil.ToFloat64(c.metrics.skipped.WithLabelValues(opSet, reasonTooLarge)); n != 1 {
		t.Errorf("%v too large", n)
	}
	c.cfg.ItemBytesMax = 0
	c.queue = make(chan Entry, 1000)
	for range 100 {
		c.Store(Entry{Key: "a", Value: make([]byte, 1<<20)})
	}
	if n := len(c.queue); n != queueBytesMax>>20 {
		t.Errorf("%d MiB wait", n)
	}
}

// Shows that keys are spread over servers, that one that dies costs its keys only, and that one that is added takes
// keys over from each and moves no others.
func TestSeveralServers(t *testing.T) {
	ps := []*process{startMemcached(t), startMemcached(t), startMemcached(t)}
	b := kinds["memcached"](t, ps[0].addr)
	b.Memcached.Addresses = []string{ps[0].addr, ps[1].addr, ps[2].addr}
	c, _ := newCache(t, b, Options{})
	keys := make([]string, 300)
	var entries []Entry
	for i := range keys {
		keys[i] = fmt.Sprint("key", i)
		entries = append(entries, Entry{Key: keys[i], Value: []byte(keys[i])})
	}
	stored(t, c, entries...)
	perServer := make([]int, 3)
	for _, k := range keys {
		perServer[c.servers.pick(c.servers.all(), wireKey(c.cfg.Prefix, k))]++
	}
	found := func() (n int) {
		for _, v := range c.Fetch(t.Context(), keys) {
			if v != nil {
				n++
			}
		}
		return n
	}
	dead := -1
	for i, g := range c.servers.all() {
		if g.name == ps[0].addr {
			dead = i
		}
	}
	ps[0].kill()
	eventually(t, "the others answer", func() bool { return found() == len(keys)-perServer[dead] })
	for n := 1; n < 20; n++ {
		moved := 0
		for k := range uint64(1000) {
			k *= 0x9E3779B97F4A7C15
			from, to := jump(k, n), jump(k, n+1)
			if from != to {
				moved++
				if to != n {
					t.Fatalf("a key moves from %d to %d of %d", from, to, n+1)
				}
			}
		}
		if want := 1000 / (n + 1); moved < want/2 || moved > want*2 {
			t.Errorf("%d of 1000 keys move to server %d", moved, n)
		}
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
