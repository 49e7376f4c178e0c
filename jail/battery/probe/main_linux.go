// Command probe is the agent of the escape battery.
package main

import (
	"os"

	"github.com/writ-gateway/writ/jail/battery/probes"
)

func main() { os.Exit(probes.Main(os.Args[1:])) }
