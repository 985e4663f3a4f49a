// Command node writes the images of the node's pods, as `ctr images import` reads them.
//
// Usage: node OUT BUSYBOX KUBECTL
package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sort"
	"strings"
	"time"

	"quarterdeck.dev/hack/images/oci"
)

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("usage: node OUT BUSYBOX KUBECTL"))
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "images/node:", err)
	os.Exit(1)
}

func write(out, busybox, kubectl string) error {
	shell, err := shellLayer(busybox)
	if err != nil {
		return err
	}
	program, err := os.ReadFile(kubectl)
	if err != nil {
		return err
	}
	tool, err := oci.NewLayer([]oci.Entry{{Name: "bin/kubectl", Mode: 0o755, Body: program}}, time.Time{}, false)
	if err != nil {
		return err
	}
	var archive oci.Archive
	add := func(name string, command []string, layers ...oci.Layer) error {
		_, err := archive.Add(oci.Image{
			Name:         name,
			Architecture: runtime.GOARCH,
			Config:       oci.Config{Env: []string{"PATH=/bin"}, Cmd: command},
			Layers:       layers,
		})
		return err
	}
	// Killed, never asked: it needs no handler of signals.
	if err := add("quarterdeck.dev/node/pause:1", []string{"/bin/sleep", "2000000000"}, shell); err != nil {
		return err
	}
	if err := add("quarterdeck.dev/node/shell:1", []string{"/bin/sh"}, shell); err != nil {
		return err
	}
	if err := add("quarterdeck.dev/node/kubectl:1", []string{"/bin/sh"}, shell, tool); err != nil {
		return err
	}
	return archive.Publish(out)
}

// shellLayer is a root with busybox under all its names.
func shellLayer(busybox string) (oci.Layer, error) {
	body, err := os.ReadFile(busybox)
	if err != nil {
		return oci.Layer{}, err
	}
	listed, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return oci.Layer{}, fmt.Errorf("asking busybox for its names: %w", err)
	}
	entries := []oci.Entry{
		{Name: "bin/", Mode: 0o755},
		{Name: "bin/busybox", Mode: 0o755, Body: body},
		{Name: "etc/", Mode: 0o755},
		{Name: "etc/passwd", Mode: 0o644, Body: []byte("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n")},
		{Name: "etc/group", Mode: 0o644, Body: []byte("root:x:0:\nuser:x:1000:\n")},
		{Name: "root/", Mode: 0o700},
		{Name: "tmp/", Mode: 0o1777},
		{Name: "usr/", Mode: 0o755},
		{Name: "usr/bin", Target: "../bin"},
		{Name: "usr/local/", Mode: 0o755},
		{Name: "usr/local/bin", Target: "../../bin"},
		{Name: "var/", Mode: 0o755},
		{Name: "var/tmp/", Mode: 0o1777},
	}
	names := strings.Fields(string(listed))
	sort.Strings(names)
	for _, name := range names {
		if name != "busybox" {
			entries = append(entries, oci.Entry{Name: "bin/" + name, Target: "busybox"})
		}
	}
	return oci.NewLayer(entries, time.Time{}, false)
}
