package cache

import (
	"context"
	"time"
)

// follow updates a list of servers from time to time, until the context ends.
func follow(ctx context.Context, interval time.Duration, update func(context.Context)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			update(ctx)
		}
	}
}
