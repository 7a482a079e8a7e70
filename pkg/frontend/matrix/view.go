package matrix

import "unsafe"

// view is the bytes as a string that lives no longer than they do.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
