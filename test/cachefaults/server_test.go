package cachefaults

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

	"github.com/koios-metrics/koios/test/fleet"
)

// server is a real memcached or Redis on a port of its own.
type server struct {
	t    testing.TB
	kind string
	addr string
	p    *fleet.Process
}

func startServer(t testing.TB, kind string) *server {
	t.Helper()
	s := &server{t: t, kind: kind, addr: fleet.FreeAddr(t)}
	_, port, _ := net.SplitHostPort(s.addr)
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
	s.p = fleet.Start(t, kind, path, args...)
	s.listens()
	return s
}

func (s *server) listens() {
	s.t.Helper()
	fleet.Eventually(s.t, s.kind+" listens", time.Minute, func() error {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

func (s *server) kill() { s.p.Kill() }

func (s *server) restart() {
	s.t.Helper()
	s.p.Restart(s.t)
	s.listens()
}

func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(s.p.PID(), sig); err != nil {
		s.t.Fatal(err)
	}
}

// conn speaks the server's own protocol.
type conn struct {
	net.Conn
	r *bufio.Reader
}

func (s *server) dial() (*conn, error) {
	c, err := net.DialTimeout("tcp", s.addr, time.Minute)
	if err != nil {
		return nil, err
	}
	return &conn{c, bufio.NewReader(c)}, c.SetDeadline(time.Now().Add(time.Minute))
}

func (c *conn) line() (string, error) {
	l, err := c.r.ReadString('\n')
	return strings.TrimRight(l, "\r\n"), err
}

func (c *conn) bytes(n int) ([]byte, error) {
	b := make([]byte, n+2)
	_, err := io.ReadFull(c.r, b)
	return b[:n], err
}

// entries returns all that the server keeps.
func (s *server) entries() (map[string][]byte, error) {
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

func (c *conn) memcachedEntries() (map[string][]byte, error) {
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

func (c *conn) redisCommand(args ...string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	_, err := io.WriteString(c, b.String())
	return err
}

func (c *conn) redisBulk() ([]byte, error) {
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

func (c *conn) redisEntries() (map[string][]byte, error) {
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

// put overwrites entries.
func (s *server) put(entries map[string][]byte) error {
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
