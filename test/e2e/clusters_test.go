//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/certs"
	"github.com/koios-metrics/koios/test/fleet"
)

// nginxConfig is an ingress: gRPC over TLS for who has a certificate of the cluster's authority, passed on in clear text.
const nginxConfig = `daemon off;
worker_processes 1;
pid /tmp/nginx.pid;
error_log /dev/stderr info;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  server {
    listen 8443 ssl http2;
    ssl_certificate CERTS/tls.crt;
    ssl_certificate_key CERTS/tls.key;
    ssl_client_certificate CERTS/ca.crt;
    ssl_verify_client on;
    ssl_protocols TLSv1.3;
    grpc_read_timeout 1h;
    grpc_send_timeout 1h;
    location / { grpc_pass grpc://SIDECAR:10901; }
  }
}
`

// cluster is an observed cluster: a Prometheus and its sidecar on a network of their own, and an ingress that the observer
// reaches too.
type cluster struct {
	*world
	name    string
	ca      *certs.Authority
	server  certs.Pair
	sidecar *container
	ingress *container
	// client is the folder, on the observer's side, of the certificate that the observer shows to this cluster.
	client string
}

// address is where the observer reaches the ingress.
func (c *cluster) address() string { return c.name + ".example:8443" }

// newCluster starts a cluster and connects its ingress with the observer's network.
func newCluster(t *testing.T, name string, observer *world) *cluster {
	t.Helper()
	c := &cluster{world: newWorld(t, name), name: name, ca: certs.New(t, "authority of "+name)}
	c.server = c.ca.Issue(t, certs.Options{Names: []string{name + ".example"}})
	c.prometheus("local", map[string]string{"cluster": name, "replica": "0"}).start().ready()
	c.sidecar = c.world.sidecar("local").ready()
	c.publishServer(t)
	config := strings.NewReplacer("CERTS", c.dir("certs"), "SIDECAR", c.host("sidecar-local")).Replace(nginxConfig)
	c.ingress = c.container("ingress", nginxImage.name, options{ports: map[string]int{"https": 8443}}, "-c", c.file("nginx.conf", config)).start()
	mustDocker(t, "network", "connect", "--alias", name+".example", observer.Name(), c.host("ingress"))
	c.client = observer.dir("certs-" + name)
	c.publishClient(t, observer, c.client, c.ca, certs.Options{})
	return c
}

// publishServer puts the certificates of the ingress where it reads them.
func (c *cluster) publishServer(t *testing.T) {
	t.Helper()
	for file, from := range map[string]string{"tls.crt": c.server.Cert, "tls.key": c.server.Key, "ca.crt": c.ca.File} {
		c.file("certs/"+file, read(t, from))
	}
}

// publishClient issues a certificate for the observer and puts it into a folder, with the authority that the observer
// expects of the cluster.
func (c *cluster) publishClient(t *testing.T, observer *world, dir string, from *certs.Authority, o certs.Options) {
	t.Helper()
	pair := from.Issue(t, o)
	rel := strings.TrimPrefix(dir, observer.SharedDir()+"/")
	for file, path := range map[string]string{"tls.crt": pair.Cert, "tls.key": pair.Key, "ca.crt": c.ca.File} {
		observer.file(rel+"/"+file, read(t, path))
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// endpoint is the entry of an endpoint file with the certificates of a folder.
func endpoint(address, dir string) string {
	return fmt.Sprintf("- address: %s\n  client_config: {tls_config: {ca_file: %[2]s/ca.crt, cert_file: %[2]s/tls.crt, key_file: %[2]s/tls.key}}\n", address, dir)
}

// clustersSeen checks that an answer has one series of each cluster and tells of no gap.
func clustersSeen(names ...string) func(*answer.Answer) error {
	return func(a *answer.Answer) error {
		seen := map[string]bool{}
		for _, s := range a.Series {
			seen[s.Labels["cluster"]] = true
		}
		if len(seen) != len(names) || len(a.Series) != len(names) || len(a.Warnings) > 0 {
			return fmt.Errorf("%d series of %v, want %v; warnings %q", len(a.Series), seen, names, a.Warnings)
		}
		for _, name := range names {
			if !seen[name] {
				return fmt.Errorf("nothing of %s", name)
			}
		}
		return nil
	}
}

// An observer sees two clusters through nginx, each with an authority of its own and on its own network. Wrong certificates
// are refused by name and reason; certificates are rotated under load without a failed query; a cut network is a gap that
// is named, and heals.
func TestClusters(t *testing.T) {
	t.Parallel()
	observer := newWorld(t, "observer")
	east, west := newCluster(t, "east", observer), newCluster(t, "west", observer)
	both := endpoint(east.address(), east.client) + endpoint(west.address(), west.client)
	query := observer.query("query", nil, "--endpoint.sd-config-file="+observer.file("endpoints.yml", "endpoints:\n"+both),
		"--endpoint.sd-config-reload-interval=1s", "--store.response-timeout=5s", "--store.unhealthy-timeout=5m").ready()
	query.waitStores(2)
	up := func() answer.Query { return answer.At(`up{job="live"}`, time.Now().Add(-time.Second)) }
	fleet.Eventually(t, "both clusters are seen", wait, func() error { return clustersSeen("east", "west")(query.ask(up())) })

	t.Run("refused", func(t *testing.T) { wrongCertificates(t, observer, east, west) })
	t.Run("rotated", func(t *testing.T) {
		l := startLoad(t, []*container{query}, question{up, clustersSeen("east", "west")})
		for range 3 {
			for _, c := range []*cluster{east, west} {
				l.look("rotation of the client's certificate for " + c.name)
				c.publishClient(t, observer, c.client, c.ca, certs.Options{})
				l.look("rotation of the ingress's certificate of " + c.name)
				c.ca.Reissue(t, c.server, certs.Options{Names: []string{c.name + ".example"}})
				c.publishServer(t)
				mustDocker(t, "kill", "-s", "HUP", c.host("ingress"))
				l.more(t, 20)
			}
		}
		l.endWithoutFailure(t)
	})
	t.Run("cut", func(t *testing.T) {
		mustDocker(t, "network", "disconnect", observer.Name(), east.host("ingress"))
		fleet.Eventually(t, "the gap is named", wait, func() error {
			a := query.ask(up())
			if err := clustersSeen("west")(&answer.Answer{Series: a.Series}); err != nil {
				return err
			}
			if !strings.Contains(strings.Join(a.Warnings, "\n"), east.address()) {
				return fmt.Errorf("warnings %q", a.Warnings)
			}
			return nil
		})
		mustDocker(t, "network", "connect", "--alias", "east.example", observer.Name(), east.host("ingress"))
		fleet.Eventually(t, "the gap is gone", wait, func() error { return clustersSeen("east", "west")(query.ask(up())) })
	})
}

// wrongCertificates: the querier says of each refusal which endpoint it was and why.
func wrongCertificates(t *testing.T, observer *world, east, west *cluster) {
	t.Helper()
	folders := map[string]string{}
	for name, issue := range map[string]struct {
		to   *cluster
		from *certs.Authority
		o    certs.Options
	}{
		"foreign": {east, west.ca, certs.Options{}},
		"expired": {east, east.ca, certs.Options{Expired: true}},
		"other":   {west, east.ca, certs.Options{}},
	} {
		folders[name] = observer.dir("certs-" + name)
		issue.to.publishClient(t, observer, folders[name], issue.from, issue.o)
	}
	// The ingress of east is not what this folder's authority has signed.
	folders["server"] = observer.dir("certs-server")
	west.publishClient(t, observer, folders["server"], west.ca, certs.Options{})

	for name, c := range map[string]struct {
		address string
		reason  string
	}{
		"foreign": {east.address(), "certificate"},
		"expired": {east.address(), "certificate"},
		"other":   {west.address(), "certificate"},
		"server":  {east.address(), "certificate signed by unknown authority"},
	} {
		file := observer.file("endpoints-"+name+".yml", "endpoints:\n"+endpoint(c.address, folders[name]))
		q := observer.query("query-"+name, nil, "--endpoint.sd-config-file="+file).ready()
		fleet.Eventually(t, name+": the refusal is told", wait, func() error {
			line := observer.log.line("query-"+name+":", "level=warn", c.address, c.reason)
			if line == "" {
				return fmt.Errorf("the last lines are\n%s", observer.log.tail(10, "query-"+name+":"))
			}
			t.Log(line)
			return nil
		})
		q.stop()
	}
}
