package components

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"
)

// noDefault marks a flag that has no default, not even an empty one.
const noDefault = "\x00"

// flags binds flags to fields of a Config and remembers them. on is an application or a command of it.
type flags struct {
	on interface {
		Flag(name, help string) *kingpin.FlagClause
		Arg(name, help string) *kingpin.ArgClause
	}
	all []*declared
}

// declared is one flag, and its value as given.
type declared struct {
	name string
	kind string // as in the reference table
	def  []string
	text func() []string // what the value was set from, defaults included
}

// changed tells whether the value differs from the default.
func (f *declared) changed() bool { return !slices.Equal(f.text(), f.def) }

func (fs *flags) get(name string) *declared {
	for _, f := range fs.all {
		if f.name == name {
			return f
		}
	}
	return nil
}

// value is a kingpin value that parses text into dst; errors name the flag. A list takes more than one.
type value[T any] struct {
	name  string
	parse func(string) (T, error)
	set   func(T)
	list  bool
	texts []string
}

// Set implements kingpin.Value.
func (v *value[T]) Set(s string) error {
	x, err := v.parse(s)
	if err != nil {
		return fmt.Errorf("flag --%s: %w", v.name, err)
	}
	v.set(x)
	v.texts = append(v.texts, s)
	return nil
}

// String implements kingpin.Value.
func (v *value[T]) String() string { return strings.Join(v.texts, ",") }

// IsCumulative tells kingpin whether the flag may be repeated.
func (v *value[T]) IsCumulative() bool { return v.list }

func add[T any](fs *flags, name, kind, help string, def []string, list bool, parse func(string) (T, error), set func(T)) *kingpin.FlagClause {
	if len(def) == 1 && def[0] == noDefault {
		def = nil
	}
	v := &value[T]{name: name, parse: parse, set: set, list: list}
	c := fs.on.Flag(name, help)
	if def != nil {
		c.Default(def...)
	}
	c.SetValue(v)
	fs.all = append(fs.all, &declared{name: name, kind: kind, def: def, text: func() []string { return v.texts }})
	return c
}

func scalar[T any](fs *flags, dst *T, name, kind, def, help string, parse func(string) (T, error)) *kingpin.FlagClause {
	return add(fs, name, kind, help, []string{def}, false, parse, func(x T) { *dst = x })
}

func (fs *flags) string(dst *string, name, def, help string) *kingpin.FlagClause {
	return scalar(fs, dst, name, "string", def, help, verbatim)
}

// strings may be repeated; empty ones are dropped.
func (fs *flags) strings(dst *[]string, name, help string, def ...string) *kingpin.FlagClause {
	return add(fs, name, "repeated string", help, def, true, verbatim, func(s string) {
		if s != "" {
			*dst = append(*dst, s)
		}
	})
}

func (fs *flags) addresses(dst *[]string, name, help string) *kingpin.FlagClause {
	return add(fs, name, "repeated address", help, nil, true, func(s string) (string, error) {
		if s == "" {
			return "", fmt.Errorf("address is empty")
		}
		return s, nil
	}, func(s string) { *dst = append(*dst, s) })
}

func (fs *flags) bool(dst *bool, name string, def bool, help string) *kingpin.FlagClause {
	d := strconv.FormatBool(def)
	c := fs.on.Flag(name, help).Default(d)
	c.BoolVar(dst)
	fs.all = append(fs.all, &declared{name: name, kind: "bool", def: []string{d}, text: func() []string { return []string{strconv.FormatBool(*dst)} }})
	return c
}

func (fs *flags) int(dst *int, name, def, help string) *kingpin.FlagClause {
	return scalar(fs, dst, name, "int", def, help, func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil {
			return 0, fmt.Errorf("%q is no whole number", s)
		}
		return n, nil
	})
}

func (fs *flags) int64(dst *int64, name, def, help string) *kingpin.FlagClause {
	return scalar(fs, dst, name, "int64", def, help, func(s string) (int64, error) {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%q is no whole number", s)
		}
		return n, nil
	})
}

func (fs *flags) uint64(dst *uint64, name, def, help string) *kingpin.FlagClause {
	return scalar(fs, dst, name, "uint64", def, help, func(s string) (uint64, error) {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%q is no whole number from 0 on", s)
		}
		return n, nil
	})
}

func (fs *flags) float(dst *float64, name, def, help string) *kingpin.FlagClause {
	return scalar(fs, dst, name, "float", def, help, parseFloat)
}

func (fs *flags) floats(dst *[]float64, name, help string, def ...string) *kingpin.FlagClause {
	return add(fs, name, "repeated float", help, def, true, parseFloat, func(x float64) { *dst = append(*dst, x) })
}

// bytes reads sizes whose units are powers of 1024, however they are written.
func (fs *flags) bytes(dst *uint64, name, def, help string) *kingpin.FlagClause {
	return scalar(fs, dst, name, "bytes", def, help, parseBytes)
}

// goDuration takes Go's durations, and days, weeks and years too.
func (fs *flags) goDuration(dst *time.Duration, name, def, help string) *kingpin.FlagClause {
	return scalar(fs, dst, name, "duration(go)", def, help, parseGoDuration)
}

func (fs *flags) promDuration(dst *time.Duration, name, def, help string) *kingpin.FlagClause {
	return scalar(fs, dst, name, "duration(prom)", def, help, parsePromDuration)
}

func (fs *flags) timeOrDuration(dst *timeOrDuration, name, def, help string) *kingpin.FlagClause {
	return scalar(fs, dst, name, "time-or-duration", def, help, parseTimeOrDuration)
}

func (fs *flags) url(dst **url.URL, name, def, help string) *kingpin.FlagClause {
	return scalar(fs, dst, name, "url", def, help, parseURL)
}

func (fs *flags) enum(dst *string, name, def, help string, words ...string) *kingpin.FlagClause {
	return scalar(fs, dst, name, enumKind(words), def, help, parseEnum(words))
}

func (fs *flags) enums(dst *[]string, name, help string, def []string, words ...string) *kingpin.FlagClause {
	return add(fs, name, "repeated "+enumKind(words), help, def, true, parseEnum(words), func(s string) { *dst = append(*dst, s) })
}

func enumKind(words []string) string {
	shown := make([]string, len(words))
	for i, w := range words {
		shown[i] = w
		if w == "" {
			shown[i] = `""`
		}
	}
	return "enum(" + strings.Join(shown, ",") + ")"
}

func verbatim(s string) (string, error) { return s, nil }

func parseFloat(s string) (float64, error) {
	x, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no number", s)
	}
	return x, nil
}

func parseEnum(words []string) func(string) (string, error) {
	return func(s string) (string, error) {
		if !slices.Contains(words, s) {
			return "", fmt.Errorf("%q is none of %s", s, strings.Join(words, ", "))
		}
		return s, nil
	}
}

func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "" || u.Host == "" {
		return nil, fmt.Errorf("%q is no URL like http://host:9090", s)
	}
	return u, nil
}

func parseGoDuration(s string) (time.Duration, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return d, nil
	}
	return parsePromDuration(s)
}

func parsePromDuration(s string) (time.Duration, error) {
	d, err := model.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration like 30s, 5m or 2d", s)
	}
	return time.Duration(d), nil
}

// status returns the flags with their values as the web API tells them; secrets are masked.
func (fs *flags) status() map[string]string {
	m := make(map[string]string, len(fs.all))
	for _, f := range fs.all {
		v := strings.Join(f.text(), ",")
		switch f.name {
		case "objstore.config", "objstore.config-file":
			if v != "" {
				v = "<REDACTED>"
			}
		}
		m[f.name] = v
	}
	return m
}

// ints may be repeated.
func (fs *flags) ints(dst *[]int, name, help string, def ...string) *kingpin.FlagClause {
	return add(fs, name, "repeated int", help, def, true, func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil {
			return 0, fmt.Errorf("%q is no whole number", s)
		}
		return n, nil
	}, func(n int) { *dst = append(*dst, n) })
}

// goDurations may be repeated.
func (fs *flags) goDurations(dst *[]time.Duration, name, help string, def ...string) *kingpin.FlagClause {
	return add(fs, name, "repeated duration(go)", help, def, true, parseGoDuration, func(d time.Duration) { *dst = append(*dst, d) })
}
