// Command quarterdeck writes the image that is shipped: one static program on nothing. For tests the same with a program
// that is not static, and the libraries it needs; such a layer is stored as it is, for nobody carries it far.
//
// Usage: quarterdeck -out FILE -program FILE -certificates FILE -name REFERENCE -created SECONDS
//
//	[-sbom FILE] [-library FILE]... [-version V] [-revision R]
package main

import (
	"flag"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"quarterdeck.dev/hack/images/oci"
)

// user is who runs it: the manifests of deploy/ say the same.
const user = 65532

var (
	out          = flag.String("out", "", "archive to write")
	program      = flag.String("program", "", "the program")
	certificates = flag.String("certificates", "", "authorities that channels of addons are trusted by")
	sbom         = flag.String("sbom", "", "what the program is made of, as CycloneDX; without it the image has none")
	name         = flag.String("name", "", "whole reference of the image")
	version      = flag.String("version", "", "version of the program")
	revision     = flag.String("revision", "", "commit it was built from")
	created      = flag.Int64("created", 0, "time of the files, in seconds since 1970")
	libraries    []string
)

func main() {
	flag.Func("library", "a library that the program needs, or its loader: it gets the place it has here", func(file string) error {
		if !path.IsAbs(file) {
			return fmt.Errorf("%s: a whole path is needed", file)
		}
		libraries = append(libraries, path.Clean(file))
		return nil
	})
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

// file is what is copied into the image.
type file struct {
	name, from string
	mode       int64
}

// contents of the image: what it holds whatever it is for, and a place for each library.
func contents() ([]oci.Entry, error) {
	files := []file{
		{"etc/ssl/certs/ca-certificates.crt", *certificates, 0o644},
		{"usr/bin/quarterdeck", *program, 0o755},
	}
	if *sbom != "" {
		files = append(files, file{"usr/share/sbom/quarterdeck.cdx.json", *sbom, 0o644})
	}
	for _, library := range libraries {
		files = append(files, file{strings.TrimPrefix(library, "/"), library, 0o755})
	}
	entries := []oci.Entry{
		{Name: "etc/passwd", Mode: 0o644, Body: fmt.Appendf(nil, "quarterdeck:x:%d:%d::/var/lib/quarterdeck:/nonexistent\n", user, user)},
		{Name: "etc/group", Mode: 0o644, Body: fmt.Appendf(nil, "quarterdeck:x:%d:\n", user)},
		{Name: "etc/nsswitch.conf", Mode: 0o644, Body: []byte("hosts: files dns\n")},
		{Name: "var/lib/quarterdeck/", Mode: 0o700, Owner: user},
	}
	for _, file := range files {
		body, err := os.ReadFile(file.from)
		if err != nil {
			return nil, err
		}
		entries = append(entries, oci.Entry{Name: file.name, Mode: file.mode, Body: body})
	}
	return entries, nil
}

// withFolders adds the folders that the entries lie in, and orders all by name, so that a folder comes before what is in it.
func withFolders(entries []oci.Entry) []oci.Entry {
	known := map[string]bool{}
	for _, entry := range entries {
		known[strings.TrimSuffix(entry.Name, "/")] = true
	}
	for _, entry := range slices.Clone(entries) {
		for folder := path.Dir(strings.TrimSuffix(entry.Name, "/")); folder != "."; folder = path.Dir(folder) {
			if !known[folder] {
				known[folder] = true
				entries = append(entries, oci.Entry{Name: folder + "/", Mode: 0o755})
			}
		}
	}
	slices.SortFunc(entries, func(a, b oci.Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries
}

func layer() (oci.Layer, error) {
	entries, err := contents()
	if err != nil {
		return oci.Layer{}, err
	}
	return oci.NewLayer(withFolders(entries), time.Unix(*created, 0), len(libraries) == 0)
}
