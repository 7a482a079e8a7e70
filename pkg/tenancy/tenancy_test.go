package tenancy

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"net/http/httptest"
	"path"
	"testing"

	"google.golang.org/grpc/metadata"
)

// Shows the order of look-up: certificate, configured header, default header, default tenant.
func TestFromRequest(t *testing.T) {
	type headers map[string]string
	f := func(name string, c Config, h headers, cert *pkix.Name, want, wantErr string) {
		t.Helper()
		r := httptest.NewRequest(http.MethodGet, "/api/v1/query", nil)
		for k, v := range h {
			r.Header.Set(k, v)
		}
		if cert != nil {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Subject: *cert}}}
		}
		got, err := c.FromRequest(r)
		if wantErr != "" {
			if err == nil || err.Error() != wantErr {
				t.Errorf("%s: got error %v, want %s", name, err, wantErr)
			}
			return
		}
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, want)
		}
	}
	f("nothing", Config{}, nil, nil, "default-tenant", "")
	f("own default", Config{Tenant: "team"}, nil, nil, "team", "")
	f("default header", Config{}, headers{"THANOS-TENANT": "a"}, nil, "a", "")
	f("own header", Config{Header: "X-Tenant"}, headers{"X-Tenant": "b", "THANOS-TENANT": "a"}, nil, "b", "")
	f("own header absent", Config{Header: "X-Tenant"}, headers{"THANOS-TENANT": "a"}, nil, "a", "")
	f("path", Config{}, headers{"THANOS-TENANT": "a/b"}, nil, "", `tenant name not valid: "a/b" must be a single path element`)
	f("parent", Config{}, headers{"THANOS-TENANT": ".."}, nil, "", `tenant name not valid: ".." must be a single path element`)
	f("common name", Config{CertificateField: "commonName"}, headers{"THANOS-TENANT": "a"}, &pkix.Name{CommonName: "c"}, "c", "")
	f("organization", Config{CertificateField: "organization"}, nil, &pkix.Name{Organization: []string{"o", "p"}}, "o", "")
	f("unit", Config{CertificateField: "organizationalUnit"}, nil, &pkix.Name{OrganizationalUnit: []string{"u"}}, "u", "")
	f("no certificate", Config{CertificateField: "commonName"}, headers{"THANOS-TENANT": "a"}, nil, "",
		"read tenant from commonName of the client certificate: the client sent none")
	f("empty field", Config{CertificateField: "organization"}, nil, &pkix.Name{CommonName: "c"}, "",
		"read tenant from the client certificate: it has no organization")
}

// Shows that a name which could leave its folder is refused, and that the error can be recognised.
func TestValidateName(t *testing.T) {
	for _, bad := range []string{"", ".", "..", "/", "a/", "/a", "a/b", "../a", `a\b`} {
		if err := ValidateName(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
	for _, good := range []string{"a", "default-tenant", "a.b", "ä", "a b", "..a"} {
		if err := ValidateName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

// Shows what a wrong configuration is told.
func TestValidate(t *testing.T) {
	if err := (Config{CertificateField: "organization", Tenant: "x"}).Validate(); err != nil {
		t.Error(err)
	}
	if err := (Config{CertificateField: "email"}).Validate(); err == nil {
		t.Error("an unknown certificate field was accepted")
	}
	if err := (Config{Tenant: "../x"}).Validate(); !errors.Is(err, ErrInvalid) {
		t.Errorf("bad default tenant: %v", err)
	}
}

// Shows that the tenant travels from a context into outgoing metadata, from incoming metadata onwards,
// and that there is one even when nobody named it.
func TestContext(t *testing.T) {
	outgoing := func(want string, md metadata.MD) {
		t.Helper()
		if vs := md.Get(MetadataKey); len(vs) != 1 || vs[0] != want {
			t.Errorf("outgoing tenant: got %v, want %s", vs, want)
		}
	}
	md, _ := metadata.FromOutgoingContext(Outgoing(t.Context()))
	outgoing("default-tenant", md)

	ctx := NewContext(t.Context(), "a")
	md, _ = metadata.FromOutgoingContext(Outgoing(metadata.AppendToOutgoingContext(ctx, "request-id", "1", MetadataKey, "other")))
	outgoing("a", md)
	if md.Get("request-id")[0] != "1" {
		t.Error("other metadata was lost")
	}

	in := metadata.NewIncomingContext(t.Context(), metadata.Pairs("THANOS-TENANT", "b"))
	if got, ok := FromContext(in); !ok || got != "b" {
		t.Errorf("incoming: %q, %v", got, ok)
	}
	if got, ok := FromContext(NewContext(in, "c")); !ok || got != "c" {
		t.Errorf("context before metadata: %q, %v", got, ok)
	}
	if _, ok := FromContext(t.Context()); ok {
		t.Error("a tenant out of nothing")
	}
}

func FuzzValidateName(f *testing.F) {
	for _, s := range []string{"a", "..", "a/b", "", "\x00", "a//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if ValidateName(name) != nil {
			return
		}
		if joined := path.Join("/data", name); path.Dir(joined) != "/data" || path.Base(joined) != name {
			t.Errorf("%q leaves its folder: %s", name, joined)
		}
	})
}
