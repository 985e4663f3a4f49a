//! Reasons of the Events of this controller; `DeletingNode` is upstream's,
//! `k8s.io/cloud-provider:controllers/nodelifecycle/node_lifecycle_controller.go` v0.36.3.

quarterdeck_runtime::reasons! {
    /// All of them.
    ALL:
    /// The cloud says that an instance is gone, and its node is kept all the same.
    KEPT = Warning "NodeDeletionRefused" about "Node";
    /// The instance is gone, and the node goes.
    DELETING = Normal "DeletingNode" about "Node";
    /// It could not be deleted.
    DELETE_FAILED = Warning "DeletingNodeFailed" about "Node";
    /// The instance is shut down: nothing is scheduled to the node.
    SHUT_DOWN = Normal "InstanceShutdown" about "Node";
    /// It runs again.
    RUNS_AGAIN = Normal "InstanceRunning" about "Node";
}
