package standalone

import (
	"fmt"
	"io"
	"net/http"
)

// tryQuery is the query that is shown to try: it has an answer whatever is scraped.
const tryQuery = "up"

// page is what a browser shows at the root: where to go from here.
const page = `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Koios</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:42em;margin:3em auto;padding:0 1em}code{background:#8882;padding:.1em .3em}</style>
</head>
<body>
<h1>Koios</h1>
<p>Koios is running here, in one process over one folder. It speaks the HTTP API of Prometheus: point
Grafana's Prometheus data source at this address.</p>
<form action="/api/v1/query"><label>PromQL <input name="query" value="up" size="40"></label> <button>Ask</button></form>
<ul>
<li><a href="/api/v1/query?query=up">Is everything up?</a></li>
<li><a href="/api/v1/label/__name__/values">Names of all metrics</a></li>
<li><a href="/api/v1/stores">Where the data is</a></li>
<li><a href="/metrics">Koios's own metrics</a></li>
</ul>
</body>
</html>
`

// root serves the page at the root and nowhere else.
func root(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = io.WriteString(w, page)
}

// greet tells a person at a terminal what to do now. addr is where HTTP is served.
func greet(w io.Writer, addr, dataDir string) error {
	target, err := reachable(addr)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, `Koios is running over %s.

  open  http://%s/
  try   curl 'http://%s/api/v1/query?query=%s'

The first samples come within ten seconds. Ctrl-C ends it; the data stays.
`, dataDir, target, target, tryQuery)
	return err
}
