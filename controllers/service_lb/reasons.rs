//! Reasons of the Events of this controller; those about a load balancer that is made, changed or removed are upstream's,
//! `k8s.io/cloud-provider:controllers/service/controller.go` v0.36.3.

quarterdeck_runtime::reasons! {
    /// All of them.
    ALL:
    /// The cloud is asked for a load balancer.
    ENSURING = Normal "EnsuringLoadBalancer" about "Service";
    /// It is there.
    ENSURED = Normal "EnsuredLoadBalancer" about "Service";
    /// It has other nodes behind it.
    UPDATED = Normal "UpdatedLoadBalancer" about "Service";
    /// There is no node that it could have behind it.
    NO_NODES = Warning "UnAvailableLoadBalancer" about "Service";
    /// It cannot be made or removed.
    SYNC_FAILED = Warning "SyncLoadBalancerFailed" about "Service";
    /// Its nodes cannot be changed.
    UPDATE_FAILED = Warning "UpdateLoadBalancerFailed" about "Service";
    /// It is being removed.
    DELETING = Normal "DeletingLoadBalancer" about "Service";
    /// It is gone.
    DELETED = Normal "DeletedLoadBalancer" about "Service, Namespace";
    /// An annotation of ours that means nothing.
    UNKNOWN_ANNOTATION = Warning "UnknownAnnotation" about "Service";
    /// The address that is asked for, or any at all, cannot be had.
    ADDRESS_UNAVAILABLE = Warning "AddressUnavailable" about "Service";
    /// The cloud has several load balancers of one Service.
    DUPLICATES = Warning "DuplicateLoadBalancers" about "Service";
    /// Somebody else changed or removed it; it is put right.
    DRIFTED = Warning "LoadBalancerDrifted" about "Service";
    /// A load balancer whose Service is gone.
    ORPHANED = Warning "OrphanedLoadBalancer" about "Service, Namespace";
}
