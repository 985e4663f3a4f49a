package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/fake"
	"k8s.io/klog/v2"
)

// look is how often a call that hangs looks whether it still does.
const look = 50 * time.Millisecond

// behaviour is what the file says.
type behaviour struct {
	// DelayMillis is how long calls of a method take.
	DelayMillis map[string]int64 `json:"delayMillis"`
	// Hangs are the calls that are not answered while they stand here: a method, METHOD SUBJECT, or * for all.
	Hangs []string `json:"hangs"`
}

// provider is the fake; each of its calls is written down, and takes as long as it is told to.
type provider struct {
	*fake.Cloud
	file string
	// one keeps calls of the fake apart: it is not made for calls at once. It is not held while a call takes its time.
	one   sync.Mutex
	calls *os.File
}

func newProvider(file, calls string) (*provider, error) {
	log, err := os.OpenFile(calls, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	cloud := &fake.Cloud{
		EnableInstancesV2:  true,
		ExistsByProviderID: true,
		Exists:             true,
		ExternalIP:         net.ParseIP("192.0.2.10"),
		Zone:               cloudprovider.Zone{FailureDomain: "zone-1", Region: "region-1"},
		Addresses:          []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: "10.0.0.1"}},
		RouteMap:           map[string]*fake.Route{},
	}
	return &provider{Cloud: cloud, file: file, calls: log}, nil
}

func (p *provider) told() behaviour {
	var told behaviour
	text, err := os.ReadFile(p.file)
	if err == nil {
		err = json.Unmarshal(text, &told)
	}
	if err != nil {
		klog.ErrorS(err, "The provider's behaviour cannot be read: it answers at once", "file", p.file)
	}
	return told
}

// begin writes a call down and lets it take its time.
func (p *provider) begin(method, subject string) {
	// One write of a short line to a file that is appended to is never torn.
	if _, err := fmt.Fprintf(p.calls, "%s %s\n", method, subject); err != nil {
		klog.ErrorS(err, "A call is not written down", "method", method)
	}
	told := p.told()
	for told.hangs(method, subject) {
		time.Sleep(look)
		told = p.told()
	}
	time.Sleep(time.Duration(told.DelayMillis[method]) * time.Millisecond)
}

func (b *behaviour) hangs(method, subject string) bool {
	return slices.ContainsFunc(b.Hangs, func(entry string) bool {
		one, about, named := strings.Cut(entry, " ")
		return one == "*" || one == method && (!named || about == subject)
	})
}

func call[T any](p *provider, method, subject string, do func() (T, error)) (T, error) {
	p.begin(method, subject)
	p.one.Lock()
	defer p.one.Unlock()
	return do()
}

// LoadBalancer implements cloudprovider.Interface.
func (p *provider) LoadBalancer() (cloudprovider.LoadBalancer, bool) { return p, true }

// InstancesV2 implements cloudprovider.Interface.
func (p *provider) InstancesV2() (cloudprovider.InstancesV2, bool) { return p, true }

// Instances implements cloudprovider.Interface: there is the newer interface.
func (p *provider) Instances() (cloudprovider.Instances, bool) { return nil, false }

// Routes implements cloudprovider.Interface: nothing is measured of routes.
func (p *provider) Routes() (cloudprovider.Routes, bool) { return nil, false }

// InstanceExists implements cloudprovider.InstancesV2.
func (p *provider) InstanceExists(ctx context.Context, node *v1.Node) (bool, error) {
	return call(p, "exists", node.Name, func() (bool, error) { return p.Cloud.InstanceExists(ctx, node) })
}

// InstanceShutdown implements cloudprovider.InstancesV2.
func (p *provider) InstanceShutdown(ctx context.Context, node *v1.Node) (bool, error) {
	return call(p, "shutdown", node.Name, func() (bool, error) { return p.Cloud.InstanceShutdown(ctx, node) })
}

// InstanceMetadata implements cloudprovider.InstancesV2.
func (p *provider) InstanceMetadata(ctx context.Context, node *v1.Node) (*cloudprovider.InstanceMetadata, error) {
	return call(p, "metadata", node.Name, func() (*cloudprovider.InstanceMetadata, error) {
		metadata, err := p.Cloud.InstanceMetadata(ctx, node)
		if err == nil {
			metadata.ProviderID = "fake://" + node.Name
		}
		return metadata, err
	})
}

// GetLoadBalancer implements cloudprovider.LoadBalancer.
func (p *provider) GetLoadBalancer(ctx context.Context, cluster string, service *v1.Service) (*v1.LoadBalancerStatus, bool, error) {
	p.begin("get", service.Name)
	p.one.Lock()
	defer p.one.Unlock()
	return p.Cloud.GetLoadBalancer(ctx, cluster, service)
}

// EnsureLoadBalancer implements cloudprovider.LoadBalancer.
func (p *provider) EnsureLoadBalancer(ctx context.Context, cluster string, service *v1.Service, nodes []*v1.Node) (*v1.LoadBalancerStatus, error) {
	return call(p, "ensure", service.Name, func() (*v1.LoadBalancerStatus, error) {
		return p.Cloud.EnsureLoadBalancer(ctx, cluster, service, nodes)
	})
}

// UpdateLoadBalancer implements cloudprovider.LoadBalancer.
func (p *provider) UpdateLoadBalancer(ctx context.Context, cluster string, service *v1.Service, nodes []*v1.Node) error {
	p.begin("update", service.Name)
	p.one.Lock()
	defer p.one.Unlock()
	return p.Cloud.UpdateLoadBalancer(ctx, cluster, service, nodes)
}

// EnsureLoadBalancerDeleted implements cloudprovider.LoadBalancer.
func (p *provider) EnsureLoadBalancerDeleted(ctx context.Context, cluster string, service *v1.Service) error {
	p.begin("delete", service.Name)
	p.one.Lock()
	defer p.one.Unlock()
	return p.Cloud.EnsureLoadBalancerDeleted(ctx, cluster, service)
}
