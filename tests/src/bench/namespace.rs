//! A namespace is deleted: how long until it is gone.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use crate::api::{Change, Http, seconds};
use crate::audit::Requests;
use crate::contestant::{Crew, Side};
use crate::report::{Collector, Goal, Report};
use crate::yard::Yard;

const OBJECTS_OF_A_KIND: usize = 100;

/// Measures an empty namespace and one with 1,000 objects of 10 kinds.
pub(crate) async fn run(yard: &mut Yard, report: &mut Report) -> Result<()> {
    let mut empty = Collector::new("empty namespace deleted → gone", "s", Goal::Ratio(0.2));
    let mut full = Collector::new("namespace with 1,000 objects of 10 kinds deleted → gone", "s", Goal::Ratio(0.4));
    let mut cpu = Collector::new("CPU for the one with 1,000 objects", "s", Goal::None);
    let mut requests = Collector::new("requests for the one with 1,000 objects", "requests", Goal::None);
    // The fence is proven when a replica begins to lead; the policy that was installed right before
    // does not see the new Lease yet, and unfenced objects are deleted one by one.
    start(yard, Side::Ours).await?.stop().await?;
    for round in 0..report.rounds(5) {
        for side in Side::both(round) {
            let crew = Crew::start(&yard.control_plane, &yard.http, side, &["namespace-controller"], 1, &[]).await?;
            // A first one shows that the controller has come to life.
            delete(yard, &format!("first-{round}-{}", side.title()), 0).await?;
            empty.add(side, delete(yard, &format!("empty-{round}-{}", side.title()), 0).await?);
            let name = format!("full-{round}-{}", side.title());
            let audit = yard.control_plane.audit_from_now()?;
            let before = crew.cpu()?;
            full.add(side, delete(yard, &name, OBJECTS_OF_A_KIND).await?);
            cpu.add(side, crew.cpu()? - before);
            let asked = Requests::since(&yard.control_plane, audit, side).await?;
            requests.add(side, asked.count(|event| event.request_uri.contains(&name)));
            crew.stop().await?;
        }
    }
    report.take("namespace", [empty, full, cpu, requests]);
    Ok(())
}

async fn start(yard: &Yard, side: Side) -> Result<Crew> {
    Crew::start(&yard.control_plane, &yard.http, side, &["namespace-controller"], 1, &[]).await
}

/// Makes a namespace with `each` objects of every kind, deletes it, and returns the seconds from the
/// answer to the deletion until it is gone.
async fn delete(yard: &Yard, name: &str, each: usize) -> Result<f64> {
    yard.control_plane.namespace(name).await?;
    let jobs = kinds(name).into_iter().flat_map(|(path, object)| {
        (0..each).map(move |index| {
            let mut object = object.clone();
            object["metadata"]["name"] = format!("thing-{index:03}").into();
            (path.clone(), object)
        })
    });
    let make = |http: Http, (path, object): (String, Value)| async move { http.create(&path, &object).await };
    yard.http.for_each(jobs, 32, make).await?;
    let mut watch = yard.http.watch(&format!("/api/v1/namespaces?fieldSelector=metadata.name%3D{name}")).await?;
    let begun = Instant::now();
    yard.http.delete(&format!("/api/v1/namespaces/{name}")).await?;
    let gone = watch.until("the namespace is gone", |seen| seen.change == Change::Deleted).await?;
    Ok(seconds(begun, gone.at))
}

/// Ten kinds: the path to create them at, and an object without a name.
fn kinds(namespace: &str) -> Vec<(String, Value)> {
    let pod = json!({ "containers": [{ "name": "main", "image": "registry.example.com/main:1" }] });
    let template = json!({ "metadata": { "labels": { "app": "thing" } }, "spec": pod });
    let workload = json!({
        "metadata": {}, "spec": { "replicas": 0, "selector": { "matchLabels": { "app": "thing" } }, "template": template },
    });
    let plain = |object: Value| {
        let mut object = object;
        object["metadata"] = json!({});
        object
    };
    let kinds = [
        ("api/v1", "configmaps", plain(json!({ "data": { "key": "value" } }))),
        ("api/v1", "secrets", plain(json!({ "stringData": { "key": "value" } }))),
        ("api/v1", "serviceaccounts", plain(json!({}))),
        ("api/v1", "services", plain(json!({ "spec": { "ports": [{ "port": 80 }] } }))),
        ("api/v1", "pods", plain(json!({ "spec": pod }))),
        ("apis/apps/v1", "deployments", workload.clone()),
        ("apis/apps/v1", "replicasets", workload),
        ("apis/rbac.authorization.k8s.io/v1", "roles", plain(json!({ "rules": [] }))),
        (
            "apis/rbac.authorization.k8s.io/v1",
            "rolebindings",
            plain(
                json!({ "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "thing-000" } }),
            ),
        ),
        ("apis/coordination.k8s.io/v1", "leases", plain(json!({ "spec": {} }))),
    ];
    kinds
        .into_iter()
        .map(|(group, plural, object)| (format!("/{group}/namespaces/{namespace}/{plural}"), object))
        .collect()
}
