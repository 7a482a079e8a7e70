// Command query is the query component as a program of its own.
package main

import (
	"os"

	"github.com/koios-metrics/koios/cmd/components"
)

func main() {
	code := components.Main("query", os.Args[1:], components.Query())
	os.Exit(code)
}
