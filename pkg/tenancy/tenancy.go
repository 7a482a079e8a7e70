// Package tenancy knows whose request it is: which header or certificate names the tenant, and how
// the name travels through contexts and over gRPC.
package tenancy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/grpc/metadata"
)

const (
	// DefaultHeader is the HTTP header, and in lower case the gRPC metadata key, that carries the tenant.
	DefaultHeader = "THANOS-TENANT"
	// MetadataKey is DefaultHeader as gRPC spells it.
	MetadataKey = "thanos-tenant"
	// DefaultTenant is the tenant of requests that name none.
	DefaultTenant = "default-tenant"
	// DefaultLabel is the label that tells the series of one tenant from those of another.
	DefaultLabel = "tenant_id"
)

// The fields of a client certificate's subject that may name the tenant.
const (
	CertificateOrganization       = "organization"
	CertificateOrganizationalUnit = "organizationalUnit"
	CertificateCommonName         = "commonName"
)

// ErrInvalid answers a tenant name that is no plain path element. Compare with errors.Is.
var ErrInvalid = errors.New("tenant name not valid")

// Config says where the tenant's name is found. Empty fields stand for the defaults.
type Config struct {
	// Header is read before DefaultHeader.
	Header string
	// Tenant is used when the request names none.
	Tenant string
	// CertificateField, if set, names the tenant by the client's certificate and nothing else.
	CertificateField string
}

// Validate explains what is wrong with the configuration.
func (c Config) Validate() error {
	switch c.CertificateField {
	case "", CertificateOrganization, CertificateOrganizationalUnit, CertificateCommonName:
	default:
		return fmt.Errorf("unknown certificate field %q: use %s, %s or %s", c.CertificateField,
			CertificateOrganization, CertificateOrganizationalUnit, CertificateCommonName)
	}
	if c.Tenant != "" {
		if err := ValidateName(c.Tenant); err != nil {
			return fmt.Errorf("default tenant: %w", err)
		}
	}
	return nil
}

// FromRequest returns the tenant that an HTTP request names, or the default one. The certificate, if
// configured, decides alone; then come the configured header, DefaultHeader and the default.
func (c Config) FromRequest(r *http.Request) (string, error) {
	if c.CertificateField != "" {
		tenant, err := fromCertificate(r, c.CertificateField)
		if err != nil {
			return "", err
		}
		return tenant, ValidateName(tenant)
	}
	tenant := ""
	if c.Header != "" {
		tenant = r.Header.Get(c.Header)
	}
	if tenant == "" {
		tenant = r.Header.Get(DefaultHeader)
	}
	if tenant == "" {
		return c.defaultTenant(), nil
	}
	return tenant, ValidateName(tenant)
}

// Whose returns the tenant of an HTTP request for metrics and logs: the default one where the request names none that is
// valid.
func (c Config) Whose(r *http.Request) string {
	tenant, err := c.FromRequest(r)
	if err != nil {
		return c.defaultTenant()
	}
	return tenant
}

func (c Config) defaultTenant() string {
	if c.Tenant == "" {
		return DefaultTenant
	}
	return c.Tenant
}

func fromCertificate(r *http.Request, field string) (string, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return "", fmt.Errorf("read tenant from %s of the client certificate: the client sent none", field)
	}
	subject := r.TLS.PeerCertificates[0].Subject
	var names []string
	switch field {
	case CertificateOrganization:
		names = subject.Organization
	case CertificateOrganizationalUnit:
		names = subject.OrganizationalUnit
	case CertificateCommonName:
		names = []string{subject.CommonName}
	default:
		return "", fmt.Errorf("read tenant from the client certificate: unknown field %q", field)
	}
	if len(names) == 0 || names[0] == "" {
		return "", fmt.Errorf("read tenant from the client certificate: it has no %s", field)
	}
	return names[0], nil
}

// ValidateName checks that a tenant's name is one plain path element, since folders and objects are
// named after tenants. The error is an ErrInvalid.
func ValidateName(tenant string) error {
	if tenant == "" || tenant == "." || tenant == ".." || strings.ContainsAny(tenant, "/\\\x00") {
		return fmt.Errorf("%w: %q must be a single path element", ErrInvalid, tenant)
	}
	return nil
}

type contextKey struct{}

// NewContext returns a context that carries the tenant.
func NewContext(ctx context.Context, tenant string) context.Context {
	return context.WithValue(ctx, contextKey{}, tenant)
}

// FromContext returns the tenant put there by NewContext, else the one in incoming gRPC metadata.
func FromContext(ctx context.Context) (tenant string, ok bool) {
	if tenant, ok = ctx.Value(contextKey{}).(string); ok {
		return tenant, true
	}
	return FromIncoming(ctx)
}

// FromIncoming returns the tenant in the metadata of a gRPC request being served.
func FromIncoming(ctx context.Context) (tenant string, ok bool) {
	vs := metadata.ValueFromIncomingContext(ctx, MetadataKey)
	if len(vs) == 0 || vs[0] == "" {
		return "", false
	}
	return vs[0], true
}

// Outgoing returns a context whose gRPC requests carry the tenant of ctx, the default one if it has
// none. A tenant that is already in the outgoing metadata is replaced.
func Outgoing(ctx context.Context) context.Context {
	tenant, ok := FromContext(ctx)
	if !ok {
		tenant = DefaultTenant
	}
	md, _ := metadata.FromOutgoingContext(ctx) // a copy
	if md == nil {
		md = metadata.MD{}
	}
	md.Set(MetadataKey, tenant)
	return metadata.NewOutgoingContext(ctx, md)
}
