// Package shim serves a cloud provider that is written against k8s.io/cloud-provider as a plug-in of quarterdeck, over
// the protocol quarterdeck.cloudprovider.v1.
//
// What such a provider cannot tell, the plug-in cannot either: it has no replacing of routes (Routes.Replace, which the
// caller then does in two steps), no fingerprints of load balancers, and no list of them: with a state file it lists those
// that were made through it.
package shim

import (
	"context"
	"fmt"
	"net"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	v1 "k8s.io/api/core/v1"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/klog/v2"

	pb "quarterdeck.dev/hack/cloud-shim/cloudproviderv1"
)

// messageLimit is the size of a message at most, in bytes: the protocol's.
const messageLimit = 4 << 20

// Options say what the provider itself does not.
type Options struct {
	// ClusterName is what the provider is told as the cluster's name, and may have written into the cloud. A provider that
	// takes over from a cloud-controller-manager needs the value of that one's --cluster-name. Empty: the cluster's id, which no
	// other cluster has.
	ClusterName string
	// Schemes of the providerIDs that are the provider's own, without "://". Empty: its name.
	Schemes []string
	// MaxBatch is how many nodes one call may ask for; 0 for 100.
	MaxBatch int
	// Account tells the id of the account or project that the credentials are of. It should ask the cloud. Nil: the
	// provider's name, which is no protection against credentials of another account.
	Account func(ctx context.Context) (string, error)
	// Service reads a Service, for providers that decide by annotations what there is to be found or deleted: the
	// protocol tells the owner alone then. Nil: the plug-in knows only those it was called for since it started.
	Service func(ctx context.Context, namespace, name string) (*v1.Service, error)
	// State is a file in which the plug-in remembers the latest tenure of each cluster, and the Services it was called for.
	// Nobody else may write it. Empty: both are forgotten when the process ends, and load balancers cannot be listed.
	State string
	// Server are further options of the server, such as TLS credentials.
	Server []grpc.ServerOption
}

// Server is the provider, as the protocol sees it.
type Server struct {
	cloud   cloudprovider.Interface
	options Options
	state   *state
}

// New makes a server of an initialised provider. It fails if the state file can neither be read nor made.
func New(cloud cloudprovider.Interface, options Options) (*Server, error) {
	if len(options.Schemes) == 0 {
		options.Schemes = []string{cloud.ProviderName()}
	}
	if options.MaxBatch == 0 {
		options.MaxBatch = 100
	}
	state, err := openState(options.State)
	if err != nil {
		return nil, fmt.Errorf("reading the state: %w", err)
	}
	return &Server{cloud: cloud, options: options, state: state}, nil
}

// Serve serves until the context ends; calls that run then are finished first.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	options := append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(messageLimit),
		grpc.MaxSendMsgSize(messageLimit),
		grpc.ChainUnaryInterceptor(s.intercept),
	}, s.options.Server...)
	server := grpc.NewServer(options...)
	healthy := health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, healthy)
	offer := func(description *grpc.ServiceDesc, service any) {
		server.RegisterService(description, service)
		healthy.SetServingStatus(description.ServiceName, grpc_health_v1.HealthCheckResponse_SERVING)
	}
	offer(&pb.Identity_ServiceDesc, &identity{Server: s})
	if cloud, ok := s.cloud.InstancesV2(); ok {
		offer(&pb.Instances_ServiceDesc, &instances{Server: s, cloud: cloud})
	}
	if cloud, ok := s.cloud.LoadBalancer(); ok {
		offer(&pb.LoadBalancers_ServiceDesc, &loadBalancers{Server: s, cloud: cloud})
	}
	if cloud, ok := s.cloud.Routes(); ok {
		offer(&pb.Routes_ServiceDesc, &routes{Server: s, cloud: cloud})
	}
	stop := context.AfterFunc(ctx, server.GracefulStop)
	defer stop()
	return server.Serve(listener)
}

// metaOf is what every request has.
type metaOf interface{ GetMeta() *pb.CallMeta }

// changing are the methods that change something.
var changing = map[string]bool{
	pb.LoadBalancers_Ensure_FullMethodName:         true,
	pb.LoadBalancers_UpdateBackends_FullMethodName: true,
	pb.LoadBalancers_EnsureDeleted_FullMethodName:  true,
	pb.Routes_Create_FullMethodName:                true,
	pb.Routes_Replace_FullMethodName:               true,
	pb.Routes_Delete_FullMethodName:                true,
}

// intercept does what is the same for every call: it checks who calls, gives errors their form, and survives panics.
func (s *Server) intercept(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler,
) (answer any, err error) {
	if call, ok := request.(metaOf); ok {
		if call.GetMeta().GetClusterId() == "" {
			return nil, failure(pb.ErrorReason_ERROR_REASON_INVALID, "meta.cluster_id: is empty")
		}
		if changing[info.FullMethod] {
			if err := s.state.admit(call.GetMeta()); err != nil {
				return nil, err
			}
		}
	}
	defer func() {
		if broken := recover(); broken != nil {
			klog.Errorf("%s: the provider panicked: %v\n%s", info.FullMethod, broken, debug.Stack())
			answer, err = nil, failure(pb.ErrorReason_ERROR_REASON_OTHER, fmt.Sprintf("the provider panicked: %v", broken))
		}
	}()
	answer, err = handle(ctx, request)
	return answer, errorOf(ctx, err, changing[info.FullMethod])
}

// clusterName is the cluster's name, as the provider is told it.
func (s *Server) clusterName(meta *pb.CallMeta) string {
	if s.options.ClusterName != "" {
		return s.options.ClusterName
	}
	return meta.GetClusterId()
}

type identity struct {
	pb.UnimplementedIdentityServer
	*Server
}

// GetInfo implements pb.IdentityServer.
func (i *identity) GetInfo(context.Context, *pb.GetInfoRequest) (*pb.GetInfoResponse, error) {
	_, hasInstances := i.cloud.InstancesV2()
	_, hasLoadBalancers := i.cloud.LoadBalancer()
	_, hasRoutes := i.cloud.Routes()
	return &pb.GetInfoResponse{
		Name:          i.cloud.ProviderName(),
		Schemes:       i.options.Schemes,
		MaxBatch:      uint32(i.options.MaxBatch),
		Instances:     hasInstances,
		LoadBalancers: hasLoadBalancers,
		Routes:        hasRoutes,
	}, nil
}

// Probe implements pb.IdentityServer. Providers have nothing to be asked without a node or a Service; the account is
// asked for if the options say how.
func (i *identity) Probe(ctx context.Context, _ *pb.ProbeRequest) (*pb.ProbeResponse, error) {
	if _, err := i.account(ctx); err != nil {
		return nil, err
	}
	return &pb.ProbeResponse{}, nil
}

// account is the account's id.
func (s *Server) account(ctx context.Context) (string, error) {
	if s.options.Account == nil {
		return s.cloud.ProviderName(), nil
	}
	return s.options.Account(ctx)
}
