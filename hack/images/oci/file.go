package oci

import (
	"os"
	"path/filepath"
)

// pending is a file that has not got its name yet.
type pending struct {
	*os.File
	name string
}

func create(name string) (*pending, error) {
	file, err := os.CreateTemp(filepath.Dir(name), ".part.*")
	if err != nil {
		return nil, err
	}
	return &pending{File: file, name: name}, nil
}

// publish gives it its name.
func (p *pending) publish() error {
	if err := p.Chmod(0o644); err != nil {
		return err
	}
	if err := p.Close(); err != nil {
		return err
	}
	return os.Rename(p.File.Name(), p.name)
}

// discard removes it unless it has its name.
func (p *pending) discard() {
	p.Close()
	os.Remove(p.File.Name())
}
