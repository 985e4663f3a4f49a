package shim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cloudprovider "k8s.io/cloud-provider"

	pb "quarterdeck.dev/hack/cloud-shim/cloudproviderv1"
)

// atOnce is how many nodes of a batch are asked for at once: a provider has no question about many.
const atOnce = 8

type instances struct {
	pb.UnimplementedInstancesServer
	*Server
	cloud cloudprovider.InstancesV2
}

// BatchGet implements pb.InstancesServer.
func (i *instances) BatchGet(ctx context.Context, request *pb.BatchGetRequest) (*pb.BatchGetResponse, error) {
	account, err := i.account(ctx)
	if err != nil {
		return nil, err
	}
	answers := make([]*pb.NodeAnswer, len(request.GetNodes()))
	places := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for index, node := range request.GetNodes() {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			answers[index] = i.answer(ctx, node)
		})
	}
	all.Wait()
	// Nothing is to be concluded from answers that were given while time ran out.
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return &pb.BatchGetResponse{Account: account, Nodes: answers}, nil
}

// answer says what the provider knows of one node.
func (i *instances) answer(ctx context.Context, asked *pb.NodeRef) (told *pb.NodeAnswer) {
	told = &pb.NodeAnswer{Node: asked}
	// This runs beside the call, where nobody else would catch it.
	defer func() {
		if broken := recover(); broken != nil {
			told.Answer = &pb.NodeAnswer_Error{Error: nodeError(fmt.Errorf("the provider panicked: %v", broken))}
		}
	}()
	if id := asked.GetProviderId(); id != "" {
		scheme, _, _ := strings.Cut(id, "://")
		if !slices.Contains(i.options.Schemes, scheme) {
			told.Answer = &pb.NodeAnswer_NotMine{NotMine: &pb.NotMine{}}
			return told
		}
	}
	found, err := i.find(ctx, asked)
	switch {
	case err != nil:
		told.Answer = &pb.NodeAnswer_Error{Error: nodeError(err)}
	case found == nil:
		evidence := fmt.Sprintf("InstanceExists of provider %s answers false", i.Server.cloud.ProviderName())
		told.Answer = &pb.NodeAnswer_Absent{Absent: &pb.Absent{Evidence: evidence}}
	default:
		told.Answer = &pb.NodeAnswer_Found{Found: found}
	}
	return told
}

// find asks for an instance; nil without an error means that there is none.
func (i *instances) find(ctx context.Context, asked *pb.NodeRef) (*pb.Instance, error) {
	node := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: asked.GetName()},
		Spec:       v1.NodeSpec{ProviderID: asked.GetProviderId()},
	}
	exists, err := i.cloud.InstanceExists(ctx, node)
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, nil
	}
	shutdown, err := i.cloud.InstanceShutdown(ctx, node)
	if err != nil && !errors.Is(err, cloudprovider.NotImplemented) {
		return nil, err
	}
	metadata, err := i.cloud.InstanceMetadata(ctx, node)
	if err != nil {
		return nil, err
	}
	if metadata == nil {
		return nil, errors.New("the provider has no metadata of the instance yet")
	}
	id := metadata.ProviderID
	if id == "" {
		id = asked.GetProviderId()
	}
	if id == "" {
		return nil, errors.New("the provider knows no providerID of the instance")
	}
	instance := &pb.Instance{
		ProviderId:   id,
		InstanceType: metadata.InstanceType,
		Zone:         metadata.Zone,
		Region:       metadata.Region,
		Labels:       metadata.AdditionalLabels,
		Shutdown:     shutdown,
	}
	for _, address := range metadata.NodeAddresses {
		kind, known := kinds[address.Type]
		if !known || address.Address == "" {
			continue
		}
		instance.Addresses = append(instance.Addresses, &pb.NodeAddress{Kind: kind, Address: address.Address})
	}
	return instance, nil
}

var kinds = map[v1.NodeAddressType]pb.AddressKind{
	v1.NodeHostName:    pb.AddressKind_ADDRESS_KIND_HOSTNAME,
	v1.NodeInternalIP:  pb.AddressKind_ADDRESS_KIND_INTERNAL_IP,
	v1.NodeExternalIP:  pb.AddressKind_ADDRESS_KIND_EXTERNAL_IP,
	v1.NodeInternalDNS: pb.AddressKind_ADDRESS_KIND_INTERNAL_DNS,
	v1.NodeExternalDNS: pb.AddressKind_ADDRESS_KIND_EXTERNAL_DNS,
}
