//! The hash by which a change of a spec is seen.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::{AddonSpec, Scalar};

impl AddonSpec {
    /// SHA-256 of what the spec means, in hex: canonical JSON (keys sorted, absent and empty fields left
    /// out) of the spec with `clusterContext` read as `context` and bools and numbers as texts. Fields that
    /// a later release adds do not change it while they are absent.
    #[must_use]
    pub fn checksum(&self) -> String {
        let mut spec = self.clone();
        spec.params.context = self.params.cluster();
        spec.params.cluster_context = Default::default();
        for value in spec.params.context.additional_configs.values_mut().chain(spec.params.data.values_mut()) {
            if let Some(text) = value.text() {
                *value = Scalar::from(text);
            }
        }
        for step in [
            &mut spec.lifecycle.prereqs,
            &mut spec.lifecycle.install,
            &mut spec.lifecycle.validate,
            &mut spec.lifecycle.delete,
        ] {
            if step.template.trim().is_empty() {
                *step = Default::default();
            }
        }
        // Through a Value: its maps are sorted.
        let value = serde_json::to_value(&spec).expect("a spec is JSON");
        let mut text = String::new();
        for byte in Sha256::digest(value.to_string().as_bytes()) {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        }
        text
    }
}

/// Whether a `status.checksum` is upstream's (hex Adler-32, eight digits at most): such an Addon is
/// adopted, not changed.
#[must_use]
pub fn is_upstream_checksum(checksum: &str) -> bool {
    (1..=8).contains(&checksum.len()) && checksum.bytes().all(|byte| byte.is_ascii_hexdigit())
}
