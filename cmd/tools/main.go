// Command tools is the tools component as a program of its own.
package main

import (
	"os"

	"github.com/koios-metrics/koios/cmd/components"
)

func main() {
	code := components.Main("tools", os.Args[1:], components.Tools())
	os.Exit(code)
}
