// Package block is a block in a bucket: its metadata, its marks, and how it gets there, is found and goes away.
//
// A block is the directory <ULID>/ with the objects meta.json, index and chunks/000001 and so on. The whole design
// rests on one rule: a block exists when its meta.json can be read. Upload therefore writes meta.json last, Delete
// removes it first, and whatever lies in a directory without it is a partial block that readers pass over.
//
// What the package asks of object storage: an object is readable by everyone once its upload has returned (read after
// write), an upload shows either the whole object or none of it, and uploading the same object again is harmless. A
// listing may be stale. Nobody here retries: callers run in loops.
package block

import "github.com/oklog/ulid/v2"

// The names of the objects of a block, below its directory.
const (
	MetaFilename             = "meta.json"
	IndexFilename            = "index"
	ChunksDirname            = "chunks"
	DeletionMarkFilename     = "deletion-mark.json"
	NoCompactMarkFilename    = "no-compact-mark.json"
	NoDownsampleMarkFilename = "no-downsample-mark.json"
)

// Object returns the name of an object of a block: its directory and the parts below, joined by slashes.
func Object(id ulid.ULID, parts ...string) string {
	name := id.String()
	for _, p := range parts {
		name += "/" + p
	}
	return name
}

// ParseID returns the block id that a directory name stands for; ok is false for any other name.
func ParseID(dir string) (id ulid.ULID, ok bool) {
	if n := len(dir); n > 0 && dir[n-1] == '/' {
		dir = dir[:n-1]
	}
	id, err := ulid.ParseStrict(dir)
	// Lower case decodes too, but is not how a block's directory is named.
	return id, err == nil && id.String() == dir
}
