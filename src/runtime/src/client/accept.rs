//! Media types that are asked for and sent.

/// Whole objects.
pub const JSON: &str = "application/json";
/// One object's metadata; the whole object from servers that know no such thing.
pub const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
/// A list of metadata; whole objects from servers that know no such thing.
pub const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
/// All that a server serves at once, and plain lists of groups from servers that know no such thing.
pub(super) const DISCOVERY: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
/// A merge patch (RFC 7386).
pub(crate) const MERGE_PATCH: &str = "application/merge-patch+json";
/// A merge patch that merges lists of built-in kinds by their keys
/// (`k8s.io/apimachinery:pkg/util/strategicpatch/patch.go`).
pub(crate) const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
/// Text, such as a log.
pub(super) const TEXT: &str = "text/plain, */*";
/// A server-side apply; JSON is YAML.
pub(crate) const APPLY_PATCH: &str = "application/apply-patch+yaml";
