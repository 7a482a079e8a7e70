package clientconf

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"crypto/tls"

	promconfig "github.com/prometheus/common/config"
	"go.yaml.in/yaml/v2"
)

// HTTP configures an HTTP client, in YAML:
//
//	basic_auth: {username, password, password_file}
//	bearer_token, bearer_token_file, proxy_url
//	tls_config: {ca_file, cert_file, key_file, server_name, insecure_skip_verify}
//	transport_config: see Transport
type HTTP struct {
	BasicAuth       BasicAuth         `yaml:"basic_auth"`
	BearerToken     promconfig.Secret `yaml:"bearer_token"`
	BearerTokenFile string            `yaml:"bearer_token_file"`
	ProxyURL        string            `yaml:"proxy_url"`
	TLS             HTTPTLS           `yaml:"tls_config"`
	Transport       Transport         `yaml:"transport_config"`
}

// BasicAuth is a user and a password, or the file that holds the password.
type BasicAuth struct {
	Username     string            `yaml:"username"`
	Password     promconfig.Secret `yaml:"password"`
	PasswordFile string            `yaml:"password_file"`
}

// HTTPTLS names the certificates of an HTTP client. The files are read again when they change.
type HTTPTLS struct {
	CAFile             string `yaml:"ca_file"`
	CertFile           string `yaml:"cert_file"`
	KeyFile            string `yaml:"key_file"`
	ServerName         string `yaml:"server_name"`
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
}

// Transport bounds the connections of a client. Durations are written as nanoseconds. In all fields 0 is
// no limit, save for MaxIdleConnsPerHost, where it is 2.
type Transport struct {
	MaxIdleConns          int           `yaml:"max_idle_conns"`
	MaxIdleConnsPerHost   int           `yaml:"max_idle_conns_per_host"`
	IdleConnTimeout       time.Duration `yaml:"idle_conn_timeout"`
	ResponseHeaderTimeout time.Duration `yaml:"response_header_timeout"`
	ExpectContinueTimeout time.Duration `yaml:"expect_continue_timeout"`
	MaxConnsPerHost       int           `yaml:"max_conns_per_host"`
	DisableCompression    bool          `yaml:"disable_compression"`
	TLSHandshakeTimeout   time.Duration `yaml:"tls_handshake_timeout"`
	DialerTimeout         time.Duration `yaml:"dialer_timeout"`
}

// DefaultHTTP is what clients of a Prometheus start from.
func DefaultHTTP() HTTP {
	return HTTP{Transport: Transport{
		MaxIdleConns:          100,
		MaxIdleConnsPerHost:   2,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: 10 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		DialerTimeout:         5 * time.Second,
	}}
}

// ParseHTTP reads YAML on top of defaults: DefaultHTTP, or the zero HTTP for clients of Alertmanagers and
// queriers. Unknown keys are an error. Empty YAML gives the defaults.
func ParseHTTP(defaults HTTP, b []byte) (HTTP, error) {
	c := defaults
	if err := yaml.UnmarshalStrict(b, &c); err != nil {
		return HTTP{}, fmt.Errorf("parse HTTP client config: %w", err)
	}
	if err := c.Validate(); err != nil {
		return HTTP{}, fmt.Errorf("HTTP client config: %w", err)
	}
	return c, nil
}

// Validate explains contradictions.
func (c HTTP) Validate() error {
	if c.BasicAuth != (BasicAuth{}) && (c.BearerToken != "" || c.BearerTokenFile != "") {
		return errors.New("give basic_auth or a bearer token, not both")
	}
	if c.BearerToken != "" && c.BearerTokenFile != "" {
		return errors.New("give bearer_token or bearer_token_file, not both")
	}
	if c.BasicAuth.Password != "" && c.BasicAuth.PasswordFile != "" {
		return errors.New("basic_auth: give password or password_file, not both")
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		return errors.New("tls_config: cert_file and key_file go together")
	}
	if c.ProxyURL != "" {
		if _, err := url.Parse(c.ProxyURL); err != nil {
			return fmt.Errorf("proxy_url: %w", err)
		}
	}
	t := c.Transport
	if min(t.IdleConnTimeout, t.ResponseHeaderTimeout, t.ExpectContinueTimeout, t.TLSHandshakeTimeout, t.DialerTimeout) < 0 ||
		min(t.MaxIdleConns, t.MaxIdleConnsPerHost, t.MaxConnsPerHost) < 0 {
		return errors.New("transport_config: a number is below zero")
	}
	return nil
}

// Client makes the client. It has no timeout of its own: requests carry theirs. Certificate files are
// read now, so that a wrong path is an error now, and again when they change; password and token files
// are read for each request. The client is the caller's to keep; CloseIdleConnections releases what it holds.
func (c HTTP) Client(userAgent string) (*http.Client, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("HTTP client config: %w", err)
	}
	rt, err := c.transport()
	if err != nil {
		return nil, fmt.Errorf("make HTTP client: %w", err)
	}
	switch b := c.BasicAuth; {
	case b.PasswordFile != "":
		rt = promconfig.NewBasicAuthRoundTripper(promconfig.NewInlineSecret(b.Username), promconfig.NewFileSecret(b.PasswordFile), rt)
	case b != BasicAuth{}:
		rt = promconfig.NewBasicAuthRoundTripper(promconfig.NewInlineSecret(b.Username), promconfig.NewInlineSecret(string(b.Password)), rt)
	case c.BearerTokenFile != "":
		rt = promconfig.NewAuthorizationCredentialsRoundTripper("Bearer", promconfig.NewFileSecret(c.BearerTokenFile), rt)
	case c.BearerToken != "":
		rt = promconfig.NewAuthorizationCredentialsRoundTripper("Bearer", promconfig.NewInlineSecret(string(c.BearerToken)), rt)
	}
	return &http.Client{Transport: &agent{rt, userAgent}}, nil
}

// transport makes the part below the credentials. With files for TLS it is remade when they change.
func (c HTTP) transport() (http.RoundTripper, error) {
	tlsConfig, err := promconfig.NewTLSConfig(&promconfig.TLSConfig{
		CAFile: c.TLS.CAFile, CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile,
		ServerName: c.TLS.ServerName, InsecureSkipVerify: c.TLS.InsecureSkipVerify,
	})
	if err != nil {
		return nil, err
	}
	if c.TLS.CAFile == "" && c.TLS.CertFile == "" {
		return c.plainTransport(tlsConfig)
	}
	var files promconfig.TLSRoundTripperSettings
	if c.TLS.CAFile != "" {
		files.CA = promconfig.NewFileSecret(c.TLS.CAFile)
	}
	if c.TLS.CertFile != "" {
		files.Cert, files.Key = promconfig.NewFileSecret(c.TLS.CertFile), promconfig.NewFileSecret(c.TLS.KeyFile)
	}
	return promconfig.NewTLSRoundTripper(tlsConfig, files, c.plainTransport)
}

func (c HTTP) plainTransport(tlsConfig *tls.Config) (http.RoundTripper, error) {
	proxy := http.ProxyFromEnvironment
	if c.ProxyURL != "" {
		u, err := url.Parse(c.ProxyURL)
		if err != nil {
			return nil, fmt.Errorf("proxy_url: %w", err)
		}
		proxy = http.ProxyURL(u)
	}
	t := c.Transport
	return &http.Transport{
		Proxy:                 proxy,
		DialContext:           (&net.Dialer{Timeout: t.DialerTimeout}).DialContext,
		TLSClientConfig:       tlsConfig,
		TLSHandshakeTimeout:   t.TLSHandshakeTimeout,
		DisableCompression:    t.DisableCompression,
		MaxIdleConns:          t.MaxIdleConns,
		MaxIdleConnsPerHost:   t.MaxIdleConnsPerHost,
		MaxConnsPerHost:       t.MaxConnsPerHost,
		IdleConnTimeout:       t.IdleConnTimeout,
		ResponseHeaderTimeout: t.ResponseHeaderTimeout,
		ExpectContinueTimeout: t.ExpectContinueTimeout,
		ForceAttemptHTTP2:     true,
	}, nil
}

// agent names us in requests that do not name anybody.
type agent struct {
	next http.RoundTripper
	name string
}

func (a *agent) RoundTrip(r *http.Request) (*http.Response, error) {
	if a.name != "" && r.Header.Get("User-Agent") == "" {
		r = r.Clone(r.Context())
		r.Header.Set("User-Agent", a.name)
	}
	return a.next.RoundTrip(r)
}

// CloseIdleConnections is what http.Client looks for.
func (a *agent) CloseIdleConnections() {
	if c, ok := a.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
