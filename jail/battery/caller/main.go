// Command caller asks the gateway with Go's own HTTP client, as an agent would that knows nothing of
// jails: the addresses are its arguments, proxies are in its environment.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	client := http.Client{Timeout: 20 * time.Second}
	for _, url := range os.Args[1:] {
		r, err := client.Get(url)
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		body, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		fmt.Println(r.StatusCode, string(body), err)
	}
}
