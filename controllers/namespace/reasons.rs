//! Reasons of the Events of this controller; upstream makes none.

quarterdeck_runtime::reasons! {
    /// All of them.
    ALL:
    /// Something keeps a namespace that is to go.
    BLOCKED = Warning "DeletionBlocked" about "Namespace";
}
