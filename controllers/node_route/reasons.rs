//! Reasons of the Events of this controller; `FailedToCreateRoute` is upstream's,
//! `k8s.io/cloud-provider:controllers/route/route_controller.go` v0.36.3.

quarterdeck_runtime::reasons! {
    /// All of them.
    ALL:
    /// A pod network gets no route, for what stands in the node.
    INVALID_CIDR = Warning "InvalidPodCIDR" about "Node";
    /// The cloud makes no route.
    ROUTE_FAILED = Warning "FailedToCreateRoute" about "Node";
    /// All routes of a node are there that were not.
    ROUTED = Normal "RouteCreated" about "Node";
}
