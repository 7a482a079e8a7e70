//go:build !race

package promqlcompat

// slow is true with the race detector, when every query is several times as slow: fewer are asked then.
const slow = false
