package crash

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/koios-metrics/koios/pkg/objstore"
)

// Shows that the storages mind conditions: of many who create or replace an object at once, each through a client of its
// own, one wins each time. With KOIOS_S3 that is asked of a real server, as leases are taken there.
func TestConditionsAreMinded(t *testing.T) {
	names, configs := storages(t)
	for i, name := range names {
		t.Run(name, func(t *testing.T) {
			const writers, rounds = 8, 20
			config := configs[i]("conditions")
			bkt := openBucket(t, config, nil)
			if err := objstore.CheckConditional(t.Context(), bkt, "koios-leases"); err != nil {
				t.Fatal(err)
			}
			var clients [writers]objstore.Conditional
			for w := range clients {
				var err error
				if clients[w], err = objstore.ConditionalOf(openBucket(t, config, nil)); err != nil {
					t.Fatal(err)
				}
			}
			version := objstore.Version("")
			for round := range rounds {
				var won atomic.Int32
				var next atomic.Pointer[objstore.Version]
				var wg sync.WaitGroup
				for w, c := range clients {
					wg.Go(func() {
						content := []byte(fmt.Sprint(round, " ", w))
						var v objstore.Version
						var err error
						if round == 0 {
							v, err = c.Create(t.Context(), "koios-leases/one", content)
						} else {
							v, err = c.Replace(t.Context(), "koios-leases/one", version, content)
						}
						switch {
						case err == nil:
							won.Add(1)
							next.Store(&v)
						case !errors.Is(err, objstore.ErrExists) && !errors.Is(err, objstore.ErrChanged):
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if n := won.Load(); n != 1 {
					t.Fatalf("round %d: %d won", round, n)
				}
				version = *next.Load()
			}
		})
	}
}
