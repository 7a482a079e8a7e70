// Command query-frontend is the query-frontend component as a program of its own.
package main

import (
	"os"

	"github.com/koios-metrics/koios/cmd/components"
)

func main() {
	code := components.Main("query-frontend", os.Args[1:], components.QueryFrontend())
	os.Exit(code)
}
