package fleet

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// CacheServer is a real memcached or Redis on a port of its own. Its methods belong to the goroutine of the test.
type CacheServer struct {
	// Addr is where it listens, host:port.
	Addr string

	t    testing.TB
	kind string
	p    *Process
}

// StartCacheServer starts a memcached or a redis with further flags, and waits until it listens.
func StartCacheServer(t testing.TB, kind string, flags ...string) *CacheServer {
	t.Helper()
	s := &CacheServer{t: t, kind: kind, Addr: FreeAddr(t)}
	_, port, _ := net.SplitHostPort(s.Addr)
	program, args := "redis-server", []string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir()}
	if kind == "memcached" {
		program, args = "memcached", []string{"-l", "127.0.0.1", "-p", port, "-U", "0", "-m", "256"}
		if u, err := user.Current(); err == nil && u.Uid == "0" {
			args = append(args, "-u", "root")
		}
	}
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is needed to test with: install it, for example with apt-get install %s", program, program)
	}
	s.p = Start(t, kind, path, append(args, flags...)...)
	s.listens()
	return s
}

func (s *CacheServer) listens() {
	s.t.Helper()
	Eventually(s.t, s.kind+" listens", time.Minute, func() error {
		c, err := net.Dial("tcp", s.Addr)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// Kill ends it as a power cut would.
func (s *CacheServer) Kill() { s.p.Kill() }

// Restart starts it again, empty, once it was killed.
func (s *CacheServer) Restart() {
	s.t.Helper()
	s.p.Restart(s.t)
	s.listens()
}

// Signal sends it a signal: SIGSTOP makes it hang, SIGCONT go on.
func (s *CacheServer) Signal(sig syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(s.p.PID(), sig); err != nil {
		s.t.Fatal(err)
	}
}

// cacheConn speaks the server's own protocol.
type cacheConn struct {
	net.Conn
	r *bufio.Reader
}

func (s *CacheServer) dial() (*cacheConn, error) {
	c, err := net.DialTimeout("tcp", s.Addr, time.Minute)
	if err != nil {
		return nil, err
	}
	return &cacheConn{c, bufio.NewReader(c)}, c.SetDeadline(time.Now().Add(time.Minute))
}

func (c *cacheConn) line() (string, error) {
	l, err := c.r.ReadString('\n')
	return strings.TrimRight(l, "\r\n"), err
}

func (c *cacheConn) bytes(n int) ([]byte, error) {
	b := make([]byte, n+2)
	_, err := io.ReadFull(c.r, b)
	return b[:n], err
}

// Entries returns all that the server keeps.
func (s *CacheServer) Entries() (map[string][]byte, error) {
	c, err := s.dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if s.kind == "memcached" {
		return c.memcachedEntries()
	}
	return c.redisEntries()
}

func (c *cacheConn) memcachedEntries() (map[string][]byte, error) {
	if _, err := fmt.Fprint(c, "lru_crawler metadump all\r\n"); err != nil {
		return nil, err
	}
	var keys []string
	for {
		l, err := c.line()
		if err != nil || l == "END" {
			if err != nil {
				return nil, err
			}
			break
		}
		key, _, _ := strings.Cut(strings.TrimPrefix(l, "key="), " ")
		if key, err = url.PathUnescape(key); err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	all := map[string][]byte{}
	for _, k := range keys {
		if _, err := fmt.Fprintf(c, "get %s\r\n", k); err != nil {
			return nil, err
		}
		l, err := c.line()
		if err != nil {
			return nil, err
		}
		if l == "END" {
			continue
		}
		n, err := strconv.Atoi(l[strings.LastIndexByte(l, ' ')+1:])
		if err != nil {
			return nil, err
		}
		if all[k], err = c.bytes(n); err != nil {
			return nil, err
		}
		if _, err := c.line(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (c *cacheConn) redisCommand(args ...string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	_, err := io.WriteString(c, b.String())
	return err
}

func (c *cacheConn) redisBulk() ([]byte, error) {
	l, err := c.line()
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(l[1:])
	if err != nil || n < 0 {
		return nil, err
	}
	return c.bytes(n)
}

func (c *cacheConn) redisEntries() (map[string][]byte, error) {
	if err := c.redisCommand("KEYS", "*"); err != nil {
		return nil, err
	}
	l, err := c.line()
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(l[1:])
	if err != nil {
		return nil, err
	}
	keys := make([]string, n)
	for i := range keys {
		k, err := c.redisBulk()
		if err != nil {
			return nil, err
		}
		keys[i] = string(k)
	}
	all := map[string][]byte{}
	for _, k := range keys {
		if err := c.redisCommand("GET", k); err != nil {
			return nil, err
		}
		v, err := c.redisBulk()
		if err != nil {
			return nil, err
		}
		if v != nil {
			all[k] = v
		}
	}
	return all, nil
}

// Put overwrites entries.
func (s *CacheServer) Put(entries map[string][]byte) error {
	c, err := s.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	for k, v := range entries {
		want := "+OK"
		if s.kind == "memcached" {
			want = "STORED"
			_, err = fmt.Fprintf(c, "set %s 0 3600 %d\r\n%s\r\n", k, len(v), v)
		} else {
			err = c.redisCommand("SET", k, string(v))
		}
		if err != nil {
			return err
		}
		if got, err := c.line(); err != nil || got != want {
			return errors.Join(err, fmt.Errorf("put %s: %s", k, got))
		}
	}
	return nil
}
