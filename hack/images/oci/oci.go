// Package oci writes container images: an OCI layout in one tar file, with the index that `docker load` wants beside it.
// The same input yields the same bytes.
package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"
)

// Media types of the image specification 1.1 (opencontainers/image-spec:media-types.md).
const (
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
)

// Entry is a file of a layer: a folder if its name ends with a slash, a link if it has a target.
type Entry struct {
	Name   string
	Mode   int64
	Body   []byte
	Target string
	// Owner is its user and its group.
	Owner int
}

// Config is what a container is started with.
type Config struct {
	User       string            `json:"User,omitempty"`
	Env        []string          `json:"Env,omitempty"`
	Entrypoint []string          `json:"Entrypoint,omitempty"`
	Cmd        []string          `json:"Cmd,omitempty"`
	WorkingDir string            `json:"WorkingDir,omitempty"`
	Labels     map[string]string `json:"Labels,omitempty"`
}

// Image is one image.
type Image struct {
	// Name is its whole reference, with registry and tag.
	Name         string
	Architecture string
	// Created is its age, and that of its files.
	Created time.Time
	Config  Config
	// Layers come from Layer.
	Layers []Layer
}

// Layer is a layer as it is stored, and the digest of its tar.
type Layer struct {
	body   []byte
	media  string
	diffID string
}

// descriptor names a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// legacy is an image in the index of `docker load`.
type legacy struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Archive collects images.
type Archive struct {
	blobs  map[string][]byte
	index  []descriptor
	legacy []legacy
}

// NewLayer makes a layer of files, in their order; compressed if asked to.
func NewLayer(entries []Entry, modified time.Time, compressed bool) (Layer, error) {
	var plain bytes.Buffer
	archive := tar.NewWriter(&plain)
	for _, entry := range entries {
		header := &tar.Header{
			Name: entry.Name, Mode: entry.Mode, Size: int64(len(entry.Body)), Typeflag: tar.TypeReg,
			ModTime: modified, Uid: entry.Owner, Gid: entry.Owner, Format: tar.FormatPAX,
		}
		switch {
		case entry.Target != "":
			header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, entry.Target, 0o777
		case strings.HasSuffix(entry.Name, "/"):
			header.Typeflag = tar.TypeDir
		}
		if err := archive.WriteHeader(header); err != nil {
			return Layer{}, fmt.Errorf("%s: %w", entry.Name, err)
		}
		if _, err := archive.Write(entry.Body); err != nil {
			return Layer{}, fmt.Errorf("%s: %w", entry.Name, err)
		}
	}
	if err := archive.Close(); err != nil {
		return Layer{}, err
	}
	layer := Layer{body: plain.Bytes(), media: mediaLayer, diffID: digest(plain.Bytes())}
	if !compressed {
		return layer, nil
	}
	var small bytes.Buffer
	// Neither a name nor a time is in its header.
	writer, err := gzip.NewWriterLevel(&small, gzip.BestCompression)
	if err != nil {
		return Layer{}, err
	}
	if _, err := writer.Write(layer.body); err != nil {
		return Layer{}, err
	}
	if err := writer.Close(); err != nil {
		return Layer{}, err
	}
	layer.body, layer.media = small.Bytes(), mediaLayer+"+gzip"
	return layer, nil
}

func digest(body []byte) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256(body))
}

func path(digest string) string {
	return "blobs/" + strings.Replace(digest, ":", "/", 1)
}

// blob keeps a blob and describes it.
func (a *Archive) blob(mediaType string, body []byte) descriptor {
	if a.blobs == nil {
		a.blobs = map[string][]byte{}
	}
	name := digest(body)
	a.blobs[name] = body
	return descriptor{MediaType: mediaType, Digest: name, Size: len(body)}
}

func (a *Archive) json(mediaType string, value any) (descriptor, error) {
	body, err := json.Marshal(value)
	if err != nil {
		return descriptor{}, err
	}
	return a.blob(mediaType, body), nil
}

// Add adds an image, and tells the digest of its manifest.
func (a *Archive) Add(image Image) (string, error) {
	var layers []descriptor
	var diffIDs, paths []string
	for _, layer := range image.Layers {
		described := a.blob(layer.media, layer.body)
		layers = append(layers, described)
		diffIDs = append(diffIDs, layer.diffID)
		paths = append(paths, path(described.Digest))
	}
	contents := map[string]any{
		"architecture": image.Architecture,
		"os":           "linux",
		"config":       image.Config,
		"rootfs":       map[string]any{"type": "layers", "diff_ids": diffIDs},
	}
	if !image.Created.IsZero() {
		contents["created"] = image.Created.UTC().Format(time.RFC3339)
	}
	config, err := a.json(mediaConfig, contents)
	if err != nil {
		return "", err
	}
	manifest, err := a.json(mediaManifest, map[string]any{
		"schemaVersion": 2, "mediaType": mediaManifest, "config": config, "layers": layers,
	})
	if err != nil {
		return "", err
	}
	tag := image.Name[strings.LastIndex(image.Name, ":")+1:]
	manifest.Annotations = map[string]string{
		// containerd's own key holds the whole reference, the specification's the tag alone.
		"io.containerd.image.name":          image.Name,
		"org.opencontainers.image.ref.name": tag,
	}
	a.index = append(a.index, manifest)
	a.legacy = append(a.legacy, legacy{Config: path(config.Digest), RepoTags: []string{image.Name}, Layers: paths})
	return manifest.Digest, nil
}

// Write writes the archive.
func (a *Archive) Write(out io.Writer) error {
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaIndex, "manifests": a.index})
	if err != nil {
		return err
	}
	images, err := json.Marshal(a.legacy)
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"oci-layout":    []byte(`{"imageLayoutVersion":"1.0.0"}`),
		"index.json":    index,
		"manifest.json": images,
	}
	for name, body := range a.blobs {
		files[path(name)] = body
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	archive := tar.NewWriter(out)
	for _, name := range names {
		body := files[name]
		header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(body)), Typeflag: tar.TypeReg}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(body); err != nil {
			return err
		}
	}
	return archive.Close()
}

// Publish writes the archive to a file, which appears when it is whole.
func (a *Archive) Publish(name string) error {
	file, err := create(name)
	if err != nil {
		return err
	}
	defer file.discard()
	if err := a.Write(file); err != nil {
		return err
	}
	return file.publish()
}
