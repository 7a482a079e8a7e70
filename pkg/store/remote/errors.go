package remote

import (
	"context"
	"fmt"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/wire"
)

// error says what failed, given as a format with a %s for the peer's name. Where our own context ended,
// that is what failed.
func (s *Store) error(ctx context.Context, doing string, err error) error {
	doing = fmt.Sprintf(doing, s.config.Name)
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	}
	return store.Errorf(wire.KindOf(err), "%s: %w", doing, err)
}

// refused is the error of a request that wants all or nothing and got a warning.
func (s *Store) refused(text string) error {
	return store.Errorf(store.KindAborted, "%s warned: %s", s.config.Name, text)
}
