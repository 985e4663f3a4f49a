//! What the tests of several modules share.

use quarterdeck_runtime::controller::{ClientShare, Descriptor, Predecessor};

/// A descriptor with these names, on by default.
pub(crate) fn descriptor(name: &'static str, aliases: &'static [&'static str]) -> Descriptor {
    Descriptor {
        name,
        aliases,
        enabled_by_default: true,
        account: name,
        upstream_role: true,
        writes_anything: false,
        predecessor: Some(Predecessor::KubeControllerManager),
        queue: name,
        share: ClientShare::ONE,
    }
}
