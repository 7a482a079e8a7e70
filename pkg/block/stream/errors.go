package stream

import (
	"errors"
	"fmt"
)

// Fault is a kind of defect of a block.
type Fault string

// The defects that reading finds.
const (
	FaultMissing   Fault = "missing"        // a file is not there
	FaultTruncated Fault = "truncated"      // the file ends before the part does
	FaultChecksum  Fault = "wrong checksum" // the bytes are not those that were written
	FaultFormat    Fault = "malformed"      // bytes that no writer writes
	FaultVersion   Fault = "unknown version"
	FaultOrder     Fault = "out of order" // symbols, series or labels that are not sorted, or there twice
	FaultEmpty     Fault = "empty"        // a series without labels or chunks
	FaultTooLong   Fault = "too long"     // longer than the reader's bound
)

// CorruptError says what is wrong with a block and where. It is not about the storage: reading again gives the same.
type CorruptError struct {
	// File is the path below the block's directory.
	File string
	// Part is the part of the file: "header", "table of contents", "symbols", "series", "chunk".
	Part string
	// Offset is where the part begins, in bytes from the start of the file.
	Offset int64
	Fault  Fault
	// Detail says more; may be empty.
	Detail string
}

func (e *CorruptError) Error() string {
	s := fmt.Sprintf("%s: %s at %d is %s", e.File, e.Part, e.Offset, e.Fault)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// AsCorrupt returns the CorruptError within an error, nil if there is none: then the block may be sound, and
// reading it failed.
func AsCorrupt(err error) *CorruptError {
	var c *CorruptError
	if errors.As(err, &c) {
		return c
	}
	return nil
}
