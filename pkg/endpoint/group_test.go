package endpoint

import (
	"context"
	"errors"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-kit/log"
	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/koios-metrics/koios/proto/infopb"
)

// names is a DNS that says what it is told to.
type names struct {
	mu    sync.Mutex
	addrs []string
	err   error
	asked int
}

func (n *names) Refresh(context.Context, string) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	return n.addrs, n.err
}

func (n *names) set(err error, addrs ...string) (asked func() bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs, n.err = addrs, err
	from := n.asked
	return func() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.asked > from+1 }
}

// counting is a healthy sidecar that counts how often it is asked.
func counting(t *testing.T) (*node, *atomic.Int64) {
	n, count := &node{}, &atomic.Int64{}
	n.says(func(context.Context) (*infopb.InfoResponse, error) {
		count.Add(1)
		return sidecarInfo("a"), nil
	})
	n.start(t, nil)
	return n, count
}

// A group spreads calls over its members, follows them as they change, and keeps them when the lookup
// fails or finds nobody. A call that a member refuses as unavailable is tried on another.
func TestGroup(t *testing.T) {
	a, countA := counting(t)
	b, countB := counting(t)
	dns := &names{addrs: []string{a.addr, b.addr}}
	d := &dialer{
		groups:  &groupResolver{dns: dns, interval: 10 * time.Millisecond, logger: log.NewNopLogger()},
		metrics: grpcprom.NewClientMetrics(), logger: log.NewNopLogger(),
	}
	conn, err := d.dial(spec{name: "thanos:///dns+group:1", address: "dns+group:1", group: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	call := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := infopb.NewInfoClient(conn).Info(ctx, &infopb.InfoRequest{}, grpc.WaitForReady(true))
		return err
	}
	both := func() bool {
		if err := call(); err != nil {
			t.Fatal(err)
		}
		return countA.Load() > 3 && countB.Load() > 3
	}
	until(t, "both members are asked", both)

	until(t, "lookups that fail", dns.set(errors.New("SERVFAIL")))
	countA.Store(0)
	countB.Store(0)
	until(t, "both are asked though the lookup fails", both)
	until(t, "lookups that find nobody", dns.set(nil))
	countA.Store(0)
	countB.Store(0)
	until(t, "both are asked though the lookup finds nobody", both)

	a.says(func(context.Context) (*infopb.InfoResponse, error) {
		countA.Add(1)
		return nil, status.Error(codes.Unavailable, "leaving")
	})
	// Each lookup makes gRPC begin its round anew somewhere, so a call may meet the same member thrice.
	until(t, "a call that is tried again", func() bool {
		before := countA.Load()
		return call() == nil && countA.Load() > before
	})

	until(t, "lookups that find one", dns.set(nil, b.addr))
	until(t, "the other is left alone", func() bool {
		countA.Store(0)
		for range 4 {
			if err := call(); err != nil {
				t.Fatal(err)
			}
		}
		return countA.Load() == 0
	})
}

// A group is one peer, listed under its target, with its own service config where one is given.
func TestGroupInSet(t *testing.T) {
	n := newNode(t, sidecarInfo("a"))
	_, port, _ := net.SplitHostPort(n.addr)
	cfg := quick()
	cfg.Groups = []string{"dns+localhost:" + port}
	cfg.StrictGroups = []string{n.addr}
	s := run(t, cfg, nil)
	until(t, "both groups", func() bool { return len(s.Status()) == 2 })
	if want := "thanos:///" + n.addr + " thanos:///dns+localhost:" + port; storeNames(s) != want {
		t.Errorf("stores are %s, want %s", storeNames(s), want)
	}
}

// The name of a group in certificates is what is looked up.
func TestGroupAuthority(t *testing.T) {
	f := func(address, want string) {
		t.Helper()
		u, err := url.Parse("thanos:///" + address)
		if err != nil {
			t.Fatal(err)
		}
		if got := (&groupResolver{}).OverrideAuthority(resolver.Target{URL: *u}); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	f("host:1", "host:1")
	f("dns+host.ns.svc:10901", "host.ns.svc:10901")
	f("dns+host.:1", "host:1")
	f("dnssrv+_grpc._tcp.store.ns.svc", "store.ns.svc")
	f("dnssrvnoa+_grpc._tcp.store.ns.svc.:10901", "store.ns.svc:10901")
	f("[::1]:1", "[::1]:1")
}
