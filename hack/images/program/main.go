// Command program writes an image of one static program on nothing, as `ctr images import` reads it.
//
// Usage: program OUT NAME PROGRAM
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"quarterdeck.dev/hack/images/oci"
)

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("usage: program OUT NAME PROGRAM"))
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "images/program:", err)
	os.Exit(1)
}

func write(out, name, program string) error {
	body, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	file := filepath.Base(program)
	layer, err := oci.NewLayer([]oci.Entry{{Name: file, Mode: 0o755, Body: body}}, time.Time{}, false)
	if err != nil {
		return err
	}
	var archive oci.Archive
	_, err = archive.Add(oci.Image{
		Name:         name,
		Architecture: runtime.GOARCH,
		Config:       oci.Config{Entrypoint: []string{"/" + file}},
		Layers:       []oci.Layer{layer},
	})
	if err != nil {
		return err
	}
	return archive.Publish(out)
}
