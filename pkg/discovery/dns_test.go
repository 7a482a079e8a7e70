package discovery

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// nameServer is a DNS server on loopback, over UDP and TCP at one port.
type nameServer struct {
	port    string
	records map[string][]string // by "NAME. TYPE"
	broken  atomic.Bool         // answer SERVFAIL
}

func startNameServer(t *testing.T, records map[string][]string) *nameServer {
	t.Helper()
	ns := &nameServer{records: records}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, ns.port, _ = net.SplitHostPort(tcp.Addr().String())
	udp, err := net.ListenPacket("udp", "127.0.0.1:"+ns.port)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{Listener: tcp, Handler: ns}, {PacketConn: udp, Handler: ns}} {
		started, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(done)
			_ = s.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-done
		})
	}
	return ns
}

func (ns *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	if ns.broken.Load() {
		m.Rcode = dns.RcodeServerFailure
		_ = w.WriteMsg(m)
		return
	}
	name := strings.ToLower(q.Question[0].Name)
	exists := false
	for key, rrs := range ns.records {
		if strings.HasPrefix(key, name+" ") {
			exists = true
		}
		if key != name+" "+dns.TypeToString[q.Question[0].Qtype] {
			continue
		}
		for _, text := range rrs {
			rr, err := dns.NewRR(text)
			if err != nil {
				panic(err)
			}
			m.Answer = append(m.Answer, rr)
		}
	}
	if !exists {
		m.Rcode = dns.RcodeNameError
	}
	if w.LocalAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = int(o.UDPSize())
		}
		m.Truncate(size)
	}
	_ = w.WriteMsg(m)
}

// backends returns both resolvers, asking this server.
func (ns *nameServer) backends(t *testing.T) map[Resolver]backend {
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver 127.0.0.1\nsearch svc.test\noptions ndots:2 timeout:2 attempts:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return map[Resolver]backend{
		MiekgDNS: miekg{resolvConf: conf, port: ns.port},
		Golang: golang{&net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, "127.0.0.1:"+ns.port)
		}}},
	}
}

// Every prefix, with and without a port, through both resolvers, against a real DNS server.
func TestResolve(t *testing.T) {
	many := make([]string, 0, 200)
	var manyWant []string
	for i := range 200 {
		ip := netip.AddrFrom4([4]byte{10, 9, 0, byte(i)}).String()
		many = append(many, "many.test. A "+ip)
		manyWant = append(manyWant, ip+":1")
	}
	ns := startNameServer(t, map[string][]string{
		"one.test. A":              {"one.test. A 10.0.0.2", "one.test. A 10.0.0.1"},
		"six.test. AAAA":           {"six.test. AAAA fd00::1"},
		"both.test. A":             {"both.test. A 10.0.0.3"},
		"both.test. AAAA":          {"both.test. AAAA fd00::3"},
		"alias.test. A":            {"alias.test. CNAME one.test.", "one.test. A 10.0.0.1"},
		"_grpc._tcp.srv.test. SRV": {"_grpc._tcp.srv.test. SRV 0 0 901 one.test.", "_grpc._tcp.srv.test. SRV 0 0 902 six.test.", "_grpc._tcp.srv.test. SRV 0 0 903 gone.test."},
		"many.test. A":             many,
	})
	for name, b := range ns.backends(t) {
		f := func(addr string, want ...string) {
			t.Helper()
			d := newDNS(b, "test", log.NewNopLogger(), nil)
			if err := d.Resolve(t.Context(), []string{addr}); err != nil {
				t.Errorf("%s: %s: %v", name, addr, err)
			}
			if diff := cmp.Diff(want, d.Addresses()); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", name, addr, diff)
			}
		}
		f("plain.test:1", "plain.test:1")
		f("dns+one.test:1", "10.0.0.1:1", "10.0.0.2:1")
		f("dns+one.test.:1", "10.0.0.1:1", "10.0.0.2:1")
		f("dns+http://one.test:1", "http://10.0.0.1:1", "http://10.0.0.2:1")
		f("dns+six.test:1", "[fd00::1]:1")
		f("dns+alias.test:1", "10.0.0.1:1")
		f("dns+127.0.0.1:1", "127.0.0.1:1")
		f("dns+[::1]:1", "[::1]:1")
		f("dns+many.test:1", sorted(manyWant)...)
		f("dns+gone.test:1")
		f("dnsdualstack+both.test:1", "10.0.0.3:1", "[fd00::3]:1")
		f("dnsdualstack+one.test:1", "10.0.0.1:1", "10.0.0.2:1")
		f("dnsdualstack+gone.test:1")
		f("dnssrv+_grpc._tcp.srv.test", "10.0.0.1:901", "10.0.0.2:901", "[fd00::1]:902")
		f("dnssrv+_grpc._tcp.srv.test.", "10.0.0.1:901", "10.0.0.2:901", "[fd00::1]:902")
		f("dnssrv+_grpc._tcp.srv.test:10901", "10.0.0.1:10901", "10.0.0.2:10901", "[fd00::1]:10901")
		f("dnssrv+_grpc._tcp.gone.test")
		f("dnssrvnoa+_grpc._tcp.srv.test", "gone.test:903", "one.test:901", "six.test:902")
		f("dnssrvnoa+http://_grpc._tcp.srv.test.:80", "http://gone.test:80", "http://one.test:80", "http://six.test:80")
	}
}

func sorted(ss []string) []string {
	d := newDNS(nil, "", log.NewNopLogger(), nil)
	_ = d.Resolve(context.Background(), ss)
	return d.Addresses()
}

// Names that are not fully qualified go through the search list of resolv.conf.
func TestSearchList(t *testing.T) {
	ns := startNameServer(t, map[string][]string{
		"store.svc.test. A":            {"store.svc.test. A 10.0.0.1"},
		"_grpc._tcp.s.svc.test. SRV":   {"_grpc._tcp.s.svc.test. SRV 0 0 9 store.svc.test."},
		"chain.svc.test. A":            {"chain.svc.test. CNAME store.svc.test."},
		"loop.svc.test. A":             {"loop.svc.test. CNAME loop.svc.test."},
		"onlyalias.svc.test. CNAME":    {"onlyalias.svc.test. CNAME gone.test."},
		"_none._tcp.srv.svc.test. SRV": {"_none._tcp.srv.svc.test. SRV 0 0 0 ."},
	})
	b := ns.backends(t)[MiekgDNS]
	f := func(addr string, ok bool, want ...string) {
		t.Helper()
		d := newDNS(b, "test", log.NewNopLogger(), nil)
		if err := d.Resolve(t.Context(), []string{addr}); (err == nil) != ok {
			t.Errorf("%s: error %v", addr, err)
		}
		if diff := cmp.Diff(want, d.Addresses()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", addr, diff)
		}
	}
	f("dns+store:1", true, "10.0.0.1:1")
	f("dnssrv+_grpc._tcp.s", true, "10.0.0.1:9")
	f("dns+chain:1", true, "10.0.0.1:1") // the answer holds the alias only
	f("dns+loop:1", false)
	f("dns+onlyalias:1", true)
	f("dnssrv+_none._tcp.srv", true)
}

// A failing lookup keeps the previous result and is counted; a name that vanished resolves to nothing; a
// name that left the list leaves the metrics.
func TestKeepsPreviousOnError(t *testing.T) {
	for _, r := range []Resolver{Golang, MiekgDNS} {
		records := map[string][]string{"one.test. A": {"one.test. A 10.0.0.1"}}
		ns := startNameServer(t, records)
		reg := prometheus.NewRegistry()
		d := newDNS(ns.backends(t)[r], "thanos_query_endpoints", log.NewNopLogger(), reg)
		list := []string{"dns+one.test:1", "static:2"}
		resolve := func(wantErr bool, want ...string) {
			t.Helper()
			if err := d.Resolve(t.Context(), list); (err != nil) != wantErr {
				t.Fatalf("%s: error %v", r, err)
			}
			if diff := cmp.Diff(want, d.Addresses()); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", r, diff)
			}
		}
		resolve(false, "10.0.0.1:1", "static:2")
		ns.broken.Store(true)
		resolve(true, "10.0.0.1:1", "static:2")
		want := `
# HELP thanos_query_endpoints_dns_failures_total DNS names whose lookup failed. A name that does not exist is no failure.
# TYPE thanos_query_endpoints_dns_failures_total counter
thanos_query_endpoints_dns_failures_total 1
# HELP thanos_query_endpoints_dns_lookups_total DNS names looked up.
# TYPE thanos_query_endpoints_dns_lookups_total counter
thanos_query_endpoints_dns_lookups_total 2
# HELP thanos_query_endpoints_dns_provider_results Addresses that each configured address resolves to.
# TYPE thanos_query_endpoints_dns_provider_results gauge
thanos_query_endpoints_dns_provider_results{addr="dns+one.test:1"} 1
thanos_query_endpoints_dns_provider_results{addr="static:2"} 1
`
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
		ns.broken.Store(false)
		list[0] = "dns+gone.test:1"
		resolve(false, "static:2")
		if n := testutil.CollectAndCount(d.metrics); n != 2 {
			t.Errorf("%d addresses in the metrics, want 2", n)
		}
	}
}

// One address can be looked up on its own, keeps its result over a failure, and can be forgotten.
func TestRefreshAndForget(t *testing.T) {
	ns := startNameServer(t, map[string][]string{"one.test. A": {"one.test. A 10.0.0.1"}})
	d := newDNS(ns.backends(t)[MiekgDNS], "test", log.NewNopLogger(), nil)
	got, err := d.Refresh(t.Context(), "dns+one.test:1")
	if diff := cmp.Diff([]string{"10.0.0.1:1"}, got); diff != "" || err != nil {
		t.Fatalf("error %v (-want +got):\n%s", err, diff)
	}
	ns.broken.Store(true)
	got, err = d.Refresh(t.Context(), "dns+one.test:1")
	if diff := cmp.Diff([]string{"10.0.0.1:1"}, got); diff != "" || err == nil {
		t.Fatalf("error %v (-want +got):\n%s", err, diff)
	}
	d.Forget("dns+one.test:1")
	if got := d.Addresses(); got != nil {
		t.Errorf("a forgotten address resolves to %v", got)
	}
}

// A lookup ends with its context though the server is silent.
func TestResolveEndsWithContext(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_, port, _ := net.SplitHostPort(silent.LocalAddr().String())
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _, _ = silent.ReadFrom(make([]byte, 512)) // the question is out
		cancel()
	}()
	d := newDNS((&nameServer{port: port}).backends(t)[MiekgDNS], "test", log.NewNopLogger(), nil)
	if err := d.Resolve(ctx, []string{"dns+one.test:1"}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// Addresses with a prefix that could never be resolved are told apart, and arbitrary ones do not panic.
func TestValidate(t *testing.T) {
	f := func(addr string, ok bool) {
		t.Helper()
		if err := Validate(addr); (err == nil) != ok {
			t.Errorf("%q: error %v", addr, err)
		}
	}
	f("host:1", true)
	f("anything", true)
	f("unknown+x", true) // no prefix of ours
	f("dns+host:1", true)
	f("dns+host", false)
	f("dns+", false)
	f("dns+:1", false)
	f("dnsdualstack+host", false)
	f("dnssrv+_a._b.c", true)
	f("dnssrv+_a._b.c:1", true)
	f("dnssrv+a:b:c", false)
	if _, err := NewDNS("dig", "x", log.NewNopLogger(), nil); err == nil {
		t.Error("an unknown resolver is taken")
	}
}

func FuzzAddress(f *testing.F) {
	for _, s := range []string{"dns+a:1", "dnssrv+http://_a._b.c.:1", "dnssrvnoa+[::1]", "dnsdualstack+//", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parse(s)
		_ = Name(s)
		if err == nil && a.kind != kindStatic && a.host == "" {
			t.Errorf("%q has no host", s)
		}
		if err == nil && IsDynamic(s) != (a.kind != kindStatic) {
			t.Errorf("%q is of two minds", s)
		}
	})
}
