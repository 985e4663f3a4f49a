//! Reasons of the Events of this controller. `Created`, `Submitted`, `Completed`, `Pending` and `Failed` are those of keiko's
//! addon-manager (`keikoproj/addon-manager:controllers/addon_controller.go`, `pkg/workflows/workflow_lifecycle.go`).

quarterdeck_runtime::reasons! {
    /// All of them.
    ALL:
    /// Objects were made or changed, since the source says so.
    APPLIED = Normal "AddonApplied" about "ConfigMap, Addon";
    /// Objects that somebody else had brought were taken over as they were.
    ADOPTED = Normal "AddonAdopted" about "ConfigMap, Addon";
    /// Objects that somebody else had changed or deleted were put back.
    REPAIRED = Normal "DriftRepaired" about "ConfigMap, Addon";
    /// Objects were deleted that the source names no more.
    PRUNED = Normal "AddonPruned" about "ConfigMap, Addon";
    /// Objects left the inventory and were not deleted.
    KEPT = Normal "PruneKept" about "ConfigMap, Addon";
    /// A removal waits for a person.
    HELD = Warning "PruneHeld" about "ConfigMap, Addon";
    /// Objects outside the manifest, to be deleted when a person confirms it.
    CANDIDATES = Warning "AdoptionCandidates" about "ConfigMap";
    /// What users edited was found and is left as it is.
    EDITS_KEPT = Normal "UserEditsKept" about "ConfigMap";
    /// Something failed, or may not be done.
    DEGRADED = Warning "AddonDegraded" about "ConfigMap, Addon";
    /// Something is waited for.
    WAITING = Normal "AddonWaiting" about "ConfigMap, Addon";
    /// All of it is as its source says, which it was not.
    READY = Normal "AddonReady" about "ConfigMap, Addon";
    /// A person asked to leave it alone.
    PAUSED = Normal "AddonPaused" about "ConfigMap, Addon";
    /// That is over.
    RESUMED = Normal "AddonResumed" about "ConfigMap, Addon";
    /// All of it has left the cluster.
    REMOVED = Normal "AddonRemoved" about "ConfigMap, Addon";
    /// An older revision is in force.
    ROLLED_BACK = Warning "RolledBack" about "ConfigMap, Addon";
    /// What the source says is in force again.
    ROLL_BACK_OVER = Normal "RollBackOver" about "ConfigMap, Addon";
    /// A CA was made for an addon that needs one.
    CA_MADE = Normal "CertificateAuthorityMade" about "ConfigMap";
    /// So was its issuer.
    ISSUER_MADE = Normal "IssuerMade" about "ConfigMap";
    /// Another master's files differ from what is applied.
    DIFFERS = Warning "SourceDiffers" about "Lease";
    /// They do no more.
    AGREES = Normal "SourceAgrees" about "Lease";
    /// The leader cannot read a source whole: nothing of it is removed.
    UNREADABLE = Warning "SourceUnreadable" about "Lease";
    /// It can again.
    READABLE = Normal "SourceReadable" about "Lease";
    /// Another addon manager is alive: addons are only looked at.
    STANDS_ASIDE = Normal "AddonsLookedAt" about "Lease";
    /// It is gone: addons are reconciled.
    TAKES_OVER = Normal "AddonsTakenOver" about "Lease";
    /// Keiko's: a Workflow was made for Argo.
    CREATED = Normal "Created" about "Addon";
    /// Keiko's: a step of the lifecycle began.
    SUBMITTED = Normal "Submitted" about "Addon";
    /// Keiko's: a step, or a check, ended well.
    COMPLETED = Normal "Completed" about "Addon";
    /// Keiko's: it waits.
    PENDING = Normal "Pending" about "Addon";
    /// Keiko's: it failed.
    FAILED = Warning "Failed" about "Addon";
    /// Keiko's: it failed for want of something that may still come.
    LACKS = Normal "Failed" about "Addon";
}
