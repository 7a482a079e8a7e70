// Package objstore opens the object storage that a YAML config describes.
//
// The clients are those of thanos-io/objstore, all of its providers. This package adds what every component wants around
// them: errors that say what to change in the config, metrics named thanos_objstore_bucket_*, spans, and for the
// FILESYSTEM provider uploads that are seen whole or not at all.
package objstore

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/client"
	"go.yaml.in/yaml/v2"
)

// types are the values of "type", in the order in which errors list them.
var types = []objstore.ObjProvider{
	objstore.S3, objstore.GCS, objstore.AZURE, objstore.SWIFT, objstore.COS, objstore.ALIYUNOSS, objstore.BOS,
	objstore.OCI, objstore.OBS, objstore.FILESYSTEM,
}

// Config is an object storage config.
type Config struct {
	// Type is the provider, in upper case.
	Type objstore.ObjProvider `yaml:"type"`
	// Provider holds the keys of the provider, not looked at yet.
	Provider any `yaml:"config"`
	// Prefix goes before the name of every object, with a slash.
	Prefix string `yaml:"prefix"`
}

// Parse reads an object storage config; $(NAME) has been replaced by then. The content may hold secrets, so no error
// quotes it as a whole.
func Parse(content []byte) (Config, error) {
	var c Config
	if err := yaml.UnmarshalStrict(content, &c); err != nil {
		return Config{}, fmt.Errorf("parse object storage config: %w; the keys are type, config and prefix", err)
	}
	if c.Type == "" {
		what := "has no type"
		if len(strings.TrimSpace(string(content))) == 0 {
			what = "is empty"
		}
		return Config{}, fmt.Errorf("object storage config %s: set type to one of %s", what, listTypes())
	}
	c.Type = objstore.ObjProvider(strings.ToUpper(string(c.Type)))
	if !slices.Contains(types, c.Type) {
		return Config{}, fmt.Errorf("object storage config: unknown type %q, use one of %s", c.Type, listTypes())
	}
	if _, isMap := c.Provider.(map[any]any); !isMap && c.Provider != nil {
		return Config{}, errors.New("object storage config: config must hold the keys of the provider, for example bucket and endpoint")
	}
	return c, nil
}

func listTypes() string {
	ss := make([]string, len(types))
	for i, t := range types {
		ss[i] = string(t)
	}
	return strings.Join(ss, ", ")
}

// New opens the bucket that a config describes. Nothing is asked of the bucket yet, so wrong credentials show at its
// first use. The component goes into the client's user agent; the metrics carry the bucket's name. Close the bucket
// when done.
func New(logger log.Logger, content []byte, reg prometheus.Registerer, component string) (objstore.InstrumentedBucket, error) {
	c, err := Parse(content)
	if err != nil {
		return nil, err
	}
	bkt, err := open(logger, c, component)
	if err != nil {
		return nil, err
	}
	return &opened{InstrumentedBucket: Instrument(bkt, reg), provider: c.Type, below: bkt}, nil
}

// opened is a bucket that knows how it is written to on conditions.
type opened struct {
	objstore.InstrumentedBucket
	provider objstore.ObjProvider
	below    objstore.Bucket // without metrics and spans
}

// Conditional is asked for by ConditionalOf.
func (o *opened) Conditional() (Conditional, error) {
	switch o.provider {
	case objstore.S3:
		return s3Conditional{o.InstrumentedBucket}, nil
	case objstore.FILESYSTEM:
		return ConditionalOf(o.below)
	}
	return nil, fmt.Errorf("%w: provider %s; S3 and FILESYSTEM have them", ErrNotConditional, o.provider)
}

// Instrument puts metrics and spans around a bucket.
func Instrument(bkt objstore.Bucket, reg prometheus.Registerer) objstore.InstrumentedBucket {
	if reg != nil {
		reg = prometheus.WrapRegistererWithPrefix("thanos_", reg)
	}
	return withSpans(objstore.WrapWithMetrics(bkt, reg, bkt.Name()))
}

func open(logger log.Logger, c Config, component string) (objstore.Bucket, error) {
	if c.Type == objstore.FILESYSTEM {
		bkt, err := openFilesystem(c)
		if err != nil {
			return nil, err
		}
		return &prefixedFilesystem{objstore.NewPrefixedBucket(bkt, c.Prefix), bkt, strings.Trim(c.Prefix, objstore.DirDelim)}, nil
	}
	bkt, err := client.NewBucketFromConfig(logger, &client.BucketConfig{Type: c.Type, Config: c.Provider, Prefix: c.Prefix}, component, wrapConditions)
	if err != nil {
		return nil, fmt.Errorf("open object storage of type %s: %w; check the keys below config", c.Type, err)
	}
	return bkt, nil
}
