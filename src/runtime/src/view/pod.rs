//! What controllers read of a Pod.

use std::net::IpAddr;
use std::sync::Arc;

use super::Labels;
use crate::object::{Cached, Kind, ObjectKey, Typed};

/// A Pod's phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PodPhase {
    /// Accepted, not all containers run yet.
    #[default]
    Pending,
    /// At least one container runs.
    Running,
    /// All containers ended well, for good.
    Succeeded,
    /// All containers ended, at least one of them badly.
    Failed,
    /// The node cannot be asked.
    Unknown,
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Protocol {
    /// TCP, the default.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A named container port, of a container or a restartable init container, in the order in which
/// upstream resolves names (containers, then restartable init containers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortView {
    /// Port name; ports without a name are not kept.
    pub name: Arc<str>,
    /// Port number.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// An address of a pod, in canonical form.
pub type PodIp = IpAddr;

/// What controllers read of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`.
    pub resource_version: Box<str>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `spec.nodeName`, none until scheduled.
    pub node: Option<Arc<str>>,
    /// `spec.hostname`, none when empty.
    pub hostname: Option<Arc<str>>,
    /// `spec.subdomain`, none when empty.
    pub subdomain: Option<Arc<str>>,
    /// Named ports, in order of resolution.
    pub ports: Box<[PortView]>,
    /// `status.phase`.
    pub phase: PodPhase,
    /// Whether the condition `Ready` is `True`.
    pub ready: bool,
    /// When the condition `Ready` last changed, whole seconds since 1970; for the trigger-time
    /// annotation.
    pub ready_changed: Option<i64>,
    /// `metadata.creationTimestamp`, whole seconds since 1970.
    pub created: i64,
    /// `status.podIPs` (or `status.podIP` alone), in order; unparsable ones are left out.
    pub ips: Box<[PodIp]>,
}

impl<'de> serde::Deserialize<'de> for PodView {
    fn deserialize<D: serde::Deserializer<'de>>(_deserializer: D) -> Result<Self, D::Error> {
        todo!()
    }
}

impl Cached for PodView {
    fn key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn resource_version(&self) -> &str {
        &self.resource_version
    }

    fn is_deleting(&self) -> bool {
        self.deleting
    }

    fn each_label(&self, visit: &mut dyn FnMut(&str, &str)) {
        for (key, value) in self.labels.iter() {
            visit(key, value);
        }
    }
}

impl Typed for PodView {
    fn kind() -> Kind {
        Kind::of::<k8s_openapi::api::core::v1::Pod>()
    }
}
