// Command images writes the images of the node's pods: an OCI layout in one tar
// file, as `ctr images import` reads it.
//
// Usage: images OUT BUSYBOX KUBECTL
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sort"
	"strings"
)

const (
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
)

// descriptor names a blob, as the image specification has it.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// entry is a file of a layer; a link if it has a target.
type entry struct {
	name   string
	mode   int64
	body   []byte
	target string
}

// layout collects blobs by digest.
type layout struct {
	blobs map[string][]byte
	index []descriptor
}

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("usage: images OUT BUSYBOX KUBECTL"))
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "images:", err)
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
	tool, err := layerOf([]entry{{name: "bin/kubectl", mode: 0o755, body: program}})
	if err != nil {
		return err
	}
	all := layout{blobs: map[string][]byte{}}
	// Killed, never asked: it needs no handler of signals.
	all.image("quarterdeck.dev/node/pause:1", []string{"/bin/sleep", "2000000000"}, shell)
	all.image("quarterdeck.dev/node/shell:1", []string{"/bin/sh"}, shell)
	all.image("quarterdeck.dev/node/kubectl:1", []string{"/bin/sh"}, shell, tool)
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	if err := all.write(file); err != nil {
		return err
	}
	return file.Close()
}

// shellLayer is a root with busybox under all its names.
func shellLayer(busybox string) ([]byte, error) {
	body, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	listed, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("asking busybox for its names: %w", err)
	}
	entries := []entry{
		{name: "bin/", mode: 0o755},
		{name: "bin/busybox", mode: 0o755, body: body},
		{name: "etc/", mode: 0o755},
		{name: "etc/passwd", mode: 0o644, body: []byte("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n")},
		{name: "etc/group", mode: 0o644, body: []byte("root:x:0:\nuser:x:1000:\n")},
		{name: "root/", mode: 0o700},
		{name: "tmp/", mode: 0o1777},
		{name: "usr/", mode: 0o755},
		{name: "usr/bin", target: "../bin"},
		{name: "usr/local/", mode: 0o755},
		{name: "usr/local/bin", target: "../../bin"},
		{name: "var/", mode: 0o755},
		{name: "var/tmp/", mode: 0o1777},
	}
	names := strings.Fields(string(listed))
	sort.Strings(names)
	for _, name := range names {
		if name != "busybox" {
			entries = append(entries, entry{name: "bin/" + name, target: "busybox"})
		}
	}
	return layerOf(entries)
}

func layerOf(entries []entry) ([]byte, error) {
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	for _, entry := range entries {
		header := &tar.Header{Name: entry.name, Mode: entry.mode, Size: int64(len(entry.body)), Typeflag: tar.TypeReg}
		switch {
		case entry.target != "":
			header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, entry.target, 0o777
		case strings.HasSuffix(entry.name, "/"):
			header.Typeflag = tar.TypeDir
		}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := archive.Write(entry.body); err != nil {
			return nil, err
		}
	}
	err := archive.Close()
	return out.Bytes(), err
}

// blob keeps a blob and describes it.
func (l *layout) blob(mediaType string, body []byte) descriptor {
	digest := fmt.Sprintf("%x", sha256.Sum256(body))
	l.blobs[digest] = body
	return descriptor{MediaType: mediaType, Digest: "sha256:" + digest, Size: len(body)}
}

func (l *layout) json(mediaType string, value any) descriptor {
	body, err := json.Marshal(value)
	if err != nil {
		fail(err)
	}
	return l.blob(mediaType, body)
}

// image adds an image of these layers under a name.
func (l *layout) image(name string, command []string, layers ...[]byte) {
	var described []descriptor
	var digests []string
	for _, layer := range layers {
		blob := l.blob(mediaLayer, layer)
		described = append(described, blob)
		// Nothing is compressed: a layer's own digest is that of its blob.
		digests = append(digests, blob.Digest)
	}
	config := l.json(mediaConfig, map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Env": []string{"PATH=/bin"}, "Cmd": command},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": digests},
	})
	manifest := l.json(mediaManifest, map[string]any{
		"schemaVersion": 2, "mediaType": mediaManifest, "config": config, "layers": described,
	})
	manifest.Annotations = map[string]string{"io.containerd.image.name": name}
	l.index = append(l.index, manifest)
}

func (l *layout) write(out io.Writer) error {
	archive := tar.NewWriter(out)
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaIndex, "manifests": l.index})
	if err != nil {
		return err
	}
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": index}
	for digest, body := range l.blobs {
		files["blobs/sha256/"+digest] = body
	}
	var names []string
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		body := files[name]
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if _, err := archive.Write(body); err != nil {
			return err
		}
	}
	return archive.Close()
}
