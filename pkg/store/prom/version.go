package prom

import (
	"strconv"
	"strings"
)

// labelsMatch tells whether the label calls of the Prometheus take matchers: since 2.24. An unknown or odd
// version counts as a newer one.
func (s *Store) labelsMatch() bool {
	if s.cfg.Version == nil {
		return true
	}
	major, rest, _ := strings.Cut(s.cfg.Version(), ".")
	minor, _, _ := strings.Cut(rest, ".")
	x, err1 := strconv.Atoi(major)
	y, err2 := strconv.Atoi(minor)
	if err1 != nil || err2 != nil {
		return true
	}
	return x > 2 || x == 2 && y >= 24
}
