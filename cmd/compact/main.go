// Command compact is the compact component as a program of its own.
package main

import (
	"os"

	"github.com/koios-metrics/koios/cmd/components"
)

func main() {
	code := components.Main("compact", os.Args[1:], components.Compact())
	os.Exit(code)
}
