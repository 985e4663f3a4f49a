//! Reasons of the Events of this controller; `Synced` is upstream's,
//! `k8s.io/cloud-provider:controllers/node/node_controller.go` v0.36.3.

quarterdeck_runtime::reasons! {
    /// All of them.
    ALL:
    /// A node has got what its cloud knows of it, and its taint is gone.
    SYNCED = Normal "Synced" about "Node";
    /// Several clouds have an instance for the node.
    AMBIGUOUS = Warning "AmbiguousInstance" about "Node";
    /// The cloud cannot be asked.
    LOOK_UP_FAILED = Warning "CloudLookUpFailed" about "Node";
    /// What the cloud says cannot be set on the node, which stays tainted.
    NOT_INITIALIZED = Warning "InitializationFailed" about "Node";
    /// The cloud's addresses cannot be set on the node.
    ADDRESSES_KEPT = Warning "AddressesNotUpdated" about "Node";
}
