package shim

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cloudprovider "k8s.io/cloud-provider"

	pb "quarterdeck.dev/hack/cloud-shim/cloudproviderv1"
)

// pageSize is how many routes an answer has at most: a few hundred bytes each.
const pageSize = 5000

type routes struct {
	// Replace is not implemented: a provider has no such thing.
	pb.UnimplementedRoutesServer
	*Server
	cloud cloudprovider.Routes
}

// key orders routes, and is what the next page begins after.
func key(route *cloudprovider.Route) string { return route.DestinationCIDR + "\n" + route.Name }

// List implements pb.RoutesServer. A provider lists all of them at once; each page begins behind the last one's end.
func (r *routes) List(ctx context.Context, request *pb.ListRoutesRequest) (*pb.ListRoutesResponse, error) {
	all, err := r.cloud.ListRoutes(ctx, r.clusterName(request.GetMeta()))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b *cloudprovider.Route) int { return cmp.Compare(key(a), key(b)) })
	answer := &pb.ListRoutesResponse{}
	for _, route := range all {
		if key(route) <= request.GetPageToken() {
			continue
		}
		if len(answer.Routes) == pageSize {
			answer.NextPageToken = last(answer.Routes)
			break
		}
		answer.Routes = append(answer.Routes, toRoute(route))
	}
	return answer, nil
}

func last(page []*pb.Route) string {
	end := page[len(page)-1]
	return end.GetDestination() + "\n" + end.GetName()
}

// Create implements pb.RoutesServer.
func (r *routes) Create(ctx context.Context, request *pb.CreateRouteRequest) (*pb.CreateRouteResponse, error) {
	wanted, name := fromRoute(request.GetRoute()), r.clusterName(request.GetMeta())
	err := r.cloud.CreateRoute(ctx, name, request.GetRoute().GetName(), wanted)
	if err == nil {
		return &pb.CreateRouteResponse{}, nil
	}
	// A provider may refuse to make what is there: as good as made.
	there, listing := r.there(ctx, name, wanted)
	if listing == nil && there != nil && there.TargetNode == wanted.TargetNode && !there.Blackhole {
		return &pb.CreateRouteResponse{}, nil
	}
	return nil, err
}

// Delete implements pb.RoutesServer.
func (r *routes) Delete(ctx context.Context, request *pb.DeleteRouteRequest) (*pb.DeleteRouteResponse, error) {
	unwanted, name := fromRoute(request.GetRoute()), r.clusterName(request.GetMeta())
	err := r.cloud.DeleteRoute(ctx, name, unwanted)
	if err == nil {
		return &pb.DeleteRouteResponse{}, nil
	}
	there, listing := r.there(ctx, name, unwanted)
	switch {
	case listing != nil:
		return nil, err
	case there == nil:
		// A provider may complain of what is not there: as good as removed.
		return &pb.DeleteRouteResponse{}, nil
	case there.Name != unwanted.Name:
		// It may want the route by the name that it lists it by.
		err = r.cloud.DeleteRoute(ctx, name, there)
	}
	return &pb.DeleteRouteResponse{}, err
}

// there finds the route to a destination.
func (r *routes) there(ctx context.Context, name string, asked *cloudprovider.Route) (*cloudprovider.Route, error) {
	all, err := r.cloud.ListRoutes(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, route := range all {
		if route.DestinationCIDR == asked.DestinationCIDR {
			return route, nil
		}
	}
	return nil, nil
}

func toRoute(route *cloudprovider.Route) *pb.Route {
	told := &pb.Route{
		Name:        route.Name,
		Destination: route.DestinationCIDR,
		Node:        string(route.TargetNode),
		Blackhole:   route.Blackhole,
	}
	for _, address := range route.TargetNodeAddresses {
		if _, err := netip.ParseAddr(address.Address); err == nil {
			told.NextHops = append(told.NextHops, address.Address)
		}
	}
	return told
}

func fromRoute(route *pb.Route) *cloudprovider.Route {
	made := &cloudprovider.Route{
		Name:                route.GetName(),
		TargetNode:          types.NodeName(route.GetNode()),
		DestinationCIDR:     route.GetDestination(),
		Blackhole:           route.GetBlackhole(),
		EnableNodeAddresses: true,
	}
	for _, address := range route.GetNextHops() {
		made.TargetNodeAddresses = append(made.TargetNodeAddresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: address})
	}
	return made
}
