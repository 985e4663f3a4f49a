//! A control plane, a made-up cloud, and replicas that look after the load balancers of Services.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::Request;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use quarterdeck_it::cloud::Balancer;
use quarterdeck_it::{CloudSim, ControlPlane, Deck, eventually};
use serde_json::{Value, json};

/// Time that anything gets on a loaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Namespace of the tests' Services.
pub(super) const NAMESPACE: &str = "harbour";

/// A control plane, a made-up cloud, and replicas.
pub(super) struct Yard {
    // Dropped first: a replica without a server fills its log.
    pub(super) deck: Deck,
    pub(super) cloud: CloudSim,
    pub(super) control_plane: ControlPlane,
    pub(super) client: kube::Client,
}

/// Flags of replicas that use this cloud.
pub(super) fn flags(cloud: &CloudSim, more: &[&str]) -> Vec<String> {
    let mut args = vec![
        format!("--cloud-provider=sim=grpc:{}", cloud.uri()),
        "--controllers=service-lb-controller".to_owned(),
        "--leader-elect-lease-duration=4s".to_owned(),
        "--leader-elect-renew-deadline=3s".to_owned(),
        "--leader-elect-retry-period=500ms".to_owned(),
        "--load-balancer-audit-period=1s".to_owned(),
        "--load-balancer-orphan-grace=1s".to_owned(),
    ];
    args.extend(more.iter().map(ToString::to_string));
    args
}

impl Yard {
    /// Opens one.
    pub(super) async fn open(control_plane: ControlPlane, cloud: CloudSim, replicas: usize) -> Result<Self> {
        let deck = deck(&control_plane, &cloud, replicas, &[]).await?;
        let client = control_plane.admin().await?;
        control_plane.namespace(NAMESPACE).await?;
        Ok(Self { deck, cloud, control_plane, client })
    }

    pub(super) async fn send(&self, method: &str, path: &str, body: Value) -> Result<Value> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.client.request(request.body(body)?).await.with_context(|| format!("{method} {path}"))
    }

    /// Makes a Service; answers its uid.
    pub(super) async fn create(&self, name: &str, annotations: Value, spec: Value) -> Result<String> {
        let mut whole = json!({ "type": "LoadBalancer", "ports": [{ "name": "main", "port": 80 }] });
        whole.as_object_mut().context("a map")?.extend(spec.as_object().context("a map")?.clone());
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "annotations": annotations }, "spec": whole,
        });
        let path = format!("/api/v1/namespaces/{NAMESPACE}/services");
        let made = self.send("POST", &path, service).await?;
        Ok(made["metadata"]["uid"].as_str().context("a uid")?.to_owned())
    }

    /// Makes a node, or changes its labels.
    pub(super) async fn node(&self, name: &str, labels: Value) -> Result<()> {
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels } });
        let api: Api<Node> = Api::all(self.client.clone());
        api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(node)).await?;
        Ok(())
    }

    pub(super) async fn patch(&self, name: &str, patch: Value) -> Result<Value> {
        self.send("PATCH", &path(name), patch).await
    }

    pub(super) async fn delete(&self, name: &str) -> Result<()> {
        self.send("DELETE", &path(name), Value::Null).await.map(drop)
    }

    /// The object; none if it is not there.
    pub(super) async fn get(&self, path: &str) -> Result<Option<Value>> {
        match self.send("GET", path, Value::Null).await {
            Ok(object) => Ok(Some(object)),
            Err(error) => match error.downcast_ref::<kube::Error>() {
                Some(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                _ => Err(error),
            },
        }
    }

    pub(super) async fn service(&self, name: &str) -> Result<Value> {
        self.get(&path(name)).await?.with_context(|| format!("there is no Service {name}"))
    }

    pub(super) async fn gone(&self, path: &str) -> Result<()> {
        eventually(&format!("{path} is gone"), PATIENCE, async || match self.get(path).await? {
            None => Ok(()),
            Some(object) => bail!("{object}"),
        })
        .await
    }

    /// Waits until a Service's status shows addresses, and answers them.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<String>> {
        eventually(&format!("{name} has an address"), PATIENCE, async || {
            let service = self.service(name).await?;
            let shown = shown(&service);
            ensure!(!shown.is_empty(), "{service}");
            Ok(shown)
        })
        .await
    }

    /// Waits until the one load balancer of a Service is so.
    pub(super) async fn balancer(&self, uid: &str, what: &str, check: impl Fn(&Balancer) -> bool) -> Result<Balancer> {
        eventually(what, PATIENCE, async || {
            let mut all = self.cloud.balancers_of(uid).await?;
            match all.pop() {
                Some(one) if all.is_empty() && check(&one) => Ok(one),
                one => bail!("{one:?} {all:?}"),
            }
        })
        .await
    }

    /// Waits for an event about a Service.
    pub(super) async fn told(&self, name: &str, reason: &str, part: &str) -> Result<()> {
        eventually(&format!("{name} is told {reason} {part}"), PATIENCE, async || {
            let path = format!("/api/v1/namespaces/{NAMESPACE}/events?fieldSelector=involvedObject.name={name}");
            let events = self.send("GET", &path, Value::Null).await?;
            let all: Vec<_> = events["items"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|event| (&event["reason"], &event["message"]))
                .collect();
            let says = |(is, message): &(&Value, &Value)| {
                *is == reason && message.as_str().is_some_and(|message| message.contains(part))
            };
            ensure!(all.iter().any(says), "{all:?}");
            Ok(())
        })
        .await
    }

    /// The ends of the replicas' logs.
    pub(super) fn log(&self) -> String {
        let mut text = String::new();
        for replica in self.deck.replicas() {
            let log = replica.process().log_text();
            let lines: Vec<&str> = log.lines().collect();
            text += &format!("a replica's log ends:\n{}\n", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        text
    }

    /// Waits until a metric of the leader has this value.
    pub(super) async fn metric(&self, name: &str, value: f64) -> Result<()> {
        eventually(&format!("{name} is {value}"), PATIENCE, async || {
            let leader = self.deck.leader(PATIENCE).await?;
            let found = self.deck.replica(leader).metric(name, &[("provider", "sim")]).await?;
            ensure!((found - value).abs() < f64::EPSILON, "{found}");
            Ok(())
        })
        .await
    }
}

/// Replicas that use this cloud.
pub(super) async fn deck(
    control_plane: &ControlPlane,
    cloud: &CloudSim,
    replicas: usize,
    more: &[&str],
) -> Result<Deck> {
    let args = flags(cloud, more);
    let install = [args[0].clone(), args[1].clone()];
    Deck::builder(control_plane).replicas(replicas).args(args).install_args(install).start().await
}

/// Path of a Service.
pub(super) fn path(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/services/{name}")
}

/// The addresses or names that a Service's status shows.
pub(super) fn shown(service: &Value) -> Vec<String> {
    let points = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
    let text = |point: &Value| point["ip"].as_str().or(point["hostname"].as_str()).map(str::to_owned);
    points.iter().filter_map(text).collect()
}
