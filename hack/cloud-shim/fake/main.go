// Command fake serves the provider that Kubernetes tests its own controllers with (k8s.io/cloud-provider/fake) as a
// plug-in, for tests. It reads how the provider is to behave from a file before each call.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/api"
	"k8s.io/cloud-provider/fake"
	"k8s.io/klog/v2"

	"quarterdeck.dev/hack/cloud-shim/shim"
)

// behaviour is what the file says: the fields of the fake that tests set.
type behaviour struct {
	// Exists is whether GetLoadBalancer finds one.
	Exists bool `json:"exists"`
	// Err is what most calls end in: a word of errorNamed.
	Err string `json:"err"`
	// InstanceExists is whether instances exist.
	InstanceExists bool `json:"instanceExists"`
	// InstanceErr is what questions whether they do end in.
	InstanceErr string `json:"instanceErr"`
	// Shutdown is whether they are shut down.
	Shutdown bool `json:"shutdown"`
	// ProviderIDs by name of node.
	ProviderIDs map[types.NodeName]string `json:"providerIDs"`
	// Addresses of all of them.
	Addresses []v1.NodeAddress `json:"addresses"`
	// Panics is whether questions for metadata panic.
	Panics bool `json:"panics"`
	// DelayMillis is how long each call takes.
	DelayMillis int `json:"delayMillis"`
	// IsCloud has it remember what it is told, as a cloud does; by itself the fake answers what Exists and
	// InstanceExists say, whatever it was told.
	IsCloud bool `json:"isCloud"`
	// Stopped are the names of nodes that are shut down, if it is a cloud.
	Stopped []types.NodeName `json:"stopped"`
}

// errorNamed is the error of a word; empty for none.
func errorNamed(word string) error {
	switch word {
	case "":
		return nil
	case "instance-not-found":
		return fmt.Errorf("asking: %w", cloudprovider.InstanceNotFound)
	case "implemented-elsewhere":
		return fmt.Errorf("wrapped: %w", cloudprovider.ImplementedElsewhere)
	case "not-implemented":
		return fmt.Errorf("wrapped: %w", cloudprovider.NotImplemented)
	case "retry":
		return fmt.Errorf("wrapped: %w", api.NewRetryError("not ready yet", 7*time.Second))
	default:
		return errors.New(word)
	}
}

// provider is the fake, but for its memory of errors: one that came of a route would come of everything after it.
type provider struct{ *fake.Cloud }

// Routes implements cloudprovider.Interface.
func (p provider) Routes() (cloudprovider.Routes, bool) { return p, true }

// CreateRoute implements cloudprovider.Routes.
func (p provider) CreateRoute(ctx context.Context, cluster, hint string, route *cloudprovider.Route) error {
	before := p.Err
	defer func() { p.Err = before }()
	return p.Cloud.CreateRoute(ctx, cluster, hint, route)
}

// DeleteRoute implements cloudprovider.Routes.
func (p provider) DeleteRoute(ctx context.Context, cluster string, route *cloudprovider.Route) error {
	before := p.Err
	defer func() { p.Err = before }()
	return p.Cloud.DeleteRoute(ctx, cluster, route)
}

// elsewhere is the annotation of Services whose load balancers a cloud says are made by somebody else.
const elsewhere = "fake.example.com/elsewhere"

// remembering is the fake as a cloud: it has the load balancers that it was told to make, each with an address of its
// own, and the nodes of its list and no others.
type remembering struct {
	provider
	told *behaviour
	// balancers have the addresses of load balancers, by name.
	balancers map[string]string
	made      int
}

// LoadBalancer implements cloudprovider.Interface.
func (r *remembering) LoadBalancer() (cloudprovider.LoadBalancer, bool) { return r, true }

// InstancesV2 implements cloudprovider.Interface.
func (r *remembering) InstancesV2() (cloudprovider.InstancesV2, bool) { return r, true }

// InstanceExists implements cloudprovider.InstancesV2.
func (r *remembering) InstanceExists(ctx context.Context, node *v1.Node) (bool, error) {
	if !r.told.IsCloud {
		return r.provider.InstanceExists(ctx, node)
	}
	return r.nameOf(node) != "", nil
}

// InstanceShutdown implements cloudprovider.InstancesV2.
func (r *remembering) InstanceShutdown(ctx context.Context, node *v1.Node) (bool, error) {
	if !r.told.IsCloud {
		return r.provider.InstanceShutdown(ctx, node)
	}
	return slices.Contains(r.told.Stopped, r.nameOf(node)), nil
}

// nameOf finds a node by its providerID, or by its name if it has none yet.
func (r *remembering) nameOf(node *v1.Node) types.NodeName {
	for name, id := range r.told.ProviderIDs {
		if id == node.Spec.ProviderID || node.Spec.ProviderID == "" && string(name) == node.Name {
			return name
		}
	}
	return ""
}

// GetLoadBalancerName implements cloudprovider.LoadBalancer. Two clusters share nothing.
func (r *remembering) GetLoadBalancerName(ctx context.Context, cluster string, service *v1.Service) string {
	name := r.provider.GetLoadBalancerName(ctx, cluster, service)
	if r.told.IsCloud {
		name += "-" + cluster
	}
	return name
}

func (r *remembering) status(name string) *v1.LoadBalancerStatus {
	return &v1.LoadBalancerStatus{Ingress: []v1.LoadBalancerIngress{{IP: r.balancers[name]}}}
}

// GetLoadBalancer implements cloudprovider.LoadBalancer.
func (r *remembering) GetLoadBalancer(
	ctx context.Context, cluster string, service *v1.Service,
) (*v1.LoadBalancerStatus, bool, error) {
	if !r.told.IsCloud {
		return r.provider.GetLoadBalancer(ctx, cluster, service)
	}
	name := r.GetLoadBalancerName(ctx, cluster, service)
	return r.status(name), r.balancers[name] != "", r.Err
}

// EnsureLoadBalancer implements cloudprovider.LoadBalancer.
func (r *remembering) EnsureLoadBalancer(
	ctx context.Context, cluster string, service *v1.Service, nodes []*v1.Node,
) (*v1.LoadBalancerStatus, error) {
	if !r.told.IsCloud {
		return r.provider.EnsureLoadBalancer(ctx, cluster, service, nodes)
	}
	if service.Annotations[elsewhere] != "" {
		return nil, errorNamed("implemented-elsewhere")
	}
	if _, err := r.provider.EnsureLoadBalancer(ctx, cluster, service, nodes); err != nil {
		return nil, err
	}
	name := r.GetLoadBalancerName(ctx, cluster, service)
	if r.balancers[name] == "" {
		r.made++
		r.balancers[name] = fmt.Sprintf("198.51.%d.%d", 100+r.made/250, 1+r.made%250)
	}
	return r.status(name), nil
}

// UpdateLoadBalancer implements cloudprovider.LoadBalancer.
func (r *remembering) UpdateLoadBalancer(
	ctx context.Context, cluster string, service *v1.Service, nodes []*v1.Node,
) error {
	if r.told.IsCloud && r.balancers[r.GetLoadBalancerName(ctx, cluster, service)] == "" {
		return errors.New("there is no such load balancer")
	}
	return r.provider.UpdateLoadBalancer(ctx, cluster, service, nodes)
}

// EnsureLoadBalancerDeleted implements cloudprovider.LoadBalancer.
func (r *remembering) EnsureLoadBalancerDeleted(ctx context.Context, cluster string, service *v1.Service) error {
	if r.told.IsCloud {
		delete(r.balancers, r.GetLoadBalancerName(ctx, cluster, service))
	}
	return r.provider.EnsureLoadBalancerDeleted(ctx, cluster, service)
}

func (b *behaviour) apply(cloud *fake.Cloud) {
	cloud.Exists, cloud.Err = b.Exists, errorNamed(b.Err)
	cloud.ExistsByProviderID, cloud.ErrByProviderID = b.InstanceExists, errorNamed(b.InstanceErr)
	cloud.NodeShutdown = b.Shutdown
	cloud.ProviderID = b.ProviderIDs
	cloud.SetNodeAddresses(b.Addresses)
	cloud.RequestDelay = time.Duration(b.DelayMillis) * time.Millisecond
	cloud.OverrideInstanceMetadata = nil
	if b.Panics {
		cloud.OverrideInstanceMetadata = func(context.Context, *v1.Node) (*cloudprovider.InstanceMetadata, error) {
			panic("as it was told to")
		}
	}
}

// flags are those of the program.
type flags struct {
	socket, listen, cert, key, ca, behaviour, state, clusterName string
}

func main() {
	var told flags
	flag.StringVar(&told.socket, "socket", "", "unix socket to serve on")
	flag.StringVar(&told.listen, "listen", "", "HOST:PORT to serve on with mutual TLS, instead of a socket")
	flag.StringVar(&told.cert, "cert", "", "file with the certificate that callers are shown")
	flag.StringVar(&told.key, "key", "", "file with its key")
	flag.StringVar(&told.ca, "ca", "", "file with the certificates of the authority that callers prove themselves by")
	flag.StringVar(&told.behaviour, "behaviour", "", "file that says how the provider is to behave, as JSON")
	flag.StringVar(&told.state, "state", "", "file in which the plug-in remembers tenures and Services")
	flag.StringVar(&told.clusterName, "cluster-name", "kubernetes", "the cluster's name; empty for its id")
	flag.Parse()
	if err := run(told); err != nil {
		klog.ErrorS(err, "cannot serve")
		os.Exit(1)
	}
}

// listener makes the listener, and the options that go with it.
func (f flags) listener() (net.Listener, []grpc.ServerOption, error) {
	if f.listen == "" {
		listener, err := net.Listen("unix", f.socket)
		return listener, nil, err
	}
	certificate, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, nil, err
	}
	authority, err := os.ReadFile(f.ca)
	if err != nil {
		return nil, nil, err
	}
	callers := x509.NewCertPool()
	if !callers.AppendCertsFromPEM(authority) {
		return nil, nil, fmt.Errorf("%s: no certificate", f.ca)
	}
	mutual := credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    callers,
		MinVersion:   tls.VersionTLS13,
	})
	listener, err := net.Listen("tcp", f.listen)
	return listener, []grpc.ServerOption{grpc.Creds(mutual)}, err
}

func run(flags flags) error {
	cloud := &fake.Cloud{
		EnableInstancesV2: true,
		ExternalIP:        net.ParseIP("192.0.2.10"),
		Zone:              cloudprovider.Zone{FailureDomain: "zone-1", Region: "region-1"},
		AdditionalLabels:  map[string]string{"example.com/rack": "7"},
		// One of somebody else's, in the same cloud.
		RouteMap: map[string]*fake.Route{"foreign": {
			ClusterName: "somebody-else",
			Route:       cloudprovider.Route{Name: "foreign", TargetNode: "theirs", DestinationCIDR: "10.78.0.0/24"},
		}},
	}
	var told behaviour
	// The fake is not made for calls at once.
	var one sync.Mutex
	behave := func(
		ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler,
	) (any, error) {
		one.Lock()
		defer one.Unlock()
		text, err := os.ReadFile(flags.behaviour)
		if err != nil {
			return nil, err
		}
		var now behaviour
		if err := json.Unmarshal(text, &now); err != nil {
			return nil, err
		}
		told = now
		told.apply(cloud)
		return handle(ctx, request)
	}
	listener, server, err := flags.listener()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cloud.Initialize(nil, ctx.Done())
	plugin, err := shim.New(
		&remembering{provider: provider{cloud}, told: &told, balancers: map[string]string{}},
		shim.Options{
			ClusterName: flags.clusterName,
			State:       flags.state,
			Server:      append(server, grpc.ChainUnaryInterceptor(behave)),
		},
	)
	if err != nil {
		return err
	}
	return plugin.Serve(ctx, listener)
}
