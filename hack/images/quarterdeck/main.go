// Command quarterdeck writes the image that is shipped: one static program on nothing.
//
// Usage: quarterdeck -out FILE -program FILE -certificates FILE -sbom FILE -name REFERENCE [-version V] [-revision R] -created SECONDS
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"

	"quarterdeck.dev/hack/images/oci"
)

// user is who runs it: the manifests of deploy/ say the same.
const user = 65532

var (
	out          = flag.String("out", "", "archive to write")
	program      = flag.String("program", "", "the static program")
	certificates = flag.String("certificates", "", "authorities that channels of addons are trusted by")
	sbom         = flag.String("sbom", "", "what the program is made of, as CycloneDX")
	name         = flag.String("name", "", "whole reference of the image")
	version      = flag.String("version", "", "version of the program")
	revision     = flag.String("revision", "", "commit it was built from")
	created      = flag.Int64("created", 0, "time of the files, in seconds since 1970")
)

func main() {
	flag.Parse()
	digest, err := write()
	if err != nil {
		fmt.Fprintln(os.Stderr, "images/quarterdeck:", err)
		os.Exit(1)
	}
	fmt.Println(digest)
}

func write() (string, error) {
	layer, err := layer()
	if err != nil {
		return "", err
	}
	var archive oci.Archive
	digest, err := archive.Add(oci.Image{
		Name:         *name,
		Architecture: runtime.GOARCH,
		Created:      time.Unix(*created, 0),
		Config: oci.Config{
			User: fmt.Sprintf("%d:%d", user, user),
			// So that `kubectl exec … -- quarterdeck` finds it.
			Env:        []string{"PATH=/usr/bin"},
			Entrypoint: []string{"/usr/bin/quarterdeck"},
			WorkingDir: "/var/lib/quarterdeck",
			Labels: map[string]string{
				"org.opencontainers.image.title":       "quarterdeck",
				"org.opencontainers.image.description": "Kubernetes controllers as workers on shared informers",
				"org.opencontainers.image.version":     *version,
				"org.opencontainers.image.revision":    *revision,
				"org.opencontainers.image.licenses":    "Apache-2.0",
				"org.opencontainers.image.source":      "https://quarterdeck.dev",
				"org.opencontainers.image.base.name":   "scratch",
			},
		},
		Layers: []oci.Layer{layer},
	})
	if err != nil {
		return "", err
	}
	return digest, archive.Publish(*out)
}

func layer() (oci.Layer, error) {
	var bodies [3][]byte
	for index, file := range []string{*program, *certificates, *sbom} {
		body, err := os.ReadFile(file)
		if err != nil {
			return oci.Layer{}, err
		}
		bodies[index] = body
	}
	entries := []oci.Entry{{Name: "etc/", Mode: 0o755},
		{Name: "etc/passwd", Mode: 0o644, Body: fmt.Appendf(nil, "quarterdeck:x:%d:%d::/var/lib/quarterdeck:/nonexistent\n", user, user)},
		{Name: "etc/group", Mode: 0o644, Body: fmt.Appendf(nil, "quarterdeck:x:%d:\n", user)},
		{Name: "etc/nsswitch.conf", Mode: 0o644, Body: []byte("hosts: files dns\n")},
		{Name: "etc/ssl/", Mode: 0o755},
		{Name: "etc/ssl/certs/", Mode: 0o755},
		{Name: "etc/ssl/certs/ca-certificates.crt", Mode: 0o644, Body: bodies[1]},
		{Name: "usr/", Mode: 0o755},
		{Name: "usr/bin/", Mode: 0o755},
		{Name: "usr/bin/quarterdeck", Mode: 0o755, Body: bodies[0]},
		{Name: "usr/share/", Mode: 0o755},
		{Name: "usr/share/sbom/", Mode: 0o755},
		{Name: "usr/share/sbom/quarterdeck.cdx.json", Mode: 0o644, Body: bodies[2]},
		{Name: "var/", Mode: 0o755},
		{Name: "var/lib/", Mode: 0o755},
		{Name: "var/lib/quarterdeck/", Mode: 0o700, Owner: user},
	}
	return oci.NewLayer(entries, time.Unix(*created, 0), true)
}
