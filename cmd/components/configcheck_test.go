package components

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/koios-metrics/koios/test/certs"
)

// Each kind of file is read as its component would read it: what is good is called so; what is wrong is told with the
// file, the key and what to do, and the exit code is 1.
func TestConfigCheck(t *testing.T) {
	t.Setenv("SECRET", "s")
	ca := certs.New(t, "authority")
	pair := ca.Issue(t, certs.Options{})
	dir := t.TempDir()
	check := func(text, kind string, more ...string) (code int, out, file string) {
		t.Helper()
		file = filepath.Join(dir, kind+".yml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		code = execute("koios", append([]string{"--log.level=error", "config", "check", "--" + kind + "=" + file}, more...), &stdout, &stderr, All())
		return code, stdout.String(), file
	}
	good := func(kind, text string) {
		t.Helper()
		if code, out, file := check(text, kind); code != 0 || !strings.HasPrefix(out, "ok\t"+kind+"\t"+file+"\n") {
			t.Errorf("%s %s: code %d, %s", kind, text, code, out)
		}
	}
	bad := func(kind, text string, words ...string) {
		t.Helper()
		code, out, file := check(text, kind)
		if code != 1 || !strings.HasPrefix(out, "BAD\t"+kind+"\t"+file+"\n\t") {
			t.Errorf("%s %s: code %d, %s", kind, text, code, out)
		}
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("%s %s: %s\nlacks %s", kind, text, out, w)
			}
		}
	}
	good("objstore", "type: S3\nconfig: {bucket: b, endpoint: 's3.example:9000', access_key: a, secret_key: $(SECRET)}\n")
	bad("objstore", "type: S3\nconfig: {bukcet: b, endpoint: 'a:1'}\n", "unknown key bukcet: did you mean bucket?")
	bad("objstore", "type: S4\n", `unknown type "S4", use one of S3`)
	bad("objstore", "typ: S3\n", "line 1: unknown key typ: did you mean type?")
	bad("objstore", "type: S3\nconfig: {bucket: b, endpoint: 'a:1', secret_key: $(NOT_SET_HERE)}\n", "NOT_SET_HERE", "set it")
	good("endpoints", "endpoints: [{address: 'a:1', client_config: {tls_config: {ca_file: "+ca.File+", cert_file: "+pair.Cert+", key_file: "+pair.Key+"}}}]\n")
	bad("endpoints", "endpoints: [{addrss: 'a:1'}]\n", "unknown key addrss: did you mean address?")
	bad("endpoints", "endpoints:\n- address: a:1\n  client_config: {tls_config: {ca_file: /nowhere/ca}}\n- address: b:1\n  client_config: {tls_config: {cert_file: "+ca.File+", key_file: "+ca.File+"}}\n", "client_config of a:1", "/nowhere/ca", "client_config of b:1")
	good("web", "tls_server_config: {cert_file: "+pair.Cert+", key_file: "+pair.Key+"}\n")
	bad("web", "tls_server_config: {cert_file: /nowhere/c, key_file: /nowhere/k}\n", "/nowhere/c")
	bad("web", "basic_auth_user: {}\n", "unknown key basic_auth_user: did you mean basic_auth_users?")
	good("http-client", "tls_config: {insecure_skip_verify: true}\n")
	bad("http-client", "bearer_token: a\nbearer_token_file: b\n", "bearer_token or bearer_token_file, not both")
	good("tracing", "type: OTLP\nconfig: {client_type: grpc, endpoint: 'a:1', insecure: true}\n")
	bad("tracing", "type: SMOKE\n", "SMOKE")
	good("request-logging", "options: {level: INFO, decision: {log_start: false, log_end: true}}\n")
	bad("request-logging", "options: {level: LOUD}\n", "LOUD")
	good("index-cache", "type: MEMCACHED\nconfig: {addresses: ['a:1']}\nenabled_items: [Postings]\n")
	bad("index-cache", "type: IN-MEMORY\nenabled_items: [Postngs]\n", "Postngs", "want ")
	good("caching-bucket", "type: IN-MEMORY\nconfig: {max_size: 1MB, max_item_size: 1KB}\n")
	bad("caching-bucket", "type: IN-MEMORY\nchunk_subrange_sise: 1\n", "unknown key chunk_subrange_sise: did you mean chunk_subrange_size?")
	good("response-cache", "type: REDIS\nconfig: {addr: 'a:1'}\n")
	bad("response-cache", "type: REDIS\nconfig: {address: 'a:1'}\n", "addr: it is needed")
	good("relabel", "- {action: keep, source_labels: [cluster], regex: a}\n")
	bad("relabel", "- {action: replace, target_label: a, replacement: b}\n", "replace")
	good("standalone", "scrape_configs: [{job_name: a, static_configs: [{targets: ['b:1']}]}]\nobject_storage: {type: FILESYSTEM, config: {directory: x}}\n")
	bad("standalone", "object_storage: {type: TAPE}\n", "object_storage", "TAPE")

	if code, out, _ := check("type: IN-MEMORY\nconfig: {max_sizes: 1MB}\n", "index-cache"); code != 0 || !strings.Contains(out, `note: key "max_sizes" has no effect`) {
		t.Errorf("a key without effect: code %d, %s", code, out)
	}
	for _, args := range [][]string{{}, {"--objstore=" + filepath.Join(dir, "none.yml")}} {
		var stdout, stderr bytes.Buffer
		if code := execute("koios", append([]string{"--log.level=error", "config", "check"}, args...), &stdout, &stderr, All()); code != 1 {
			t.Errorf("%v: code %d", args, code)
		}
	}
}

// With --connect buckets are listed and endpoints asked; what does not answer, or not to us, is named with the reason.
func TestConfigCheckConnects(t *testing.T) {
	ca, other := certs.New(t, "authority"), certs.New(t, "another")
	dir := t.TempDir()
	wholeDay(t, dir)
	server, client := ca.Issue(t, certs.Options{}), ca.Issue(t, certs.Options{})
	_, addr := secureStore(t, dir, server, ca.File)
	check := func(kind, text string) (int, string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "file.yml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		code := execute("koios", []string{"--log.level=error", "config", "check", "--connect", "--timeout=3s", "--" + kind + "=" + file}, &stdout, &stderr, All())
		return code, stdout.String()
	}
	own := ", cert_file: " + client.Cert + ", key_file: " + client.Key
	f := func(kind, text string, code int, words ...string) {
		t.Helper()
		got, out := check(kind, text)
		if got != code {
			t.Errorf("%s: code %d: %s", text, got, out)
		}
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("%s: %s\nlacks %s", text, out, w)
			}
		}
	}
	f("objstore", "{type: FILESYSTEM, config: {directory: "+dir+"}}", 0, "can be listed\n")
	f("objstore", "{type: FILESYSTEM, config: {directory: "+t.TempDir()+"}}", 0, "is empty")
	f("objstore", "{type: S3, config: {bucket: b, endpoint: '127.0.0.1:1', access_key: a, secret_key: b, insecure: true, max_retries: 1}}", 1, "list bucket", "check the endpoint, the name and the credentials")
	f("endpoints", "endpoints: [{address: '"+addr+"', client_config: {tls_config: {ca_file: "+ca.File+own+"}}}]", 0, "endpoint "+addr+" answers: store with 1 label sets")
	f("endpoints", "endpoints: [{address: '"+addr+"', client_config: {tls_config: {ca_file: "+other.File+own+"}}}]", 1, "endpoint "+addr, "signed by unknown authority")
}
