// Command fake serves the provider that Kubernetes tests its own controllers with (k8s.io/cloud-provider/fake) as a
// plug-in, for tests. It reads how the provider is to behave from a file before each call.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
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

func main() {
	socket := flag.String("socket", "", "unix socket to serve on")
	file := flag.String("behaviour", "", "file that says how the provider is to behave, as JSON")
	flag.Parse()
	if err := run(*socket, *file); err != nil {
		klog.ErrorS(err, "cannot serve")
		os.Exit(1)
	}
}

func run(socket, file string) error {
	cloud := &fake.Cloud{
		EnableInstancesV2: true,
		ExternalIP:        net.ParseIP("192.0.2.10"),
		Zone:              cloudprovider.Zone{FailureDomain: "zone-1", Region: "region-1"},
		AdditionalLabels:  map[string]string{"example.com/rack": "7"},
		RouteMap:          map[string]*fake.Route{},
	}
	// The fake is not made for calls at once.
	var one sync.Mutex
	behave := func(
		ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler,
	) (any, error) {
		one.Lock()
		defer one.Unlock()
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var told behaviour
		if err := json.Unmarshal(text, &told); err != nil {
			return nil, err
		}
		told.apply(cloud)
		return handle(ctx, request)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cloud.Initialize(nil, ctx.Done())
	options := shim.Options{ClusterName: "kubernetes", Server: []grpc.ServerOption{grpc.ChainUnaryInterceptor(behave)}}
	return shim.New(provider{cloud}, options).Serve(ctx, listener)
}
