// Package logging makes the one logger of a process: go-kit lines in logfmt or JSON with the keys that
// log parsers know (ts, caller, level), and a bridge that lets slog users write through it.
package logging

import (
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
)

// The formats.
const (
	FormatLogfmt = "logfmt"
	FormatJSON   = "json"
	// FormatJournald is accepted and written as logfmt: the journal adds its own time and reads stderr.
	FormatJournald = "journald"
)

// Formats and Levels list what New accepts, in the order shown to users.
var (
	Formats = []string{FormatLogfmt, FormatJSON, FormatJournald}
	Levels  = []string{"error", "warn", "info", "debug"}
)

// New returns a logger that writes lines of at least the given level to w. A debugName that is not
// empty is written with every line as name. The logger may be used in parallel.
func New(w io.Writer, minLevel, format, debugName string) (log.Logger, error) {
	var opt level.Option
	switch minLevel {
	case "error":
		opt = level.AllowError()
	case "warn":
		opt = level.AllowWarn()
	case "info":
		opt = level.AllowInfo()
	case "debug":
		opt = level.AllowDebug()
	default:
		return nil, fmt.Errorf("unknown log level %q: want one of %s", minLevel, strings.Join(Levels, ", "))
	}
	var l log.Logger
	switch format {
	case FormatLogfmt, FormatJournald:
		l = log.NewLogfmtLogger(log.NewSyncWriter(w))
	case FormatJSON:
		l = log.NewJSONLogger(log.NewSyncWriter(w))
	default:
		return nil, fmt.Errorf("unknown log format %q: want one of %s", format, strings.Join(Formats, ", "))
	}
	// The filter goes outermost, so that time and caller are worked out only for lines that are written.
	l = log.With(l, "ts", log.DefaultTimestampUTC, "caller", log.Valuer(caller))
	if debugName != "" {
		l = log.With(l, "name", debugName)
	}
	l = level.NewFilter(l, opt)
	if format == FormatJournald {
		_ = level.Info(l).Log("msg", "log format journald is written as logfmt: the journal reads standard error")
	}
	return l, nil
}

// callerDepthMax bounds the search for the line that logs: the frames of go-kit, slog and the bridge in
// between are fewer than ten.
const callerDepthMax = 24

// caller returns file:line of the innermost frame that belongs to neither a logging library nor this
// package, so that lines through slog name their real origin too.
func caller() any {
	var pcs [callerDepthMax]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if !isPlumbing(f.Function) || !more {
			return position(f)
		}
	}
}

func isPlumbing(function string) bool {
	return strings.HasPrefix(function, "github.com/go-kit/log") ||
		strings.HasPrefix(function, "log/slog.") ||
		strings.HasPrefix(function, "github.com/koios-metrics/koios/pkg/logging.") && !strings.HasPrefix(function, "github.com/koios-metrics/koios/pkg/logging.Test")
}

func position(f runtime.Frame) string {
	return f.File[strings.LastIndexByte(f.File, '/')+1:] + ":" + strconv.Itoa(f.Line)
}
