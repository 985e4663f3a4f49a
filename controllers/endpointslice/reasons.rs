//! Reasons of the Events of this controller; upstream's, `kubernetes:pkg/controller/endpointslice/endpointslice_controller.go`
//! and `k8s.io/endpointslice:topologycache` v1.36.3.

quarterdeck_runtime::reasons! {
    /// All of them.
    ALL:
    /// The slices of a service cannot be brought up to date.
    UPDATE_FAILED = Warning "FailedToUpdateEndpointSlices" about "Service";
    /// Slices carry topology hints now.
    HINTS_SET = Normal "TopologyAwareHintsEnabled" about "Service";
    /// They carry none, or none any more.
    HINTS_GONE = Warning "TopologyAwareHintsDisabled" about "Service";
}
