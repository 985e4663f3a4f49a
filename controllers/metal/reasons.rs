//! Reasons of the Events of this controller.

quarterdeck_runtime::reasons! {
    /// All of them.
    ALL:
    /// A gateway went, and another one has its addresses.
    ADDRESS_MOVED = Warning "LoadBalancerAddressMoved" about "Service";
    /// What the agent of a host left that is gone was deleted.
    AGENT_FORGOTTEN = Normal "AgentForgotten" about "Namespace";
    /// The file of machines makes no sense; what it said before counts.
    INVENTORY_INVALID = Warning "InventoryInvalid" about "Namespace";
    /// It does again.
    INVENTORY_VALID = Normal "InventoryValid" about "Namespace";
}
