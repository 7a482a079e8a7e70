// Command sidecar is the sidecar component as a program of its own.
package main

import (
	"os"

	"github.com/koios-metrics/koios/cmd/components"
)

func main() {
	code := components.Main("sidecar", os.Args[1:], components.Sidecar())
	os.Exit(code)
}
