//! Something to do for the controllers at all times: pods that become ready and unready, and slices that come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use quarterdeck_it::{ControlPlane, eventually};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::LONG;

/// Services, each with one pod.
pub(super) const SERVICES: usize = 10;
/// Pause between two flips: about as many as the replicas may write.
const PACE: Duration = Duration::from_millis(20);
/// Time for an answer, before the other server is asked.
const ANSWER: Duration = Duration::from_secs(2);

/// The pods, and the task that changes them.
pub(super) struct Load {
    running: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    _task: AbortOnDropHandle<()>,
}

impl Load {
    /// Makes nodes, services and pods, and starts to change them.
    pub(super) async fn start(control_plane: &ControlPlane, namespace: &str) -> Result<Self> {
        control_plane.namespace(namespace).await?;
        let mut clients = Vec::new();
        for server in 0..control_plane.apiservers().len() {
            clients.push(control_plane.admin_at(server).await?);
        }
        let first = Objects::new(&clients[0], namespace);
        create(&first.nodes, json!({ "metadata": { "name": "node" } })).await?;
        for number in 0..SERVICES {
            create(&first.services, service(&format!("s{number}"), &json!(8080))).await?;
            first.pod(&format!("p{number}"), &format!("s{number}"), 8080, number).await?;
        }
        // Two pods that name the port differently: a slice for each, one of which comes and goes.
        create(&first.services, service("churn", &json!("http"))).await?;
        first.pod("stays", "churn", 8080, 100).await?;
        let (running, rounds) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let task = tokio::spawn(change(
            clients.iter().map(|client| Objects::new(client, namespace)).collect(),
            running.clone(),
            rounds.clone(),
        ));
        Ok(Self { running, rounds, _task: AbortOnDropHandle::new(task) })
    }

    /// Lets the pods alone until [`Load::resume`].
    pub(super) fn pause(&self) {
        self.running.store(false, Ordering::SeqCst);
    }

    /// Goes on.
    pub(super) fn resume(&self) {
        self.running.store(true, Ordering::SeqCst);
    }

    /// Returns when every pod has changed twice from now on.
    pub(super) async fn two_rounds(&self) -> Result<()> {
        let before = self.rounds.load(Ordering::SeqCst);
        eventually("every pod changes", LONG, async || {
            let rounds = self.rounds.load(Ordering::SeqCst) - before;
            ensure!(rounds > 2, "{rounds} rounds");
            Ok(())
        })
        .await
    }
}

struct Objects {
    nodes: Api<Node>,
    services: Api<Service>,
    pods: Api<Pod>,
}

impl Objects {
    fn new(client: &kube::Client, namespace: &str) -> Self {
        Self {
            nodes: Api::all(client.clone()),
            services: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client.clone(), namespace),
        }
    }

    async fn pod(&self, name: &str, app: &str, port: u16, number: usize) -> Result<()> {
        let pod = json!({
            "metadata": { "name": name, "labels": { "app": app } },
            "spec": {
                "nodeName": "node",
                "terminationGracePeriodSeconds": 0,
                "containers": [{ "name": "c", "image": "none", "ports": [{ "name": "http", "containerPort": port }] }],
            },
        });
        create(&self.pods, pod).await?;
        self.set_ready(name, number, true).await
    }

    async fn make(&self, change: &Change) -> Result<()> {
        match change {
            Change::Ready(number, ready) => self.set_ready(&format!("p{number}"), *number, *ready).await,
            Change::Come => self.pod("comes", "churn", 9090, 101).await,
            Change::Go => {
                self.pods.delete("comes", &DeleteParams::default().grace_period(0)).await?;
                Ok(())
            }
        }
    }

    async fn set_ready(&self, name: &str, number: usize, ready: bool) -> Result<()> {
        let address = format!("10.1.0.{}", number + 1);
        let status = json!({ "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{ "ip": address }],
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
        }});
        self.pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }
}

/// What happens to a pod.
enum Change {
    /// The pod of a service becomes ready or unready.
    Ready(usize, bool),
    /// Another pod of the service whose slices come and go.
    Come,
    /// That pod goes.
    Go,
}

/// Changes one pod after the other for ever, through whichever server answers.
async fn change(servers: Vec<Objects>, running: Arc<AtomicBool>, rounds: Arc<AtomicU64>) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0_u64.. {
        let ready = round.is_multiple_of(2);
        for number in 0..SERVICES {
            loop {
                pace.tick().await;
                if !running.load(Ordering::SeqCst) {
                    continue;
                }
                if anywhere(&servers, &Change::Ready(number, ready)).await {
                    break;
                }
            }
        }
        // A pod that comes and goes; a server that is down is met in the next round.
        anywhere(&servers, if ready { &Change::Come } else { &Change::Go }).await;
        rounds.fetch_add(1, Ordering::SeqCst);
    }
}

/// Asks one server after the other until one has done it.
async fn anywhere(servers: &[Objects], change: &Change) -> bool {
    for server in servers {
        if tokio::time::timeout(ANSWER, server.make(change)).await.is_ok_and(|done| done.is_ok()) {
            return true;
        }
    }
    false
}

fn service(name: &str, target: &Value) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "selector": { "app": name }, "ports": [{ "port": 80, "targetPort": target }] },
    })
}

async fn create<K>(api: &Api<K>, object: Value) -> Result<()>
where
    K: Clone + std::fmt::Debug + serde::Serialize + DeserializeOwned,
{
    let object = serde_json::from_value(object)?;
    api.create(&PostParams::default(), &object).await.map(drop).context("making the load")
}
