//! Labels, annotations and finalizers around an `Addon`.

/// Namespace in which keiko's addon-manager expected every Addon. Ours work in any; `addonctl create`
/// still puts them here.
pub const DEFAULT_NAMESPACE: &str = "addon-manager-system";

/// Finalizer that keeps an Addon until its delete step and prune are done; upstream's.
pub const FINALIZER: &str = "delete.addonmgr.keikoproj.io";

/// Label of an Addon that only shows an addon of a directory or a channel; the value is the source.
/// The Addon source ignores such objects.
pub const MIRROR_LABEL: &str = "quarterdeck.dev/mirror";
/// Annotation on such an Addon, and on the ConfigMap that it shows: the addon's name within its source,
/// such as `dns.yaml`.
pub const SOURCE_NAME_ANNOTATION: &str = "quarterdeck.dev/addon";
/// Label on pods that run steps of an addon; the value is the Addon's name.
pub const ADDON_LABEL: &str = "quarterdeck.dev/addon";
/// Annotation on pods that run steps of an addon: phase and step, such as `install/entry/migrate`.
pub const STEP_ANNOTATION: &str = "quarterdeck.dev/step";

/// Annotation on an Addon: `"true"` stops all work on it until it is removed.
pub const PAUSED_ANNOTATION: &str = "quarterdeck.dev/paused";
/// Annotation on an Addon: `"true"` takes what is there already as installed, and runs nothing.
pub const ADOPT_ANNOTATION: &str = "quarterdeck.dev/adopt";
/// Annotation on an Addon: what is done about its revisions, `off`, `manual` or `auto`.
pub const ROLLBACK_MODE_ANNOTATION: &str = "quarterdeck.dev/rollback";
/// Annotation on an Addon, or on the parent of an addon of another source: hash of the revision to go
/// back to.
pub const ROLLBACK_ANNOTATION: &str = "quarterdeck.dev/rollback-to";
/// Annotation beside [`ROLLBACK_ANNOTATION`]: hash of the revision to go back from. Without it the word
/// counts for the revision that is asked for when it is first seen.
pub const ROLLBACK_FROM_ANNOTATION: &str = "quarterdeck.dev/rollback-from";
/// Annotation on an Addon, or on the parent of an addon of another source: hash of the plan whose held
/// removals may go on.
pub const RELEASE_ANNOTATION: &str = "quarterdeck.dev/release-prune";
/// Annotation on an Addon: who runs its templates, `native`, `argo` or `auto`.
pub const RUNNER_ANNOTATION: &str = "quarterdeck.dev/runner";

/// Label that upstream puts on what an addon brings: the Addon's name.
pub const APP_NAME_LABEL: &str = "app.kubernetes.io/name";
/// Label that upstream puts on what an addon brings: `spec.pkgVersion`.
pub const APP_VERSION_LABEL: &str = "app.kubernetes.io/version";
/// Label that upstream puts on what an addon brings: the Addon's name.
pub const APP_PART_OF_LABEL: &str = "app.kubernetes.io/part-of";
/// Label that upstream puts on what an addon brings.
pub const APP_MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`APP_MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "addonmgr.keikoproj.io";

/// Prefix of the annotations on a namespace in which channels keep what is installed; the addon's
/// name follows. Kops: `channels/pkg/channels/channel_version.go`.
pub const CHANNEL_ANNOTATION_PREFIX: &str = "addons.k8s.io/";

/// Longest name of an Addon: workflow names made of it must fit a label (upstream's limit). Mirrors,
/// for which nothing is run, may be longer.
pub const LONGEST_NAME: usize = 31;
/// Longest `namePrefix` of a lifecycle step.
pub const LONGEST_PREFIX: usize = 10;

/// `spec.pkgType` of the mirror of a directory's addon.
pub const DIRECTORY_TYPE: &str = "directory";
/// `spec.pkgType` of the mirror of a channel's addon.
pub const CHANNEL_TYPE: &str = "channel";
