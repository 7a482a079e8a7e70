package endpoint

import (
	"slices"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"

	"github.com/koios-metrics/koios/pkg/clientconf"
)

// The endpoint file: what is taken and what is refused.
func TestParseFile(t *testing.T) {
	f := func(text string, ok bool, endpoints int) {
		t.Helper()
		got, err := parseFile([]byte(text), clientconf.GRPC{})
		if (err == nil) != ok || ok && len(got.Endpoints) != endpoints {
			t.Errorf("%s: %+v, error %v", text, got, err)
		}
	}
	f("", true, 0)
	f("endpoints: []", true, 0)
	f("endpoints: [{address: 'a:1'}, {address: dnssrv+_grpc._tcp.x}, {address: dns+x:1, group: true, strict: true}]", true, 3)
	f("endpoints: [{address: 'a:1', strict: true, client_config: {tls_config: {enabled: true, ca_file: x}, server_name: y, compression: snappy}}]", true, 1)
	f("endpoints: [{address: dns+x:1, group: true, service_config: '{\"loadBalancingConfig\": [{\"round_robin\": {}}]}'}]", true, 1)
	f("default_client_config: {tls_config: {insecure_skip_verify: true}}", true, 0)
	f("endpoints: [{address: dns+x:1, strict: true}]", false, 0)
	f("endpoints: [{address: dns+x}]", false, 0)
	f("endpoints: [{}]", false, 0)
	f("endpoints: [{address: 'a:1', service_config: '{}'}]", false, 0)
	f("endpoints: [{address: dns+x:1, group: true, service_config: '{'}]", false, 0)
	f("endpoints: [{address: 'a:1', client_config: {compression: zstd}}]", false, 0)
	f("endpoints: [{address: 'a:1', client_config: {tls_config: {cert_file: x}}}]", false, 0)
	f("default_client_config: {tls_config: {min_version: '7', enabled: true}}", false, 0)
	f("endpoint: []", false, 0)
	f("[", false, 0)
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte("endpoints: [{address: 'a:1'}, {address: dnssrv+_grpc._tcp.x}, {address: dns+x:1, group: true, strict: true}]"))
	f.Add([]byte("default_client_config: {tls_config: {enabled: true, min_version: '1.2'}}\nendpoints: [{address: x, client_config: {server_name: y}}]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseFile(b, clientconf.GRPC{})
		if err == nil {
			desired(got.Endpoints, got.DefaultClient.Apply(clientconf.GRPC{}), []discovered{{address: "a:1"}})
		}
	})
}

// What is configured and found becomes one peer per address: later entries stand over earlier ones, what
// is written over what is found, and strict sticks.
func TestDesired(t *testing.T) {
	global := clientconf.GRPC{TLS: true}
	on, off := true, false
	plain := &clientconf.GRPCOverride{TLS: &clientconf.GRPCOverrideTLS{Enabled: &off}}
	own := &clientconf.GRPCOverride{TLS: &clientconf.GRPCOverrideTLS{Enabled: &on}, ServerName: "own"}
	specs, duplicates := desired([]entry{
		{Address: "a:1", Strict: true},
		{Address: "a:1", Client: own},
		{Address: "dns+x:1"},
		{Address: "dns+x:1", Group: true, Service: "{}"},
		{Address: "b:1", Group: true},
		{Address: "b:1"},
	}, global, []discovered{{address: "a:1"}, {address: "c:1"}, {address: "d:1", name: "x:1", client: &clientconf.GRPCOverride{Compression: "snappy"}}, {address: "e:1", name: "x:1", client: plain}})
	want := map[string]spec{
		"a:1":               {name: "a:1", address: "a:1", strict: true, client: clientconf.GRPC{TLS: true, ServerName: "own"}},
		"b:1":               {name: "b:1", address: "b:1", client: global},
		"c:1":               {name: "c:1", address: "c:1", client: global, found: true},
		"d:1":               {name: "d:1", address: "d:1", client: clientconf.GRPC{TLS: true, Name: "x:1", Compression: "snappy"}, found: true},
		"e:1":               {name: "e:1", address: "e:1", found: true},
		"thanos:///b:1":     {name: "thanos:///b:1", address: "b:1", group: true, client: global},
		"thanos:///dns+x:1": {name: "thanos:///dns+x:1", address: "dns+x:1", group: true, service: "{}", client: global},
	}
	if diff := cmp.Diff(want, specs, cmp.AllowUnexported(spec{})); diff != "" || duplicates != 2 {
		t.Errorf("%d duplicates, want 2 (-want +got):\n%s", duplicates, diff)
	}
	if got := dynamic([]entry{{Address: "a:1"}, {Address: "dns+x:1"}, {Address: "dns+y:1", Group: true}}); !slices.Equal(got, []string{"dns+x:1"}) {
		t.Errorf("names to look up: %v", got)
	}
}

type answers map[string][]string

func (a answers) AddressesOf(name string) []string { return a[name] }

// What is found keeps the name that was asked for and the settings of its entry; of an address that comes of two
// entries the later one counts; the target of an SRV record that stays a name is verified as that. (Killed: a
// mutant that names targets of dnssrvnoa+ by what was asked.)
func TestFind(t *testing.T) {
	one, two := &clientconf.GRPCOverride{ServerName: "one"}, &clientconf.GRPCOverride{ServerName: "two"}
	got := find([]entry{
		{Address: "a:1", Client: one},
		{Address: "dns+x:1", Client: one},
		{Address: "dnssrv+_grpc._tcp.y.", Client: two},
		{Address: "dnssrvnoa+_grpc._tcp.z"},
		{Address: "dns+g:1", Group: true},
	}, []string{"f:1", "dns+h:1"}, answers{
		"a:1": {"a:1"}, "f:1": {"f:1"}, "dns+x:1": {"10.0.0.1:1", "10.0.0.2:1"}, "dnssrv+_grpc._tcp.y.": {"10.0.0.2:1", "[::1]:2"},
		"dnssrvnoa+_grpc._tcp.z": {"pod-0.z:1"}, "dns+g:1": {"10.0.0.9:1"}, "dns+h:1": {"10.0.0.3:1"},
	})
	want := []discovered{
		{address: "f:1"},
		{address: "10.0.0.3:1", name: "h:1"},
		{address: "10.0.0.1:1", name: "x:1", client: one},
		{address: "10.0.0.2:1", name: "y", client: two},
		{address: "[::1]:2", name: "y", client: two},
		{address: "pod-0.z:1"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(discovered{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Contradictions are told at start, before anybody is talked to.
func TestConfigRefused(t *testing.T) {
	for what, change := range map[string]func(*Config){
		"strict and dynamic":   func(c *Config) { c.Strict = []string{"dns+x:1"} },
		"no port":              func(c *Config) { c.Endpoints = []string{"dns+x"} },
		"empty address":        func(c *Config) { c.Endpoints = []string{""} },
		"content and file":     func(c *Config) { c.SD, c.SDFile = []byte("x"), "x" },
		"missing file":         func(c *Config) { c.SDFile = "/nowhere/endpoints.yaml" },
		"broken content":       func(c *Config) { c.SD = []byte("[") },
		"missing authority":    func(c *Config) { c.Client = clientconf.GRPC{TLS: true, CAFile: "/nowhere/ca"} },
		"unknown compression":  func(c *Config) { c.Client.Compression = "gzip" },
		"unknown resolver":     func(c *Config) { c.Resolver = "dig" },
		"unknown metric label": func(c *Config) { c.ConnectionLabels = []string{"x"} },
		"no info timeout":      func(c *Config) { c.InfoTimeout = 0 },
		"no DNS interval":      func(c *Config) { c.DNSInterval = 0 },
		"no reload interval":   func(c *Config) { c.SDFile, c.SDReloadInterval = "x", 0 },
		"bad file_sd name":     func(c *Config) { c.Files, c.FilesInterval = []string{"x.txt"}, time.Minute },
	} {
		c := DefaultConfig()
		change(&c)
		if _, err := New(c, log.NewNopLogger(), nil); err == nil {
			t.Errorf("%s: taken", what)
		} else {
			t.Logf("%s: %v", what, err)
		}
	}
}
