//! What is written on a Service: patches of its status, through which finalizers and annotations go as well
//! (cloud-provider:service/helpers/helper.go v0.36.3: upstream's role has no other right).

use k8s_openapi::api::core::v1::{ObjectReference, Service};
use quarterdeck_cloud::model::{Ingress, IngressPoint};
use quarterdeck_runtime::client::PatchPrecondition;
use serde_json::{Map, Value, json};

use super::record::{FINALIZER, RECORD, Record, has_finalizer};

/// A patch, and what it requires.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServicePatch {
    /// The merge patch.
    pub(super) patch: Value,
    /// Its precondition.
    pub(super) precondition: PatchPrecondition,
}

/// Adds the finalizer and the record, before anything is made. `None`: the Service carries both.
pub(super) fn claim(service: &Service, record: &Record) -> Option<ServicePatch> {
    if has_finalizer(service) && Record::of(service).as_ref() == Some(record) {
        return None;
    }
    let mut finalizers = finalizers(service);
    if !has_finalizer(service) {
        finalizers.push(FINALIZER);
    }
    let patch = json!({ "metadata": { "finalizers": finalizers, "annotations": { RECORD: record.text() } } });
    Some(ServicePatch { patch, precondition: at_version(service) })
}

/// Empties the status, before the load balancer that it shows goes: what is shown is nobody else's. `None`: it is empty.
pub(super) fn withdraw(service: &Service) -> Option<ServicePatch> {
    let patch = json!({ "status": { "loadBalancer": { "ingress": null } } });
    (!shows(service, &[])).then(|| ServicePatch { patch, precondition: at_version(service) })
}

/// Removes every trace of a load balancer that is gone. `None`: there is none.
pub(super) fn release(service: &Service) -> Option<ServicePatch> {
    let annotated = service.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(RECORD));
    if !has_finalizer(service) && !annotated && shows(service, &[]) {
        return None;
    }
    let mut finalizers = finalizers(service);
    finalizers.retain(|finalizer| *finalizer != FINALIZER);
    let patch = json!({
        "metadata": { "finalizers": finalizers, "annotations": { RECORD: null } },
        "status": { "loadBalancer": { "ingress": null } },
    });
    Some(ServicePatch { patch, precondition: at_version(service) })
}

/// Writes the record, if it is not what the Service carries, and the status, if there is one and it differs. `None`:
/// nothing to write.
pub(super) fn made(service: &Service, record: &Record, ingress: Option<&[Ingress]>) -> Option<ServicePatch> {
    let mut patch = Map::new();
    if Record::of(service).as_ref() != Some(record) {
        patch.insert("metadata".to_owned(), json!({ "annotations": { RECORD: record.text() } }));
    }
    if let Some(ingress) = ingress.filter(|ingress| !shows(service, ingress)) {
        patch.insert("status".to_owned(), json!({ "loadBalancer": { "ingress": points(ingress) } }));
    }
    let uid = service.metadata.uid.clone().unwrap_or_default();
    (!patch.is_empty())
        .then_some(ServicePatch { patch: Value::Object(patch), precondition: PatchPrecondition::Uid(uid) })
}

/// Whether the status shows exactly this.
pub(super) fn shows(service: &Service, ingress: &[Ingress]) -> bool {
    let shown = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let shown = shown.into_iter().flatten().map(|point| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        (text(&point.ip), text(&point.hostname), text(&point.ip_mode))
    });
    shown.eq(ingress.iter().map(|point| match &point.at {
        IngressPoint::Ip(address) => (address.to_string(), String::new(), mode(point).to_owned()),
        IngressPoint::Hostname(name) => (String::new(), name.clone(), String::new()),
    }))
}

/// The addresses that the status shows.
pub(super) fn shown_addresses(service: &Service) -> impl Iterator<Item = &str> {
    let shown = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    shown.into_iter().flatten().filter_map(|point| point.ip.as_deref())
}

/// What an event about a Service refers to.
pub(super) fn reference(namespace: &str, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

fn points(ingress: &[Ingress]) -> Vec<Value> {
    ingress
        .iter()
        .map(|point| match &point.at {
            IngressPoint::Ip(address) => json!({ "ip": address, "ipMode": mode(point) }),
            IngressPoint::Hostname(name) => json!({ "hostname": name }),
        })
        .collect()
}

fn mode(ingress: &Ingress) -> &'static str {
    if ingress.proxy_mode { "Proxy" } else { "VIP" }
}

fn finalizers(service: &Service) -> Vec<&str> {
    service.metadata.finalizers.iter().flatten().map(String::as_str).collect()
}

fn at_version(service: &Service) -> PatchPrecondition {
    PatchPrecondition::ResourceVersion {
        uid: service.metadata.uid.clone().unwrap_or_default(),
        resource_version: service.metadata.resource_version.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "json! makes values")]
    fn service(metadata: Value, ingress: Value) -> Service {
        let mut meta = json!({ "namespace": "a", "name": "web", "uid": "u", "resourceVersion": "7" });
        meta.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        serde_json::from_value(json!({ "metadata": meta, "status": { "loadBalancer": { "ingress": ingress } } }))
            .unwrap()
    }

    fn record() -> Record {
        Record { uid: "u".into(), provider: "sim".into(), ..Record::default() }
    }

    #[test]
    fn finalizers_of_others_stay() {
        let mine = service(json!({ "finalizers": ["x/y", FINALIZER] }), Value::Null);
        let theirs = service(json!({ "finalizers": ["x/y"] }), Value::Null);
        assert_eq!(claim(&theirs, &record()).unwrap().patch["metadata"]["finalizers"], json!(["x/y", FINALIZER]));
        assert_eq!(claim(&mine, &record()).unwrap().patch["metadata"]["finalizers"], json!(["x/y", FINALIZER]));
        let gone = release(&mine).unwrap();
        assert_eq!(gone.patch["metadata"], json!({ "finalizers": ["x/y"], "annotations": { RECORD: null } }));
        assert!(
            matches!(gone.precondition, PatchPrecondition::ResourceVersion { resource_version, .. } if resource_version == "7")
        );
    }

    #[test]
    fn only_what_differs_is_written() {
        let point = |at, proxy_mode| Ingress { at, proxy_mode };
        let address = point(IngressPoint::Ip("192.0.2.1".parse().unwrap()), false);
        let annotated = json!({ "annotations": { RECORD: record().text() } });
        let shown = service(annotated.clone(), json!([{ "ip": "192.0.2.1", "ipMode": "VIP" }]));
        assert_eq!(made(&shown, &record(), Some(std::slice::from_ref(&address))), None);
        let proxied = point(IngressPoint::Ip("192.0.2.1".parse().unwrap()), true);
        let patch = made(&shown, &record(), Some(&[proxied])).unwrap().patch;
        assert_eq!(
            patch,
            json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1", "ipMode": "Proxy" }] } } })
        );
        let bare = service(json!({}), Value::Null);
        assert_eq!(made(&bare, &record(), None).unwrap().patch, json!({ "metadata": annotated }));
        let name = point(IngressPoint::Hostname("lb.example.com".into()), false);
        let patch = made(&bare, &record(), Some(&[name])).unwrap().patch;
        assert_eq!(patch["status"]["loadBalancer"]["ingress"], json!([{ "hostname": "lb.example.com" }]));
    }
}
