package shim

import (
	"os"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	pb "quarterdeck.dev/hack/cloud-shim/cloudproviderv1"
)

func reopened(t *testing.T, path string) *state {
	t.Helper()
	s, err := openState(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func meta(epoch uint64) *pb.CallMeta { return &pb.CallMeta{ClusterId: "c", LeaseEpoch: epoch} }

func TestTenuresOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	s := reopened(t, path)
	if err := s.admit(meta(7)); err != nil {
		t.Fatal(err)
	}
	s = reopened(t, path)
	if s.admit(meta(6)) == nil {
		t.Error("a past tenure was admitted after a restart")
	}
	if err := s.admit(meta(7)); err != nil {
		t.Error(err)
	}
	if err := s.admit(&pb.CallMeta{ClusterId: "other", LeaseEpoch: 1}); err != nil {
		t.Errorf("another cluster has tenures of its own: %v", err)
	}
}

func TestATenureThatCannotBeRememberedIsNotBegun(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "gone")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	s := reopened(t, filepath.Join(folder, "state.json"))
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if s.admit(meta(1)) == nil {
			t.Error("it was begun")
		}
	}
}

func TestAFileThatCannotBeReadIsNotForgotten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openState(path); err == nil {
		t.Error("it was taken for an empty one")
	}
}

func TestServicesAreListedInPages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	s := reopened(t, path)
	for _, uid := range []types.UID{"c", "a", "b"} {
		service := &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", UID: uid}}
		if err := s.put("one", service); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.forget("one", "b"); err != nil {
		t.Fatal(err)
	}
	s = reopened(t, path)
	page, more := s.after("one", "", 1)
	if len(page) != 1 || page[0].UID != "a" || !more {
		t.Errorf("first page: %v, more: %v", page, more)
	}
	page, more = s.after("one", "a", 1)
	if len(page) != 1 || page[0].UID != "c" || more {
		t.Errorf("second page: %v, more: %v", page, more)
	}
	if page, more = s.after("other", "", 10); len(page) != 0 || more {
		t.Errorf("another cluster's: %v", page)
	}
	if s.get("one", "b") != nil || s.get("other", "a") != nil {
		t.Error("what is gone, or another cluster's, is known")
	}
}
