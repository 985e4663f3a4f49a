//! Reading the audit log.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, PostParams};
use quarterdeck_it::audit::Stage;
use quarterdeck_it::{AuditPolicy, ControlPlane, shared};

use super::{LONG, config_map, refusal};

#[tokio::test]
async fn a_write_is_read_back_with_its_writer_body_and_version() {
    let control_plane = shared().await;
    control_plane.namespace("audit").await.unwrap();
    let mut audit = control_plane.audit_from_now().unwrap();
    let api: Api<ConfigMap> = Api::namespaced(control_plane.admin().await.unwrap(), "audit");
    let made = api.create(&PostParams::default(), &config_map("one", "1")).await.unwrap();
    let event =
        audit.wait_for("the write", LONG, |event| event.namespace() == "audit" && event.is_write()).await.unwrap();
    assert_eq!(event.stage, Stage::ResponseComplete);
    assert_eq!((event.verb.as_str(), event.code()), ("create", 201));
    assert_eq!((event.resource().as_str(), event.name()), ("configmaps", "one"));
    assert_eq!(event.acting_user(), "admin");
    assert_eq!(event.request_object.as_ref().unwrap()["data"]["value"], "1");
    let version = made.metadata.resource_version.unwrap().parse().ok();
    assert_eq!(event.response_version(), version);
}

#[tokio::test]
async fn refusals_and_reads_are_there_after_settling() {
    let control_plane = shared().await;
    control_plane.namespace("audit-reads").await.unwrap();
    let mut audit = control_plane.audit_from_now().unwrap();
    let nobody = control_plane.user("audit-nobody", &[]).await.unwrap();
    let api: Api<ConfigMap> = Api::namespaced(nobody, "audit-reads");
    assert_eq!(refusal(api.get("one").await), 403);
    control_plane.settle_audit().await.unwrap();
    let seen = audit.filter(|event| event.acting_user() == "audit-nobody").unwrap();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((seen[0].verb.as_str(), seen[0].code()), ("get", 403));
    assert!(!seen[0].succeeded() && !seen[0].is_write() && !seen[0].is_dry_run());
}

/// Writes a lease and returns whether its body is in the log.
async fn lease_body_is_kept(control_plane: &ControlPlane) -> bool {
    let mut audit = control_plane.audit_from_now().unwrap();
    let api: Api<Lease> = Api::namespaced(control_plane.admin().await.unwrap(), "default");
    let lease = Lease {
        metadata: ObjectMeta { name: Some("audited".to_owned()), ..Default::default() },
        spec: Some(LeaseSpec::default()),
    };
    api.create(&PostParams::default(), &lease).await.unwrap();
    let event = audit
        .wait_for("the lease", LONG, |event| {
            event.resource() == "leases.coordination.k8s.io" && event.namespace() == "default"
        })
        .await
        .unwrap();
    event.response_object.is_some()
}

#[tokio::test]
async fn bodies_of_leases_are_kept_on_demand() {
    assert!(!lease_body_is_kept(shared().await).await);
    let policy = AuditPolicy::default().with_bodies("coordination.k8s.io", "leases");
    let own = ControlPlane::builder().audit(policy).start().await.unwrap();
    assert!(lease_body_is_kept(&own).await);
}
