package components

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// probeBodyMax bounds what is shown of an answer that says no.
const probeBodyMax = 200

// probeConfig is what a probe asks.
type probeConfig struct {
	url      string
	timeout  time.Duration
	insecure bool
}

// Probe asks a page whether a component is well, for probes that run a program in a container without a shell. Thanos has
// none.
func Probe() Component {
	return Component{
		name:  "probe",
		help:  "Ask a page, such as http://localhost:10902/-/ready, and end with code 0 if its status is 2xx, else with 1 and the reason.",
		quiet: true,
		bind: func(fs *flags) runner {
			c := &probeConfig{}
			fs.on.Arg("url", "Page to ask: http or https; a user and a password may stand in it.").Required().StringVar(&c.url)
			fs.goDuration(&c.timeout, "timeout", "3s", "How long the answer may take.")
			fs.bool(&c.insecure, "insecure-skip-verify", false, "Take any certificate: a component probed as localhost has none for that name.")
			return func(p *process) error {
				p.once(c.run)
				return nil
			}
		},
	}
}

// run asks once; what is wrong is the error.
func (c *probeConfig) run(ctx context.Context) error {
	u, err := url.Parse(c.url)
	if err != nil {
		return errors.New("probe: the page is no URL") // its text may hold a password
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("probe %s: want http://HOST:PORT/PATH or https://HOST:PORT/PATH", u.Redacted())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no answer within %s", c.timeout))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fmt.Errorf("probe %s: %w", u.Redacted(), errors.Unwrap(err))
	}
	tr := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: c.insecure}} // #nosec G402 -- asked for by a flag
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return c.because(ctx, u, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, probeBodyMax))
	if err != nil {
		return c.because(ctx, u, err)
	}
	return fmt.Errorf("probe %s: status %d: %s", u.Redacted(), resp.StatusCode, strings.TrimSpace(string(body)))
}

// because is the error of a probe that had no answer.
func (c *probeConfig) because(ctx context.Context, u *url.URL, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err // without the URL once more
	}
	return fmt.Errorf("probe %s: %w", u.Redacted(), err)
}
