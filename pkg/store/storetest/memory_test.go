package storetest

import (
	"testing"

	"github.com/koios-metrics/koios/pkg/store"
)

// The reference passes its own suite, which shows that the suite contradicts itself nowhere.
func TestMemory(t *testing.T) {
	Run(t, func(_ testing.TB, data Data) store.Store { return New(data) })
}
