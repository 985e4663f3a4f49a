//! Reasons of the Events that the manager itself makes, about its Lease.

quarterdeck_runtime::reasons! {
    /// All of them.
    ALL:
    /// A replica began or stopped leading (`client-go:tools/leaderelection` v0.36.3).
    ELECTION = Normal "LeaderElection" about "Lease";
    /// The fence works, which it did not.
    FENCE_WORKS = Normal "FenceWorks" about "Lease";
    /// The fence does not keep writes of past leaders out.
    FENCE_BROKEN = Warning "FenceBroken" about "Lease";
    /// No fence is installed.
    FENCE_ABSENT = Warning "FenceAbsent" about "Lease";
    /// A controller of the leader must not run.
    BLOCKED = Warning "ControllerBlocked" about "Lease";
    /// A controller of the leader ended by itself.
    FAILED = Warning "ControllerFailed" about "Lease";
    /// It runs, after it was blocked or had failed.
    RUNS = Normal "ControllerRunning" about "Lease";
}
