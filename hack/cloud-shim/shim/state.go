package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"

	pb "quarterdeck.dev/hack/cloud-shim/cloudproviderv1"
)

// kept is what is remembered, as it stands in the state file.
type kept struct {
	// Epochs is the latest tenure of each cluster.
	Epochs map[string]uint64 `json:"epochs"`
	// Made are the Services for which load balancers may have been made, by cluster and uid. A provider wants to see them
	// whole, and has no list of what it made.
	Made map[string]map[string]*v1.Service `json:"made"`
}

// state is what the shim remembers: in a file, if it has one, and as long as the process runs, if not. What is read from
// it is never changed.
type state struct {
	mutex sync.Mutex
	// path of the file; empty for none.
	path string
	kept kept
}

// openState reads the file, if there is one. A file that cannot be read is an error: what it holds must not be forgotten.
func openState(path string) (*state, error) {
	s := &state{path: path, kept: kept{Epochs: map[string]uint64{}, Made: map[string]map[string]*v1.Service{}}}
	if path == "" {
		return s, nil
	}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// It has to be possible to write one.
		return s, s.write()
	case err != nil:
		return nil, err
	}
	if err := json.Unmarshal(text, &s.kept); err != nil {
		return nil, fmt.Errorf("%s: %w; it is the plug-in's memory: put it right, or remove it to have all be forgotten", path, err)
	}
	if s.kept.Epochs == nil {
		s.kept.Epochs = map[string]uint64{}
	}
	if s.kept.Made == nil {
		s.kept.Made = map[string]map[string]*v1.Service{}
	}
	return s, nil
}

// write puts what is remembered into the file: all of it, or nothing.
func (s *state) write() error {
	if s.path == "" {
		return nil
	}
	text, err := json.Marshal(s.kept)
	if err != nil {
		return err
	}
	part, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".part*")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	_, err = part.Write(text)
	if err = errors.Join(err, part.Sync(), part.Close()); err != nil {
		return err
	}
	return os.Rename(part.Name(), s.path)
}

// admit refuses calls of a replica that leads no more. A tenure that cannot be remembered is not begun.
func (s *state) admit(meta *pb.CallMeta) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	latest, ours := s.kept.Epochs[meta.GetClusterId()], meta.GetLeaseEpoch()
	if ours < latest {
		message := fmt.Sprintf("tenure %d has been seen, and this call is of %d", latest, ours)
		return failure(pb.ErrorReason_ERROR_REASON_SUPERSEDED, message)
	}
	if ours == latest {
		return nil
	}
	s.kept.Epochs[meta.GetClusterId()] = ours
	if err := s.write(); err != nil {
		s.kept.Epochs[meta.GetClusterId()] = latest
		return failure(pb.ErrorReason_ERROR_REASON_UNAVAILABLE, "the tenure cannot be remembered: "+err.Error())
	}
	return nil
}

// put remembers the Service of a load balancer, before the provider is asked to make it: what is cut off half-way is in
// the list, too.
func (s *state) put(cluster string, service *v1.Service) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	uid, made := string(service.UID), s.kept.Made[cluster]
	before := made[uid]
	if before != nil && same(before, service) {
		return nil
	}
	if made == nil {
		made = map[string]*v1.Service{}
		s.kept.Made[cluster] = made
	}
	made[uid] = service
	if err := s.write(); err != nil {
		if before == nil {
			delete(made, uid)
		} else {
			made[uid] = before
		}
		return failure(pb.ErrorReason_ERROR_REASON_UNAVAILABLE, "the Service cannot be remembered: "+err.Error())
	}
	return nil
}

func same(a, b *v1.Service) bool {
	one, err := json.Marshal(a)
	other, failed := json.Marshal(b)
	return err == nil && failed == nil && string(one) == string(other)
}

func (s *state) get(cluster, uid string) *v1.Service {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.kept.Made[cluster][uid]
}

// forget is called when nothing of a load balancer is left.
func (s *state) forget(cluster, uid string) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	before := s.kept.Made[cluster][uid]
	if before == nil {
		return nil
	}
	delete(s.kept.Made[cluster], uid)
	if err := s.write(); err != nil {
		s.kept.Made[cluster][uid] = before
		return failure(pb.ErrorReason_ERROR_REASON_UNAVAILABLE, "that it is gone cannot be remembered: "+err.Error())
	}
	return nil
}

// after returns the first Services of a cluster whose uids come after this one, and whether there are more.
func (s *state) after(cluster, uid string, most int) ([]*v1.Service, bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	made := s.kept.Made[cluster]
	uids := slices.Sorted(maps.Keys(made))
	start, found := slices.BinarySearch(uids, uid)
	if found {
		start++
	}
	end := min(start+most, len(uids))
	page := make([]*v1.Service, 0, end-start)
	for _, uid := range uids[start:end] {
		page = append(page, made[uid])
	}
	return page, end < len(uids)
}
