// Command koios is every component in one program, each a subcommand.
package main

import (
	"os"

	"github.com/koios-metrics/koios/cmd/components"
)

func main() {
	code := components.Main("koios", os.Args[1:], components.All()...)
	os.Exit(code)
}
