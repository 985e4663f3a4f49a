//! Slices of a service: labels, owner, name, and new ones.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use sha2::{Digest as _, Sha256};

use super::family::Family;

/// Label that names the service of a slice.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label that names the manager of a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Our value of [`MANAGED_BY`], the same as upstream's, so that slices are handed over as they are.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Label of slices of headless services.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// Annotation with the time of the change that led to the last write.
pub const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The value of one of a slice's labels.
pub(super) fn label<'a>(slice: &'a EndpointSlice, name: &str) -> Option<&'a str> {
    slice.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// Whether this controller manages a slice.
pub(super) fn is_ours(slice: &EndpointSlice) -> bool {
    label(slice, MANAGED_BY) == Some(MANAGER)
}

/// Number of endpoints in a slice.
pub(super) fn len(slice: &EndpointSlice) -> usize {
    slice.endpoints.as_ref().map_or(0, Vec::len)
}

/// Whether the service has no cluster IP.
fn is_headless(service: &Service) -> bool {
    matches!(service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()), None | Some("" | "None"))
}

/// Whether a slice belongs to this very service, not to an earlier one of the same name.
pub(super) fn is_owned_by(slice: &EndpointSlice, service: &Service) -> bool {
    let uid = service.metadata.uid.as_deref().unwrap_or_default();
    let mut owners = slice.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.uid == uid && owner.kind == "Service" && owner.api_version == "v1")
}

/// What all slices of a service have in common.
pub(super) struct Template<'a> {
    service: &'a Service,
    /// The labels: those of the service, then ours.
    pub(super) labels: BTreeMap<String, String>,
}

impl<'a> Template<'a> {
    /// The template of a service's slices.
    pub(super) fn of(service: &'a Service) -> Self {
        let mut labels = service.metadata.labels.clone().unwrap_or_default();
        labels.remove(HEADLESS);
        if is_headless(service) {
            labels.insert(HEADLESS.to_owned(), String::new());
        }
        labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
        labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
        Self { service, labels }
    }

    /// Whether a slice has these labels and no others.
    pub(super) fn fits(&self, slice: &EndpointSlice) -> bool {
        slice.metadata.labels.as_ref() == Some(&self.labels)
    }

    /// The reference that makes the service own its slices.
    pub(super) fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            name: self.service.metadata.name.clone().unwrap_or_default(),
            uid: self.service.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    /// A slice without endpoints and without a name.
    pub(super) fn build(&self, family: Family, ports: Vec<EndpointPort>) -> EndpointSlice {
        EndpointSlice {
            address_type: family.address_type().to_owned(),
            endpoints: Some(Vec::new()),
            metadata: ObjectMeta {
                namespace: self.service.metadata.namespace.clone(),
                labels: Some(self.labels.clone()),
                owner_references: Some(vec![self.owner()]),
                ..ObjectMeta::default()
            },
            ports: Some(ports),
        }
    }
}

/// The `number`-th name of a service's slices in a family. Depends on nothing else, so that a
/// create whose answer was lost meets its own result when it is tried again.
pub(super) fn name(service: &Service, family: Family, number: u32) -> String {
    /// Letters and digits that cannot spell words, as generated names use.
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let uid = service.metadata.uid.as_deref().unwrap_or_default();
    let digest = Sha256::digest(format!("{uid}/{family}/{number}"));
    let suffix = digest.iter().take(8).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
    let mut name = service.metadata.name.clone().unwrap_or_default();
    name.push('-');
    name.extend(suffix);
    name
}
