package prom

import (
	"testing"

	"go.uber.org/goleak"
)

// No test may leave a goroutine behind: neither a read nor the question beside it.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
