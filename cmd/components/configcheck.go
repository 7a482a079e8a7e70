package components

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/clientconf"
	"github.com/koios-metrics/koios/pkg/endpoint"
	"github.com/koios-metrics/koios/pkg/frontend"
	"github.com/koios-metrics/koios/pkg/objstore"
	"github.com/koios-metrics/koios/pkg/objstore/caching"
	"github.com/koios-metrics/koios/pkg/serve"
	"github.com/koios-metrics/koios/pkg/standalone"
	"github.com/koios-metrics/koios/pkg/tracing"
)

// Config is what is done with configuration files without running anything.
func Config() Component {
	return Component{name: "config", help: "Check configuration files.", bind: noFlags, subs: []Component{configCheck()}}
}

// fileKind is a kind of configuration file.
type fileKind struct {
	flag, what string
	// used is the flag that gives a component the file.
	used string
	// expand tells whether $(NAME) in it is replaced.
	expand bool
	// keys are those that a mistyped one may be meant for.
	keys string
	// check looks at the content.
	check func(c *checker, file string, text []byte) error
	// connect talks to what the file describes; nil where there is nothing to talk to.
	connect func(ctx context.Context, c *checker, text []byte) error
}

const (
	keysTLS   = "tls_config ca_file cert_file key_file server_name insecure_skip_verify min_version "
	keysHTTP  = keysTLS + "idle_conn_timeout response_header_timeout tls_handshake_timeout expect_continue_timeout max_idle_conns max_idle_conns_per_host max_conns_per_host disable_compression "
	keysCache = "type config max_size max_item_size addresses timeout max_idle_connections max_async_concurrency max_async_buffer_size max_get_multi_concurrency max_get_multi_batch_size dns_provider_update_interval auto_discovery addr username password db master_name "
)

// fileKinds are the kinds, in the order of --help.
func fileKinds() []fileKind {
	return []fileKind{
		{
			flag: "objstore", what: "an object storage configuration", used: "--objstore.config-file", expand: true,
			keys:  "type config prefix bucket endpoint region access_key secret_key session_token insecure signature_version2 http_config part_size sse_config sts_endpoint bucket_lookup_type list_objects_version service_account storage_account storage_account_key container directory max_retries " + keysHTTP,
			check: checkObjstore, connect: connectObjstore,
		},
		{
			flag: "endpoints", what: "an endpoint file", used: "--endpoint.sd-config-file",
			keys:  "default_client_config endpoints address strict group service_config client_config enabled compression " + keysTLS,
			check: checkEndpoints, connect: connectEndpoints,
		},
		{
			flag: "web", what: "a web configuration", used: "--http.config",
			keys:  "tls_server_config http_server_config basic_auth_users rate_limit client_auth_type client_ca_file cipher_suites curve_preferences max_version prefer_server_cipher_suites http2 headers " + keysTLS,
			check: func(_ *checker, file string, _ []byte) error { return web.Validate(file) },
		},
		{
			flag: "http-client", what: "the configuration of a client of Prometheus", used: "--prometheus.http-client-file",
			keys: "basic_auth username password password_file bearer_token bearer_token_file proxy_url transport_config dialer_timeout " + keysHTTP,
			check: func(_ *checker, _ string, text []byte) error {
				c, err := clientconf.ParseHTTP(clientconf.DefaultHTTP(), text)
				if err == nil {
					_, err = c.Client("")
				}
				return err
			},
		},
		{
			flag: "tracing", what: "a tracing configuration", used: "--tracing.config-file", expand: true,
			keys: "type config service_name endpoint client_type insecure sampler_type sampler_param agent_host agent_port headers timeout compression " + keysTLS,
			check: func(c *checker, _ string, text []byte) error {
				p, err := tracing.New(context.Background(), text, "check", c.logger)
				if err != nil {
					return err
				}
				return p.Shutdown()
			},
		},
		{
			flag: "request-logging", what: "a request logging configuration", used: "--request.logging-config-file", expand: true,
			keys:  "options level decision log_start log_end http grpc config path port service method",
			check: func(_ *checker, _ string, text []byte) error { _, err := serve.ParseRequestLog(text); return err },
		},
		{
			flag: "index-cache", what: "the configuration of a store's index cache", used: "--index-cache.config-file", expand: true,
			keys: "enabled_items ttl " + keysCache,
			check: func(c *checker, _ string, text []byte) error {
				cfg, err := parseIndexCache(text, 0)
				c.unknownKeys(cfg.unknown)
				return err
			},
		},
		{
			flag: "caching-bucket", what: "the configuration of a store's cache of objects", used: "--store.caching-bucket.config-file", expand: true,
			keys: "chunk_subrange_size max_chunks_get_range_requests chunk_object_attrs_ttl chunk_subrange_ttl blocks_iter_ttl metafile_exists_ttl metafile_doesnt_exist_ttl metafile_content_ttl metafile_max_size " + keysCache,
			check: func(c *checker, _ string, text []byte) error {
				_, _, unknown, err := caching.Parse(text)
				c.unknownKeys(unknown)
				return err
			},
		},
		{
			flag: "response-cache", what: "the configuration of a query frontend's results cache", used: "--query-range.response-cache-config-file", expand: true,
			keys:  "max_size_items validity expiration " + keysCache,
			check: func(_ *checker, _ string, text []byte) error { _, err := frontend.ParseCache(text); return err },
		},
		{
			flag: "relabel", what: "relabel rules that choose blocks", used: "--selector.relabel-config-file", expand: true,
			keys:  "action source_labels separator regex modulus target_label replacement",
			check: func(_ *checker, _ string, text []byte) error { _, err := block.ParseSelector(text); return err },
		},
		{
			flag: "standalone", what: "the file of a standalone", used: "--config.file",
			keys:  "global scrape_configs scrape_config_files storage object_storage scrape_interval external_labels job_name static_configs targets",
			check: func(_ *checker, file string, _ []byte) error { return standalone.CheckFile(file) },
		},
	}
}

// checker checks files, one after the other.
type checker struct {
	files   map[string]*[]string // by kind
	connect bool
	timeout time.Duration

	logger log.Logger
	notes  []string // about the file at hand
}

// unknownKeys notes keys that have no effect, and are no error since Thanos takes them as well.
func (c *checker) unknownKeys(keys []string) {
	for _, k := range keys {
		c.notes = append(c.notes, fmt.Sprintf("key %q has no effect", k))
	}
}

func configCheck() Component {
	return Component{
		name: "check",
		help: "Read configuration files as the components would and tell what is wrong with them: the file, the key, and what to do. Ends with code 1 if something is.",
		bind: func(fs *flags) runner {
			c := &checker{files: map[string]*[]string{}}
			for _, k := range fileKinds() {
				files := &[]string{}
				c.files[k.flag] = files
				fs.strings(files, k.flag, fmt.Sprintf("Path of %s, as for %s (repeatable).", k.what, k.used)).PlaceHolder("<file-path>")
			}
			fs.bool(&c.connect, "connect", false, "Talk to buckets and endpoints too: list a bucket, and ask each endpoint what it has. See also --timeout.")
			fs.promDuration(&c.timeout, "timeout", "10s", "How long a bucket or the endpoints of a file may take. See also --connect.")
			return func(p *process) error {
				c.logger = log.NewNopLogger()
				p.once(func(ctx context.Context) error { return c.run(ctx, p.out) })
				return nil
			}
		},
	}
}

var errConfig = errors.New("there are files that can't be used")

func (c *checker) run(ctx context.Context, out io.Writer) error {
	var checked, bad int
	for _, k := range fileKinds() {
		for _, file := range *c.files[k.flag] {
			checked++
			c.notes = nil
			err := c.one(ctx, k, file)
			verdict := "ok"
			if err != nil {
				bad++
				verdict = "BAD"
			}
			if _, werr := fmt.Fprintf(out, "%s\t%s\t%s\n", verdict, k.flag, file); werr != nil {
				return werr
			}
			if err != nil {
				_, _ = fmt.Fprintf(out, "\t%s\n", strings.ReplaceAll(k.explain(err), "\n", "\n\t"))
			}
			for _, note := range c.notes {
				_, _ = fmt.Fprintf(out, "\tnote: %s\n", note)
			}
		}
	}
	switch {
	case checked == 0:
		return errors.New("no file is given: name one with its kind, such as --objstore=bucket.yml; see --help")
	case bad > 0:
		return fmt.Errorf("%w: %d of %d", errConfig, bad, checked)
	}
	return nil
}

// one checks one file and, if that is asked for, what it describes.
func (c *checker) one(ctx context.Context, k fileKind, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if k.expand {
		if text, err = expandEnv(text); err != nil {
			return fmt.Errorf("%w: set it, or write the value", err)
		}
	}
	if err := k.check(c, file, text); err != nil || !c.connect || k.connect == nil {
		return err
	}
	return k.connect(ctx, c, text)
}

// unknownKey is how YAML's parser tells a key that is not known.
var unknownKey = regexp.MustCompile(`field (\S+) not found in type \S+`)

// explain makes an error speak of keys, and names the one that was probably meant.
func (k *fileKind) explain(err error) string {
	return unknownKey.ReplaceAllStringFunc(err.Error(), func(s string) string {
		key := unknownKey.FindStringSubmatch(s)[1]
		known := strings.Fields(k.keys)
		if near := nearest(key, known); near != "" && near != key {
			return fmt.Sprintf("unknown key %s: did you mean %s?", key, near)
		} else if near == key {
			return fmt.Sprintf("key %s does not belong there", key)
		}
		return fmt.Sprintf("unknown key %s: take it out", key)
	})
}

func checkObjstore(c *checker, _ string, text []byte) error {
	bkt, err := objstore.New(c.logger, text, nil, "config-check")
	if err != nil {
		return err
	}
	return bkt.Close()
}

// connectObjstore lists the root of the bucket until the first name.
func connectObjstore(ctx context.Context, c *checker, text []byte) error {
	bkt, err := objstore.New(c.logger, text, nil, "config-check")
	if err != nil {
		return err
	}
	defer func() { _ = bkt.Close() }()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	found := errors.New("found")
	switch err := bkt.Iter(ctx, "", func(string) error { return found }); {
	case err == nil:
		c.notes = append(c.notes, fmt.Sprintf("bucket %s can be listed and is empty", bkt.Name()))
	case errors.Is(err, found):
		c.notes = append(c.notes, fmt.Sprintf("bucket %s can be listed", bkt.Name()))
	default:
		return fmt.Errorf("list bucket %s: %w; check the endpoint, the name and the credentials", bkt.Name(), err)
	}
	return nil
}

func checkEndpoints(c *checker, _ string, text []byte) error {
	return endpoint.CheckFile(text, clientconf.GRPC{}, c.logger)
}

// connectEndpoints asks each endpoint once.
func connectEndpoints(ctx context.Context, c *checker, text []byte) error {
	cfg := endpoint.DefaultConfig()
	cfg.SD, cfg.InfoTimeout = text, c.timeout
	set, err := endpoint.New(cfg, c.logger, nil)
	if err != nil {
		return err
	}
	// DNS comes before the endpoints; reasons come when the time of an endpoint is over.
	ctx, cancel := context.WithTimeout(ctx, 2*c.timeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- set.Run(ctx) }()
	select {
	case <-set.Ready():
	case <-ctx.Done():
	}
	var errs []error
	list := set.Status()
	slices.SortFunc(list, func(a, b endpoint.Status) int { return strings.Compare(a.Name, b.Name) })
	for _, st := range list {
		if st.LastError != nil {
			errs = append(errs, fmt.Errorf("endpoint %s: %w", st.Name, st.LastError))
			continue
		}
		c.notes = append(c.notes, fmt.Sprintf("endpoint %s answers: %s with %d label sets", st.Name, st.Component, len(st.LabelSets)))
	}
	cancel()
	return errors.Join(append(errs, <-done)...)
}
