package block

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
)

// The resolutions of blocks in ms.
const (
	ResolutionRaw = int64(0)
	Resolution5m  = int64(5 * 60 * 1000)
	Resolution1h  = int64(60 * 60 * 1000)
)

// Source says who made a block.
type Source string

// The sources that are in use; readers accept any other as well.
const (
	SourceUnknown         Source = ""
	SourceSidecar         Source = "sidecar"
	SourceReceive         Source = "receive"
	SourceCompactor       Source = "compactor"
	SourceCompactorRepair Source = "compactor.repair"
	SourceRuler           Source = "ruler"
	SourceBucketRepair    Source = "bucket.repair"
	SourceBucketRewrite   Source = "bucket.rewrite"
	SourceBucketUpload    Source = "bucket.upload"
	SourceTest            Source = "test"
)

const (
	// The only version of meta.json there is, of Prometheus's part and of ours.
	metaVersion = 1
	// A meta.json grows with the sources of a block, 30 bytes each. 64 MiB are two million of them, so more is
	// not a meta.json.
	metaBytesMax = 64 << 20
)

// Meta is the content of a meta.json: Prometheus's block metadata and the section "thanos". A Meta read from a
// bucket is shared and must not be changed.
type Meta struct {
	tsdb.BlockMeta
	Thanos Thanos `json:"thanos"`
}

// Thanos is the section of a meta.json that Prometheus does not know.
type Thanos struct {
	// Version is 1; 0 reads as 1.
	Version int `json:"version,omitempty"`
	// Labels are the external labels of all series of the block.
	Labels     map[string]string `json:"labels"`
	Downsample Downsample        `json:"downsample"`
	Source     Source            `json:"source"`
	// SegmentFiles are the base names of the chunk files. Files says the same; both are written.
	SegmentFiles []string `json:"segment_files,omitempty"`
	// Files lists all objects of the block but marks, sorted by path.
	Files []File `json:"files,omitempty"`
	// Rewrites are the changes made by the rewriting tool, oldest first.
	Rewrites   []Rewrite  `json:"rewrites,omitempty"`
	IndexStats IndexStats `json:"index_stats"`
	// Extensions is free JSON that travels with the block.
	Extensions json.RawMessage `json:"extensions,omitempty"`
	// UploadTime is when meta.json was uploaded; the zero time is unknown.
	UploadTime time.Time `json:"upload_time"`
}

// Downsample holds the resolution of a block in ms; 0 is raw.
type Downsample struct {
	Resolution int64 `json:"resolution"`
}

// File is an object of a block.
type File struct {
	// RelPath is the path below the block's directory, with slashes.
	RelPath string `json:"rel_path"`
	// SizeBytes is 0 if unknown, as it is for meta.json itself.
	SizeBytes int64 `json:"size_bytes,omitempty"`
	Hash      *Hash `json:"hash,omitempty"`
}

// Hash is the checksum of a file.
type Hash struct {
	Func HashFunc `json:"hashFunc"`
	// Value is lower-case hexadecimal.
	Value string `json:"value"`
}

// Rewrite is one change made by the rewriting tool. What was changed is kept as it was written.
type Rewrite struct {
	Sources          []ulid.ULID     `json:"sources,omitempty"`
	DeletionsApplied json.RawMessage `json:"deletions_applied,omitempty"`
	RelabelsApplied  json.RawMessage `json:"relabels_applied,omitempty"`
}

// IndexStats bound the sizes of what an index points to, in bytes; 0 is unknown. Readers size their range reads with
// them.
type IndexStats struct {
	SeriesMaxSize int64 `json:"series_max_size,omitempty"`
	ChunkMaxSize  int64 `json:"chunk_max_size,omitempty"`
}

// Labels returns the external labels.
func (m *Meta) Labels() labels.Labels { return labels.FromMap(m.Thanos.Labels) }

// Resolution returns the resolution in ms; 0 is raw.
func (m *Meta) Resolution() int64 { return m.Thanos.Downsample.Resolution }

// FileSize returns the size in bytes that meta.json states for a file of the block, 0 if it states none.
func (m *Meta) FileSize(relPath string) int64 {
	for _, f := range m.Thanos.Files {
		if f.RelPath == relPath {
			return f.SizeBytes
		}
	}
	return 0
}

// Clone copies the metadata, so that the copy may be changed.
func (m *Meta) Clone() *Meta {
	c := *m
	c.Compaction.Sources = slices.Clone(m.Compaction.Sources)
	c.Compaction.Parents = slices.Clone(m.Compaction.Parents)
	c.Compaction.Hints = slices.Clone(m.Compaction.Hints)
	c.Thanos.Labels = make(map[string]string, len(m.Thanos.Labels))
	for k, v := range m.Thanos.Labels {
		c.Thanos.Labels[k] = v
	}
	c.Thanos.SegmentFiles = slices.Clone(m.Thanos.SegmentFiles)
	c.Thanos.Files = slices.Clone(m.Thanos.Files)
	c.Thanos.Rewrites = slices.Clone(m.Thanos.Rewrites)
	c.Thanos.Extensions = slices.Clone(m.Thanos.Extensions)
	return &c
}

// Validate tells what makes the metadata unusable.
func (m *Meta) Validate() error {
	switch {
	case m.Version != metaVersion:
		return fmt.Errorf("version is %d, only %d is known", m.Version, metaVersion)
	case m.Thanos.Version != 0 && m.Thanos.Version != metaVersion:
		return fmt.Errorf("thanos.version is %d, only %d is known", m.Thanos.Version, metaVersion)
	case m.ULID == ulid.ULID{}:
		return errors.New("ulid is missing")
	case m.MinTime > m.MaxTime:
		return fmt.Errorf("minTime %d is after maxTime %d", m.MinTime, m.MaxTime)
	case m.Thanos.Downsample.Resolution < 0:
		return fmt.Errorf("thanos.downsample.resolution %d is negative", m.Thanos.Downsample.Resolution)
	}
	return nil
}

// ReadMeta reads and validates a meta.json. Fields it does not know are passed over.
func ReadMeta(r io.Reader) (*Meta, error) {
	b, err := io.ReadAll(io.LimitReader(r, metaBytesMax+1))
	if err != nil {
		return nil, err
	}
	return ParseMeta(b)
}

// ParseMeta is ReadMeta over bytes. An error says that these bytes will never be a meta.json.
func ParseMeta(b []byte) (*Meta, error) {
	if len(b) > metaBytesMax {
		return nil, fmt.Errorf("longer than %d bytes", metaBytesMax)
	}
	var m Meta
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("decode JSON: %w", err)
	}
	if string(m.Thanos.Extensions) == "null" {
		m.Thanos.Extensions = nil
	}
	for i := range m.Thanos.Rewrites {
		rw := &m.Thanos.Rewrites[i]
		for _, raw := range []*json.RawMessage{&rw.DeletionsApplied, &rw.RelabelsApplied} {
			if string(*raw) == "null" {
				*raw = nil
			}
		}
	}
	if err := m.Validate(); err != nil {
		return nil, &unusableMetaError{&m, err}
	}
	return &m, nil
}

// unusableMetaError says why metadata that could be decoded can't be used.
type unusableMetaError struct {
	meta *Meta
	err  error
}

func (e *unusableMetaError) Error() string { return e.err.Error() }
func (e *unusableMetaError) Unwrap() error { return e.err }

// MetaOf returns the metadata that an error of View.Partial or ParseMeta is about, if it could be read as far as that
// its id, labels and times are known, though it can't be used: that of another version, say. Otherwise it is nil.
func MetaOf(err error) *Meta {
	var e *unusableMetaError
	if !errors.As(err, &e) || e.meta.ULID == (ulid.ULID{}) || e.meta.MinTime >= e.meta.MaxTime {
		return nil
	}
	return e.meta
}

// Write writes the metadata as a meta.json: indented by tabs, with a newline at the end.
func (m *Meta) Write(w io.Writer) error {
	c := *m
	if c.Thanos.Labels == nil {
		c.Thanos.Labels = map[string]string{}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "\t")
	return enc.Encode(&c)
}

// Bytes returns what Write writes.
func (m *Meta) Bytes() ([]byte, error) {
	var b bytes.Buffer
	if err := m.Write(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// ReadMetaDir reads the meta.json of a local block directory.
func ReadMetaDir(dir string) (*Meta, error) {
	f, err := os.Open(filepath.Join(dir, MetaFilename))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, err := ReadMeta(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return m, nil
}

// WriteMetaDir writes the meta.json of a local block directory. After a crash the file is either the old or the new
// one.
func WriteMetaDir(dir string, m *Meta) error {
	b, err := m.Bytes()
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, MetaFilename), b)
}

// replaceFile writes a file beside its place, syncs it and moves it there.
func replaceFile(path string, b []byte) error {
	tmp := path + ".tmp"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
