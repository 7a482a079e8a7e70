// Command store is the store component as a program of its own.
package main

import (
	"os"

	"github.com/koios-metrics/koios/cmd/components"
)

func main() {
	code := components.Main("store", os.Args[1:], components.Store())
	os.Exit(code)
}
