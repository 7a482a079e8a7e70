//go:build tools

// Package tools pins the programs that the tests run beside Koios, in a module of their own, so
// that what they depend on never reaches the main go.mod.
package tools

import (
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
)
