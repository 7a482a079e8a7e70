// Package caching puts a cache before a bucket: pieces of chunk objects, meta.json and deletion marks, and the listing
// of the root. What is not in the cache is read from the bucket and kept.
package caching

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/cache"
)

// Names of what is kept, as values of the label "config".
const (
	chunksConfig = "chunks"
	metaConfig   = "meta.jsons"
	iterConfig   = "blocks-iter"
)

// Bucket is a bucket with a cache before it. Its methods may be called in parallel. Answers are those of the bucket,
// some of them as old as the configuration allows; chunk objects never change, so that theirs are never old.
type Bucket struct {
	objstore.Bucket
	cfg     Config
	cache   cache.Cache
	metrics *metrics
	sizes   sizes
}

// New puts a cache before a bucket. The cache stays the caller's to close.
func New(bkt objstore.Bucket, c cache.Cache, cfg Config, reg prometheus.Registerer) *Bucket {
	return &Bucket{Bucket: bkt, cfg: cfg, cache: c, metrics: newMetrics(reg)}
}

// Unwrap returns the bucket behind the cache.
func (b *Bucket) Unwrap() objstore.Bucket { return b.Bucket }

var errNotFound = errors.New("the object does not exist, as was known before")

// IsObjNotFoundErr implements objstore.BucketReader.
func (b *Bucket) IsObjNotFoundErr(err error) bool {
	return errors.Is(err, errNotFound) || b.Bucket.IsObjNotFoundErr(err)
}

func isChunks(name string) bool { return strings.Contains(name, "/chunks/") }

func isMetafile(name string) bool {
	base := path.Base(name)
	return base == "meta.json" || base == "deletion-mark.json"
}

// lookup asks the cache for one key and counts it.
func (b *Bucket) lookup(ctx context.Context, op, config, key string) ([]byte, bool) {
	b.metrics.requests.WithLabelValues(op, config).Inc()
	return cache.FetchOne(ctx, b.cache, key)
}

func (b *Bucket) hit(op, config string) { b.metrics.hits.WithLabelValues(op, config).Inc() }

// Values of "exists:": an empty one is not known any more.
const (
	exists      = "true"
	doesntExist = "false"
)

func (b *Bucket) noteExists(name string, there bool) {
	e := cache.Entry{Key: "exists:" + name, Value: []byte(exists), TTL: b.cfg.MetafileExistsTTL}
	if !there {
		e.Value, e.TTL = []byte(doesntExist), b.cfg.MetafileDoesntExistTTL
	}
	if e.TTL > 0 {
		b.cache.Store(e)
	}
}

// Exists implements objstore.BucketReader.
func (b *Bucket) Exists(ctx context.Context, name string) (bool, error) {
	if !isMetafile(name) {
		return b.Bucket.Exists(ctx, name)
	}
	if v, ok := b.lookup(ctx, objstore.OpExists, metaConfig, "exists:"+name); ok && len(v) > 0 {
		b.hit(objstore.OpExists, metaConfig)
		return string(v) == exists, nil
	}
	there, err := b.Bucket.Exists(ctx, name)
	if err == nil {
		b.noteExists(name, there)
	}
	return there, err
}

// Get implements objstore.BucketReader.
func (b *Bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if !isMetafile(name) {
		return b.Bucket.Get(ctx, name)
	}
	b.metrics.requests.WithLabelValues(objstore.OpGet, metaConfig).Inc()
	known := b.cache.Fetch(ctx, []string{"content:" + name, "exists:" + name})
	if len(known[0]) > 0 {
		b.hit(objstore.OpGet, metaConfig)
		return objstore.NopCloserWithSize(bytes.NewReader(known[0])), nil
	}
	if string(known[1]) == doesntExist {
		b.hit(objstore.OpGet, metaConfig)
		return nil, errNotFound
	}
	r, err := b.Bucket.Get(ctx, name)
	if err != nil {
		if b.Bucket.IsObjNotFoundErr(err) {
			b.noteExists(name, false)
		}
		return nil, err
	}
	return b.keepContent(name, r)
}

// keepContent reads what is small to its end, so that only what came whole is kept.
func (b *Bucket) keepContent(name string, r io.ReadCloser) (io.ReadCloser, error) {
	sizeMax := int64(b.cfg.MetafileMaxSize)
	content, err := io.ReadAll(io.LimitReader(r, sizeMax+1))
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if int64(len(content)) > sizeMax {
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(content), r), r}, nil
	}
	if want, err := objstore.TryToGetSize(r); err == nil && want != int64(len(content)) {
		return nil, errors.Join(io.ErrUnexpectedEOF, r.Close())
	}
	if err := r.Close(); err != nil {
		return nil, err
	}
	b.noteExists(name, true)
	if b.cfg.MetafileContentTTL > 0 && len(content) > 0 {
		b.cache.Store(cache.Entry{Key: "content:" + name, Value: content, TTL: b.cfg.MetafileContentTTL})
	}
	return objstore.NopCloserWithSize(bytes.NewReader(content)), nil
}

// Upload implements objstore.Bucket. What was known of the object is known no more.
func (b *Bucket) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	defer b.forget(name)
	return b.Bucket.Upload(ctx, name, r, opts...)
}

// Delete implements objstore.Bucket. What was known of the object is known no more.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	defer b.forget(name)
	return b.Bucket.Delete(ctx, name)
}

func (b *Bucket) forget(name string) {
	if isMetafile(name) {
		b.cache.Store(cache.Entry{Key: "exists:" + name, TTL: b.cfg.MetafileExistsTTL}, cache.Entry{Key: "content:" + name, TTL: b.cfg.MetafileContentTTL})
	}
}

// Iter implements objstore.BucketReader.
func (b *Bucket) Iter(ctx context.Context, dir string, fn func(string) error, opts ...objstore.IterOption) error {
	params := objstore.ApplyIterOptions(opts...)
	if dir != "" || params.LastModified || b.cfg.BlocksIterTTL <= 0 {
		return b.Bucket.Iter(ctx, dir, fn, opts...)
	}
	key := "iter:"
	if params.Recursive {
		key = "iter-recursive:"
	}
	var names []string
	if v, ok := b.lookup(ctx, objstore.OpIter, iterConfig, key); ok && json.Unmarshal(v, &names) == nil {
		b.hit(objstore.OpIter, iterConfig)
		for _, n := range names {
			if err := fn(n); err != nil {
				return err
			}
		}
		return nil
	}
	names = []string{}
	err := b.Bucket.Iter(ctx, dir, func(n string) error {
		names = append(names, n)
		return fn(n)
	}, opts...)
	if err != nil {
		return err
	}
	if v, err := json.Marshal(names); err == nil {
		b.cache.Store(cache.Entry{Key: key, Value: v, TTL: b.cfg.BlocksIterTTL})
	}
	return nil
}

// Attributes implements objstore.BucketReader.
func (b *Bucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	if !isChunks(name) {
		return b.Bucket.Attributes(ctx, name)
	}
	if attrs, ok := b.keptAttributes(ctx, name); ok {
		return attrs, nil
	}
	return b.fetchAttributes(ctx, name)
}

func (b *Bucket) keptAttributes(ctx context.Context, name string) (attrs objstore.ObjectAttributes, ok bool) {
	v, ok := b.lookup(ctx, objstore.OpAttributes, chunksConfig, "attrs:"+name)
	if !ok || json.Unmarshal(v, &attrs) != nil {
		return objstore.ObjectAttributes{}, false
	}
	b.hit(objstore.OpAttributes, chunksConfig)
	return attrs, true
}

func (b *Bucket) fetchAttributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	attrs, err := b.Bucket.Attributes(ctx, name)
	if err != nil {
		return attrs, err
	}
	if v, err := json.Marshal(attrs); err == nil && b.cfg.ChunkObjectAttrsTTL > 0 {
		b.cache.Store(cache.Entry{Key: "attrs:" + name, Value: v, TTL: b.cfg.ChunkObjectAttrsTTL})
	}
	return attrs, nil
}
