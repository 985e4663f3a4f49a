package shim

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	pb "quarterdeck.dev/hack/cloud-shim/cloudproviderv1"
)

// remember makes a Service of a spec, and keeps it.
func (s *Server) remember(meta *pb.CallMeta, spec *pb.LoadBalancerSpec) (*v1.Service, error) {
	if spec.GetOwner().GetUid() == "" {
		return nil, failure(pb.ErrorReason_ERROR_REASON_INVALID, "spec.owner.uid: is empty")
	}
	service, err := serviceFrom(spec)
	if err != nil {
		return nil, failure(pb.ErrorReason_ERROR_REASON_INVALID, err.Error())
	}
	if err := s.state.put(meta.GetClusterId(), service); err != nil {
		return nil, err
	}
	return service.DeepCopy(), nil
}

// serviceOf finds the Service of an owner: as it was last seen, as it is in the cluster, or as little as is known.
func (s *Server) serviceOf(ctx context.Context, meta *pb.CallMeta, owner *pb.Owner) (*v1.Service, error) {
	if owner.GetUid() == "" {
		return nil, failure(pb.ErrorReason_ERROR_REASON_INVALID, "owner.uid: is empty")
	}
	if known := s.state.get(meta.GetClusterId(), owner.GetUid()); known != nil {
		return known.DeepCopy(), nil
	}
	if s.options.Service != nil {
		service, err := s.options.Service(ctx, owner.GetNamespace(), owner.GetName())
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			// Without its annotations a provider might look for something else, and find nothing.
			return nil, fmt.Errorf("reading the Service %s/%s: %w", owner.GetNamespace(), owner.GetName(), err)
		case string(service.UID) == owner.GetUid():
			return service.DeepCopy(), nil
		}
	}
	return &v1.Service{ObjectMeta: metaFor(owner), Spec: v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer}}, nil
}

func metaFor(owner *pb.Owner) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: owner.GetNamespace(), Name: owner.GetName(), UID: types.UID(owner.GetUid())}
}

var protocols = map[pb.Protocol]v1.Protocol{
	pb.Protocol_PROTOCOL_TCP:  v1.ProtocolTCP,
	pb.Protocol_PROTOCOL_UDP:  v1.ProtocolUDP,
	pb.Protocol_PROTOCOL_SCTP: v1.ProtocolSCTP,
}

var families = map[pb.IpFamily]v1.IPFamily{
	pb.IpFamily_IP_FAMILY_IPV4: v1.IPv4Protocol,
	pb.IpFamily_IP_FAMILY_IPV6: v1.IPv6Protocol,
}

// serviceFrom makes the Service that a spec was made of, as far as it says.
func serviceFrom(spec *pb.LoadBalancerSpec) (*v1.Service, error) {
	service := &v1.Service{ObjectMeta: metaFor(spec.GetOwner())}
	service.Annotations = spec.GetAnnotations()
	service.Spec = v1.ServiceSpec{
		Type:                     v1.ServiceTypeLoadBalancer,
		ExternalTrafficPolicy:    v1.ServiceExternalTrafficPolicyCluster,
		HealthCheckNodePort:      int32(spec.GetHealthCheckNodePort()),
		LoadBalancerSourceRanges: spec.GetSourceRanges(),
		SessionAffinity:          v1.ServiceAffinityNone,
	}
	if spec.GetExternalTraffic() == pb.ExternalTraffic_EXTERNAL_TRAFFIC_LOCAL {
		service.Spec.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicyLocal
	}
	if len(spec.GetAddresses()) > 0 {
		service.Spec.LoadBalancerIP = spec.GetAddresses()[0]
	}
	if spec.GetAffinity() != nil {
		seconds := int32(spec.GetAffinity().GetSeconds())
		service.Spec.SessionAffinity = v1.ServiceAffinityClientIP
		service.Spec.SessionAffinityConfig = &v1.SessionAffinityConfig{
			ClientIP: &v1.ClientIPConfig{TimeoutSeconds: &seconds},
		}
	}
	for _, family := range spec.GetIpFamilies() {
		known, ok := families[family]
		if !ok {
			return nil, fmt.Errorf("spec.ip_families: %v is no family", family)
		}
		service.Spec.IPFamilies = append(service.Spec.IPFamilies, known)
	}
	for index, port := range spec.GetPorts() {
		protocol, ok := protocols[port.GetProtocol()]
		if !ok {
			return nil, fmt.Errorf("spec.ports[%d].protocol: %v is no protocol", index, port.GetProtocol())
		}
		made := v1.ServicePort{
			Name:     port.GetName(),
			Protocol: protocol,
			Port:     int32(port.GetPort()),
			NodePort: int32(port.GetNodePort()),
			// Providers do not look at it; the API server would have filled it in so.
			TargetPort: intstr.FromInt32(int32(port.GetPort())),
		}
		if app := port.GetAppProtocol(); app != "" {
			made.AppProtocol = &app
		}
		service.Spec.Ports = append(service.Spec.Ports, made)
	}
	return service, nil
}

// nodesOf makes the Nodes that a spec's backends are, as far as it says.
func nodesOf(spec *pb.LoadBalancerSpec) []*v1.Node {
	nodes := make([]*v1.Node, 0, len(spec.GetBackends()))
	for _, backend := range spec.GetBackends() {
		node := &v1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: backend.GetName()},
			Spec:       v1.NodeSpec{ProviderID: backend.GetProviderId()},
		}
		for _, address := range backend.GetAddresses() {
			node.Status.Addresses = append(node.Status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: address})
		}
		nodes = append(nodes, node)
	}
	return nodes
}
