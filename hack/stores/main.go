// Serves a registry of images and a store that speaks like Google's, for tests on this machine only.
//
// Usage: stores registry|gcs PORT
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"

	"github.com/fsouza/fake-gcs-server/fakestorage"
	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: stores registry|gcs PORT")
		os.Exit(2)
	}
	port, err := strconv.ParseUint(os.Args[2], 10, 16)
	if err != nil {
		log.Fatalf("port %q: %v", os.Args[2], err)
	}
	switch os.Args[1] {
	case "registry":
		address := fmt.Sprintf("127.0.0.1:%d", port)
		log.Fatal(http.ListenAndServe(address, registry.New())) // #nosec G114: a test's server
	case "gcs":
		_, err := fakestorage.NewServerWithOptions(fakestorage.Options{
			Scheme: "http", Host: "127.0.0.1", Port: uint16(port), PublicHost: fmt.Sprintf("127.0.0.1:%d", port),
		})
		if err != nil {
			log.Fatal(err)
		}
		select {}
	default:
		log.Fatalf("%q is neither registry nor gcs", os.Args[1])
	}
}
