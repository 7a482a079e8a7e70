// Package startup measures how long a store takes to be ready over a bucket of many blocks that is far away, and what it
// asks of the bucket meanwhile.
package startup
