package frontend

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v2"
)

// connsPerHost is how many idle connections to a querier are kept where the configuration does not say.
const connsPerHost = 100

// ParseTransport makes what reaches the queriers of a configuration in YAML, in which unknown keys are errors. What it
// does not say is as in http.DefaultTransport.
func ParseTransport(text []byte) (*http.Transport, error) {
	c := struct {
		IdleConnTimeout       model.Duration `yaml:"idle_conn_timeout"`
		ResponseHeaderTimeout model.Duration `yaml:"response_header_timeout"`
		TLSHandshakeTimeout   model.Duration `yaml:"tls_handshake_timeout"`
		ExpectContinueTimeout model.Duration `yaml:"expect_continue_timeout"`
		MaxIdleConns          *int           `yaml:"max_idle_conns"`
		MaxIdleConnsPerHost   *int           `yaml:"max_idle_conns_per_host"`
		MaxConnsPerHost       *int           `yaml:"max_conns_per_host"`
		TLS                   *tripperTLS    `yaml:"tls_config"`
	}{}
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		return nil, fmt.Errorf("parse downstream tripper config: %w", err)
	}
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("BUG: http.DefaultTransport is not Go's")
	}
	t := base.Clone()
	t.MaxIdleConnsPerHost = connsPerHost
	if c.IdleConnTimeout > 0 {
		t.IdleConnTimeout = time.Duration(c.IdleConnTimeout)
	}
	if c.ResponseHeaderTimeout > 0 {
		t.ResponseHeaderTimeout = time.Duration(c.ResponseHeaderTimeout)
	}
	if c.TLSHandshakeTimeout > 0 {
		t.TLSHandshakeTimeout = time.Duration(c.TLSHandshakeTimeout)
	}
	if c.ExpectContinueTimeout > 0 {
		t.ExpectContinueTimeout = time.Duration(c.ExpectContinueTimeout)
	}
	for from, to := range map[*int]*int{c.MaxIdleConns: &t.MaxIdleConns, c.MaxIdleConnsPerHost: &t.MaxIdleConnsPerHost, c.MaxConnsPerHost: &t.MaxConnsPerHost} {
		if from == nil {
			continue
		}
		if *from < 0 {
			return nil, fmt.Errorf("parse downstream tripper config: a number of connections is negative: %d", *from)
		}
		*to = *from
	}
	if c.TLS != nil {
		var err error
		if t.TLSClientConfig, err = c.TLS.config(); err != nil {
			return nil, fmt.Errorf("parse downstream tripper config: tls_config: %w", err)
		}
	}
	return t, nil
}

// tripperTLS is TLS towards the queriers.
type tripperTLS struct {
	CAFile             string `yaml:"ca_file"`
	CertFile           string `yaml:"cert_file"`
	KeyFile            string `yaml:"key_file"`
	ServerName         string `yaml:"server_name"`
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
}

func (c *tripperTLS) config() (*tls.Config, error) {
	t := &tls.Config{ServerName: c.ServerName, InsecureSkipVerify: c.InsecureSkipVerify, MinVersion: tls.VersionTLS12} //nolint:gosec // as configured
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate", c.CAFile)
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, errors.New("cert_file and key_file belong together")
	}
	if c.CertFile != "" {
		load := func() (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
			return &cert, err
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		// Read again at each handshake, so that it may be renewed.
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return t, nil
}
