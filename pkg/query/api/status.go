package api

import (
	"maps"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/common/version"
)

// Status answers what every component with an HTTP API tells about itself: its flags, its build and its
// runtime.
type Status struct {
	// Flags are the values of all flags by name.
	Flags map[string]string
	// Started is when the process began.
	Started time.Time
}

// Register adds the handlers below prefix, for a component that has no other API.
func (s Status) Register(mux Mux, prefix string, cors bool, instrument Instrument) error {
	gzip, err := newGzip()
	if err != nil {
		return err
	}
	s.register(&registrar{mux: mux, prefix: strings.TrimSuffix(prefix, "/"), instrument: instrument, gzip: gzip, cors: cors})
	return nil
}

func (s Status) register(r *registrar) {
	r.add("status_flags", "/status/flags", s.flags, http.MethodGet)
	r.add("status_runtime", "/status/runtimeinfo", s.runtime, http.MethodGet)
	r.add("status_build", "/status/buildinfo", s.build, http.MethodGet)
}

// secretFlags hold credentials.
var secretFlags = []string{"objstore.config", "objstore.config-file"}

func (s Status) flags(*http.Request) (*answer, error) {
	flags := map[string]string{}
	maps.Copy(flags, s.Flags)
	for _, name := range secretFlags {
		if _, ok := flags[name]; ok {
			flags[name] = "<REDACTED>"
		}
	}
	return &answer{data: flags}, nil
}

func (s Status) runtime(*http.Request) (*answer, error) {
	dir, err := os.Getwd()
	if err != nil {
		dir = "<" + err.Error() + ">"
	}
	return &answer{data: struct {
		StartTime      time.Time `json:"startTime"`
		CWD            string    `json:"CWD"`
		GoroutineCount int       `json:"goroutineCount"`
		GOMAXPROCS     int       `json:"GOMAXPROCS"`
		GOMEMLIMIT     int64     `json:"GOMEMLIMIT"`
		GOGC           string    `json:"GOGC"`
		GODEBUG        string    `json:"GODEBUG"`
	}{s.Started, dir, runtime.NumGoroutine(), runtime.GOMAXPROCS(0), debug.SetMemoryLimit(-1), os.Getenv("GOGC"), os.Getenv("GODEBUG")}}, nil
}

func (s Status) build(*http.Request) (*answer, error) {
	// Nothing may be added lightly: Grafana takes any "features" for another product's.
	return &answer{data: struct {
		Version   string `json:"version"`
		Revision  string `json:"revision"`
		Branch    string `json:"branch"`
		BuildUser string `json:"buildUser"`
		BuildDate string `json:"buildDate"`
		GoVersion string `json:"goVersion"`
	}{version.Version, version.GetRevision(), version.Branch, version.BuildUser, version.BuildDate, version.GoVersion}}, nil
}
