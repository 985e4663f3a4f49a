package shim

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/durationpb"
	v1 "k8s.io/api/core/v1"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/api"

	pb "quarterdeck.dev/hack/cloud-shim/cloudproviderv1"
)

type loadBalancers struct {
	pb.UnimplementedLoadBalancersServer
	*Server
	cloud cloudprovider.LoadBalancer
}

// Get implements pb.LoadBalancersServer. A provider finds a load balancer by a name that it makes of the Service's uid:
// there is never more than one.
func (l *loadBalancers) Get(
	ctx context.Context, request *pb.GetLoadBalancersRequest,
) (*pb.GetLoadBalancersResponse, error) {
	service, err := l.serviceOf(ctx, request.GetMeta(), request.GetOwner())
	if err != nil {
		return nil, err
	}
	name := l.clusterName(request.GetMeta())
	_, exists, err := l.cloud.GetLoadBalancer(ctx, name, service)
	if err != nil || !exists {
		return &pb.GetLoadBalancersResponse{}, err
	}
	owned := &pb.OwnedLoadBalancer{
		Owner:  request.GetOwner(),
		Handle: l.cloud.GetLoadBalancerName(ctx, name, service),
	}
	return &pb.GetLoadBalancersResponse{LoadBalancers: []*pb.OwnedLoadBalancer{owned}}, nil
}

// Ensure implements pb.LoadBalancersServer.
func (l *loadBalancers) Ensure(
	ctx context.Context, request *pb.EnsureLoadBalancerRequest,
) (*pb.EnsureLoadBalancerResponse, error) {
	service, err := l.remember(request.GetMeta(), request.GetSpec())
	if err != nil {
		return nil, err
	}
	name := l.clusterName(request.GetMeta())
	status, err := l.cloud.EnsureLoadBalancer(ctx, name, service, nodesOf(request.GetSpec()))
	if err != nil {
		return nil, err
	}
	outcome, err := l.ready(ctx, name, service, status)
	return &pb.EnsureLoadBalancerResponse{Outcome: outcome}, err
}

// UpdateBackends implements pb.LoadBalancersServer.
func (l *loadBalancers) UpdateBackends(
	ctx context.Context, request *pb.UpdateBackendsRequest,
) (*pb.UpdateBackendsResponse, error) {
	service, err := l.remember(request.GetMeta(), request.GetSpec())
	if err != nil {
		return nil, err
	}
	name := l.clusterName(request.GetMeta())
	own := l.cloud.GetLoadBalancerName(ctx, name, service)
	if known := request.GetKnownHandle(); known != "" && known != own {
		message := fmt.Sprintf("the owner's load balancer is %s, not %s", own, known)
		return nil, failure(pb.ErrorReason_ERROR_REASON_NOT_FOUND, message)
	}
	if err := l.cloud.UpdateLoadBalancer(ctx, name, service, nodesOf(request.GetSpec())); err != nil {
		return nil, err
	}
	status, exists, err := l.cloud.GetLoadBalancer(ctx, name, service)
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, failure(pb.ErrorReason_ERROR_REASON_NOT_FOUND, "the provider knows no such load balancer")
	}
	outcome, err := l.ready(ctx, name, service, status)
	return &pb.UpdateBackendsResponse{Outcome: outcome}, err
}

// EnsureDeleted implements pb.LoadBalancersServer.
func (l *loadBalancers) EnsureDeleted(
	ctx context.Context, request *pb.EnsureLoadBalancerDeletedRequest,
) (*pb.EnsureLoadBalancerDeletedResponse, error) {
	service, err := l.serviceOf(ctx, request.GetMeta(), request.GetOwner())
	if err != nil {
		return nil, err
	}
	err = l.cloud.EnsureLoadBalancerDeleted(ctx, l.clusterName(request.GetMeta()), service)
	var retry *api.RetryError
	switch {
	case errors.As(err, &retry):
		going := &pb.InProgress{PollAfter: durationpb.New(retry.RetryAfter())}
		outcome := &pb.EnsureLoadBalancerDeletedResponse_InProgress{InProgress: going}
		return &pb.EnsureLoadBalancerDeletedResponse{Outcome: outcome}, nil
	case err != nil:
		return nil, err
	}
	if err := l.state.forget(request.GetMeta().GetClusterId(), request.GetOwner().GetUid()); err != nil {
		return nil, err
	}
	outcome := &pb.EnsureLoadBalancerDeletedResponse_Gone{Gone: &pb.Gone{}}
	return &pb.EnsureLoadBalancerDeletedResponse{Outcome: outcome}, nil
}

// listPage is how many load balancers an answer has at most: the provider is asked for each.
const listPage = 20

// ListOwned implements pb.LoadBalancersServer. A provider has no such list; this one is of what was made through this
// plug-in and not removed through it, as far as the provider says that it exists. It needs a state file: a list that a
// restart empties would be worse than none.
func (l *loadBalancers) ListOwned(ctx context.Context, request *pb.ListOwnedRequest) (*pb.ListOwnedResponse, error) {
	if l.options.State == "" {
		return nil, failure(pb.ErrorReason_ERROR_REASON_NOT_IMPLEMENTED, "a list of load balancers (it needs a state file)")
	}
	meta := request.GetMeta()
	page, more := l.state.after(meta.GetClusterId(), request.GetPageToken(), listPage)
	answer, name := &pb.ListOwnedResponse{}, l.clusterName(meta)
	for _, made := range page {
		service := made.DeepCopy()
		_, exists, err := l.cloud.GetLoadBalancer(ctx, name, service)
		switch {
		case errors.Is(err, cloudprovider.ImplementedElsewhere):
			continue
		case err != nil:
			// Half a list is worse than none.
			return nil, err
		case !exists:
			continue
		}
		answer.LoadBalancers = append(answer.LoadBalancers, &pb.OwnedLoadBalancer{
			Owner: &pb.Owner{
				ClusterId: meta.GetClusterId(),
				Namespace: service.Namespace,
				Name:      service.Name,
				Uid:       string(service.UID),
			},
			Handle: l.cloud.GetLoadBalancerName(ctx, name, service),
		})
	}
	if more {
		answer.NextPageToken = string(page[len(page)-1].UID)
	}
	return answer, nil
}

// ready is the outcome of a call that went well.
func (l *loadBalancers) ready(
	ctx context.Context, clusterName string, service *v1.Service, status *v1.LoadBalancerStatus,
) (*pb.LoadBalancerOutcome, error) {
	if status == nil {
		return nil, errors.New("the provider returned neither a status nor an error")
	}
	ready := &pb.Ready{Handle: l.cloud.GetLoadBalancerName(ctx, clusterName, service)}
	for _, one := range status.Ingress {
		ingress := &pb.Ingress{ProxyMode: one.IPMode != nil && *one.IPMode == v1.LoadBalancerIPModeProxy}
		switch {
		case one.IP != "":
			ingress.At = &pb.Ingress_Ip{Ip: one.IP}
		case one.Hostname != "":
			ingress.At = &pb.Ingress_Hostname{Hostname: one.Hostname}
		default:
			return nil, fmt.Errorf("the provider returned an ingress without address and name for %s", ready.Handle)
		}
		ready.Ingress = append(ready.Ingress, ingress)
	}
	return &pb.LoadBalancerOutcome{Outcome: &pb.LoadBalancerOutcome_Ready{Ready: ready}}, nil
}
