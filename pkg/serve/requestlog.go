package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	grpclog "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"go.yaml.in/yaml/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// RequestLog says which requests are logged, at which moments and from which level on. A nil one logs
// nothing.
type RequestLog struct {
	http, grpc requestLogOptions
	httpPaths  []string // "<path>:<port>"; none is all
	methods    []string // "/<service>/<method>"; none is all
}

type requestLogOptions struct {
	start, end bool
	filter     level.Option
}

// ParseRequestLog reads a request logging configuration; empty content logs nothing.
func ParseRequestLog(content []byte) (*RequestLog, error) {
	if strings.TrimSpace(string(content)) == "" {
		return nil, nil
	}
	type options struct {
		Level    string `yaml:"level"`
		Decision struct {
			Start bool `yaml:"log_start"`
			End   bool `yaml:"log_end"`
		} `yaml:"decision"`
	}
	var c struct {
		Options options `yaml:"options"`
		HTTP    struct {
			Options options `yaml:"options"`
			Config  []struct {
				Path string `yaml:"path"`
				Port uint16 `yaml:"port"`
			} `yaml:"config"`
		} `yaml:"http"`
		GRPC struct {
			Options options `yaml:"options"`
			Config  []struct {
				Service string `yaml:"service"`
				Method  string `yaml:"method"`
			} `yaml:"config"`
		} `yaml:"grpc"`
	}
	if err := yaml.UnmarshalStrict(content, &c); err != nil {
		return nil, fmt.Errorf("parse request logging config: %w", err)
	}
	read := func(own options) (o requestLogOptions, err error) {
		if own == (options{}) {
			own = c.Options
		}
		if own == (options{}) {
			own.Level = "ERROR"
		}
		o.start, o.end = own.Decision.Start, own.Decision.End
		if o.start && !o.end {
			return o, errors.New("request logging: log_start without log_end can't be had")
		}
		switch own.Level {
		case "DEBUG":
			o.filter = level.AllowDebug()
		case "INFO":
			o.filter = level.AllowInfo()
		case "WARNING":
			o.filter = level.AllowWarn()
		case "ERROR":
			o.filter = level.AllowError()
		default:
			return o, fmt.Errorf("request logging: level is %q: want DEBUG, INFO, WARNING or ERROR", own.Level)
		}
		return o, nil
	}
	l := &RequestLog{}
	var err error
	if l.http, err = read(c.HTTP.Options); err != nil {
		return nil, err
	}
	if l.grpc, err = read(c.GRPC.Options); err != nil {
		return nil, err
	}
	for _, h := range c.HTTP.Config {
		l.httpPaths = append(l.httpPaths, h.Path+":"+strconv.Itoa(int(h.Port)))
	}
	for _, g := range c.GRPC.Config {
		l.methods = append(l.methods, "/"+g.Service+"/"+g.Method)
	}
	return l, nil
}

// httpHandler logs the requests that h answers; port is where they arrive.
func (l *RequestLog) httpHandler(logger log.Logger, port func() string, h http.Handler) http.Handler {
	if !l.http.end {
		return h
	}
	logger = level.NewFilter(logger, l.http.filter)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(l.httpPaths) > 0 && !slices.Contains(l.httpPaths, r.URL.Path+":"+port()) {
			h.ServeHTTP(w, r)
			return
		}
		begin := time.Now()
		lg := log.With(logger, "http.method", r.Method, "http.path", r.URL.Path, "http.request_id", RequestID(r.Context()),
			"http.remote_addr", r.RemoteAddr, "http.user_agent", r.UserAgent(), "http.start_time", begin.UTC().Format(time.RFC3339Nano))
		if l.http.start {
			_ = level.Debug(lg).Log("msg", "started call")
		}
		sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		h.ServeHTTP(sw, r)
		at := level.Debug
		if sw.status < 200 || sw.status > 499 {
			at = level.Error
		}
		_ = at(lg).Log("msg", "finished call", "http.code", sw.status, "http.time_ms", time.Since(begin).Milliseconds())
	})
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach flushing and deadlines.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// grpcInterceptors logs gRPC calls; both are nil when nothing is to be logged.
func (l *RequestLog) grpcInterceptors(logger log.Logger) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	if l == nil || !l.grpc.end {
		return nil, nil
	}
	logger = level.NewFilter(logger, l.grpc.filter)
	events := []grpclog.LoggableEvent{grpclog.FinishCall}
	if l.grpc.start {
		events = append(events, grpclog.StartCall)
	}
	opts := []grpclog.Option{
		grpclog.WithLogOnEvents(events...),
		grpclog.WithLevels(grpcLevel),
		grpclog.WithDurationField(grpclog.DurationToTimeMillisFields),
		grpclog.WithFieldsFromContext(func(ctx context.Context) grpclog.Fields {
			if id := RequestID(ctx); id != "" {
				return grpclog.Fields{"request-id", id}
			}
			return nil
		}),
	}
	lg := grpclog.LoggerFunc(func(_ context.Context, lvl grpclog.Level, msg string, fields ...any) {
		at := level.Debug
		if lvl == grpclog.LevelError {
			at = level.Error
		}
		_ = at(logger).Log(append([]any{"msg", msg}, fields...)...)
	})
	match := selector.MatchFunc(func(_ context.Context, c interceptors.CallMeta) bool {
		return len(l.methods) == 0 || slices.Contains(l.methods, c.FullMethod())
	})
	return selector.UnaryServerInterceptor(grpclog.UnaryServerInterceptor(lg, opts...), match),
		selector.StreamServerInterceptor(grpclog.StreamServerInterceptor(lg, opts...), match)
}

func grpcLevel(c codes.Code) grpclog.Level {
	switch c {
	case codes.Unknown, codes.Unimplemented, codes.Internal, codes.DataLoss:
		return grpclog.LevelError
	}
	return grpclog.LevelDebug
}
