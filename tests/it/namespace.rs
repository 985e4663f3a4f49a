//! Namespaces that are being deleted, on a real server.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::Request;
use quarterdeck_it::audit::Event;
use quarterdeck_it::{ControlPlane, Deck, eventually};
use serde_json::{Value, json};

/// Time that anything gets on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
const ARGS: [&str; 4] = [
    "--controllers=namespace-controller",
    "--leader-elect-lease-duration=4s",
    "--leader-elect-renew-deadline=3s",
    "--leader-elect-retry-period=500ms",
];
const CONDITIONS: [&str; 5] = [
    "NamespaceContentRemaining",
    "NamespaceDeletionContentFailure",
    "NamespaceDeletionDiscoveryFailure",
    "NamespaceDeletionGroupVersionParsingFailure",
    "NamespaceFinalizersRemaining",
];

/// A server where one replica removes namespaces.
struct Yard {
    // Dropped first: a replica without a server fills its log.
    _deck: Deck,
    control_plane: ControlPlane,
    client: kube::Client,
}

impl Yard {
    async fn open() -> Result<Self> {
        let control_plane = ControlPlane::start().await?;
        let deck = Deck::builder(&control_plane).replicas(1).args(ARGS).start().await?;
        let client = control_plane.admin().await?;
        Ok(Self { _deck: deck, control_plane, client })
    }

    async fn send(&self, method: &str, path: &str, body: Value) -> Result<Value> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.client.request(request.body(body)?).await.with_context(|| format!("{method} {path}"))
    }

    /// Creates an object, as soon as its kind is served.
    async fn create(&self, path: &str, object: Value) -> Result<()> {
        eventually(&format!("{path} takes an object"), PATIENCE, async || {
            self.send("POST", path, object.clone()).await.map(drop)
        })
        .await
    }

    /// The object; none if it is not there.
    async fn get(&self, path: &str) -> Result<Option<Value>> {
        match self.send("GET", path, Value::Null).await {
            Ok(object) => Ok(Some(object)),
            Err(error) => match error.downcast_ref::<kube::Error>() {
                Some(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                _ => Err(error),
            },
        }
    }

    async fn gone(&self, path: &str) -> Result<()> {
        eventually(&format!("{path} is gone"), PATIENCE, async || match self.get(path).await? {
            None => Ok(()),
            Some(object) => bail!("{object}"),
        })
        .await
    }

    /// Waits until a namespace's conditions are these: type, status, and part of the message.
    async fn says(&self, namespace: &str, wanted: &[(&str, &str, &str)]) -> Result<()> {
        eventually(&format!("the conditions of {namespace} are {wanted:?}"), PATIENCE, async || {
            let object = self.get(&format!("/api/v1/namespaces/{namespace}")).await?.context("it is gone")?;
            let conditions = object["status"]["conditions"].as_array().context("no conditions")?;
            let mut types: Vec<_> = conditions.iter().filter_map(|condition| condition["type"].as_str()).collect();
            types.sort_unstable();
            ensure!(types == CONDITIONS, "{types:?}");
            for (name, status, message) in wanted {
                let condition = conditions.iter().find(|condition| condition["type"] == *name);
                let condition = condition.context("all five are there")?;
                let says = condition["message"].as_str().unwrap_or_default();
                ensure!(condition["status"] == *status && says.contains(message), "{condition}");
            }
            Ok(())
        })
        .await
    }

    /// Waits for an event about a namespace that says all of this.
    async fn told(&self, namespace: &str, parts: &[&str]) -> Result<()> {
        eventually(&format!("an event says {parts:?}"), PATIENCE, async || {
            let path = "/api/v1/events?fieldSelector=reason=DeletionBlocked,involvedObject.kind=Namespace";
            let events = self.send("GET", path, Value::Null).await?;
            let events = events["items"].as_array().context("no list")?;
            let ours = events.iter().filter(|event| event["involvedObject"]["name"] == namespace);
            let messages: Vec<&str> = ours.filter_map(|event| event["message"].as_str()).collect();
            ensure!(messages.iter().any(|message| parts.iter().all(|part| message.contains(part))), "{messages:#?}");
            Ok(())
        })
        .await
    }
}

/// Fills a namespace with objects of several groups; answers the paths of those that wait for nothing.
async fn fill(yard: &Yard, namespace: &str) -> Result<Vec<String>> {
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "buoys.example.org" },
        "spec": {
            "group": "example.org", "scope": "Namespaced",
            "names": { "plural": "buoys", "singular": "buoy", "kind": "Buoy", "listKind": "BuoyList" },
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object" } },
            }],
        },
    });
    yard.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd).await?;
    let template = json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "main", "image": "none" }] },
    });
    let deployment = json!({ "selector": { "matchLabels": { "app": "web" } }, "template": template });
    let objects = [
        ("/api/v1", "configmaps", json!({})),
        ("/api/v1", "secrets", json!({})),
        ("/apis/apps/v1", "deployments", json!({ "spec": deployment })),
        ("/apis/rbac.authorization.k8s.io/v1", "roles", json!({})),
        ("/apis/coordination.k8s.io/v1", "leases", json!({})),
        ("/apis/example.org/v1", "buoys", json!({ "apiVersion": "example.org/v1", "kind": "Buoy" })),
    ];
    let mut paths = Vec::new();
    for (group, kind, mut object) in objects {
        object["metadata"] = json!({ "name": "plain" });
        let path = format!("{group}/namespaces/{namespace}/{kind}");
        yard.create(&path, object).await?;
        paths.push(format!("{path}/plain"));
    }
    Ok(paths)
}

/// Pods go first; what a finalizer holds is named; the rest goes; and all goes when the finalizer does.
async fn a_finalizer_is_waited_for(yard: &Yard) -> Result<()> {
    let namespace = "harbour";
    yard.control_plane.namespace(namespace).await?;
    let core = format!("/api/v1/namespaces/{namespace}");
    let plain = fill(yard, namespace).await?;
    let held = format!("{core}/configmaps/held");
    let map = json!({ "metadata": { "name": "held", "finalizers": ["example.org/hold"] } });
    yard.create(&format!("{core}/configmaps"), map).await?;
    // On a node it ends gracefully, and nobody is there to end it.
    let pod = json!({
        "metadata": { "name": "pod" },
        "spec": {
            "nodeName": "nowhere", "terminationGracePeriodSeconds": 3600,
            "containers": [{ "name": "main", "image": "none" }],
        },
    });
    yard.create(&format!("{core}/pods"), pod).await?;

    let mut audit = yard.control_plane.audit_from_now()?;
    yard.send("DELETE", &core, Value::Null).await?;
    // While the pod ends, the conditions tell of it and of all the rest.
    let draining = [
        ("NamespaceContentRemaining", "True", "pods. has 1 resource instances"),
        ("NamespaceContentRemaining", "True", "buoys.example.org has 1 resource instances"),
        ("NamespaceContentRemaining", "True", "configmaps. has 2 resource instances"),
        ("NamespaceFinalizersRemaining", "True", "example.org/hold in 1 resource instances"),
        ("NamespaceDeletionContentFailure", "False", ""),
        ("NamespaceDeletionDiscoveryFailure", "False", ""),
        ("NamespaceDeletionGroupVersionParsingFailure", "False", ""),
    ];
    yard.says(namespace, &draining).await?;
    yard.told(namespace, &["finalizer example.org/hold on ", "configmaps"]).await?;
    for path in &plain {
        let object = yard.get(path).await?.with_context(|| format!("{path} went before the pod"))?;
        ensure!(object["metadata"]["deletionTimestamp"].is_null(), "{object}");
    }

    let pod = format!("{core}/pods/pod");
    yard.send("DELETE", &pod, json!({ "gracePeriodSeconds": 0 })).await?;
    for path in &plain {
        yard.gone(path).await?;
    }
    let held_only = [
        ("NamespaceContentRemaining", "True", "Some resources are remaining: configmaps. has 1 resource instances"),
        ("NamespaceFinalizersRemaining", "True", "example.org/hold in 1 resource instances"),
        ("NamespaceDeletionContentFailure", "False", ""),
    ];
    yard.says(namespace, &held_only).await?;
    ensure!(yard.get(&held).await?.is_some_and(|map| !map["metadata"]["deletionTimestamp"].is_null()), "not deleting");
    yard.control_plane.settle_audit().await?;
    let deletes = audit.filter(|event: &Event| {
        let content = event.namespace() == namespace && event.resource() != "namespaces";
        event.verb.starts_with("delete") && content && event.succeeded() && !event.is_dry_run()
    })?;
    let ended = deletes.iter().rposition(|event| event.resource() == "pods" && event.name() == "pod");
    let ended = ended.context("nobody ended the pod")?;
    ensure!(deletes.len() > ended + 1, "nothing was deleted after the pod");
    let early = deletes[..ended].iter().filter(|event| event.resource() != "pods");
    let early: Vec<&str> = early.map(|event| event.request_uri.as_str()).collect();
    ensure!(early.is_empty(), "deleted before the pod had gone: {early:?}");

    yard.send("PATCH", &held, json!({ "metadata": { "finalizers": null } })).await?;
    yard.gone(&core).await
}

/// A namespace that somebody else holds, too, is emptied, tells that it is, and is left to them.
async fn somebody_elses_finalizer_is_left_alone(yard: &Yard) -> Result<()> {
    let namespace = "annex";
    yard.control_plane.namespace(namespace).await?;
    let path = format!("/api/v1/namespaces/{namespace}");
    let finalize = async |finalizers: Value| {
        let mut object = yard.get(&path).await?.context("it is gone")?;
        object["spec"]["finalizers"] = finalizers;
        yard.send("PUT", &format!("{path}/finalize"), object).await
    };
    finalize(json!(["kubernetes", "example.org/hold"])).await?;
    let map = format!("{path}/configmaps/map");
    yard.create(&format!("{path}/configmaps"), json!({ "metadata": { "name": "map" } })).await?;
    yard.send("DELETE", &path, Value::Null).await?;
    yard.gone(&map).await?;
    yard.says(namespace, &CONDITIONS.map(|condition| (condition, "False", ""))).await?;
    eventually("our finalizer is off", PATIENCE, async || {
        let object = yard.get(&path).await?.context("it is gone")?;
        ensure!(object["spec"]["finalizers"] == json!(["example.org/hold"]), "{object}");
        ensure!(object["status"]["phase"] == "Terminating", "{object}");
        Ok(())
    })
    .await?;
    // The object may change under us: the server compares versions.
    eventually("theirs is off", PATIENCE, async || finalize(json!([])).await.map(drop)).await?;
    yard.gone(&path).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_goes_pods_first_and_finalizers_are_waited_for() -> Result<()> {
    let yard = Yard::open().await?;
    tokio::try_join!(a_finalizer_is_waited_for(&yard), somebody_elses_finalizer_is_left_alone(&yard))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_api_keeps_the_namespace_and_stops_nothing_else() -> Result<()> {
    let yard = Yard::open().await?;
    let api = "/apis/apiregistration.k8s.io/v1/apiservices";
    let broken = json!({
        "metadata": { "name": "v1.broken.example.org" },
        "spec": {
            "group": "broken.example.org", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 10,
            "insecureSkipTLSVerify": true, "service": { "namespace": "default", "name": "nothing" },
        },
    });
    yard.create(api, broken).await?;
    let broken = format!("{api}/v1.broken.example.org");
    eventually("the server knows that it is broken", PATIENCE, async || {
        let object = yard.get(&broken).await?.context("it is gone")?;
        let conditions = object["status"]["conditions"].as_array().context("no conditions yet")?;
        ensure!(conditions.iter().any(|condition| condition["status"] == "False"), "{conditions:?}");
        Ok(())
    })
    .await?;

    let namespace = "wharf";
    yard.control_plane.namespace(namespace).await?;
    let core = format!("/api/v1/namespaces/{namespace}");
    let plain = fill(&yard, namespace).await?;
    yard.send("DELETE", &core, Value::Null).await?;
    for path in &plain {
        yard.gone(path).await?;
    }
    let all_but_one = [
        ("NamespaceDeletionDiscoveryFailure", "True", "broken.example.org/v1"),
        ("NamespaceDeletionGroupVersionParsingFailure", "False", ""),
        ("NamespaceDeletionContentFailure", "False", ""),
        ("NamespaceContentRemaining", "False", ""),
        ("NamespaceFinalizersRemaining", "False", ""),
    ];
    yard.says(namespace, &all_but_one).await?;
    yard.told(namespace, &["API group broken.example.org/v1 does not answer"]).await?;
    // Another namespace waits for the same, not for this one.
    yard.control_plane.namespace("quay").await?;
    yard.send("DELETE", "/api/v1/namespaces/quay", Value::Null).await?;
    yard.says("quay", &all_but_one).await?;

    yard.send("DELETE", &broken, Value::Null).await?;
    yard.gone(&core).await?;
    yard.gone("/api/v1/namespaces/quay").await
}
