package logging

import (
	"context"
	"log/slog"
	"slices"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
)

// Slog returns a slog logger that writes through l, for packages that want one (Prometheus's do). Groups
// become dotted key prefixes. Levels are filtered by l.
func Slog(l log.Logger) *slog.Logger {
	return slog.New(&handler{logger: l})
}

// handler is a slog.Handler over a go-kit logger. It is immutable.
type handler struct {
	logger log.Logger
	prefix string // of open groups, with its final dot
	attrs  []any  // key, value, … of With
}

// Enabled is always true: only the go-kit logger knows its filter.
func (h *handler) Enabled(context.Context, slog.Level) bool { return true }

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	kvs := make([]any, 0, 4+len(h.attrs)+2*r.NumAttrs())
	kvs = append(kvs, level.Key(), levelValue(r.Level), "msg", r.Message)
	kvs = append(kvs, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		kvs = appendAttr(kvs, h.prefix, a)
		return true
	})
	return h.logger.Log(kvs...)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = slices.Clone(h.attrs)
	for _, a := range attrs {
		c.attrs = appendAttr(c.attrs, h.prefix, a)
	}
	return &c
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.prefix += name + "."
	return &c
}

func levelValue(l slog.Level) level.Value {
	switch {
	case l >= slog.LevelError:
		return level.ErrorValue()
	case l >= slog.LevelWarn:
		return level.WarnValue()
	case l >= slog.LevelInfo:
		return level.InfoValue()
	}
	return level.DebugValue()
}

func appendAttr(kvs []any, prefix string, a slog.Attr) []any {
	v := a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return kvs
	}
	if v.Kind() != slog.KindGroup {
		return append(kvs, prefix+a.Key, v.Any())
	}
	if a.Key != "" {
		prefix += a.Key + "."
	}
	for _, g := range v.Group() {
		kvs = appendAttr(kvs, prefix, g)
	}
	return kvs
}
