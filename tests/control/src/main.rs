//! An election by `kube-leader-election`, used as its README says: a background task tries to acquire or renew the Lease
//! and shares the outcome, and the application works while that says that it leads.
//!
//! The work is a slice for each service of a namespace, which follows the readiness of the service's pods, as those of an
//! endpointslice controller do. The split-brain test puts three of these in the place of quarterdeck's replicas and fails
//! unless its checker finds what they do to each other.
//!
//! Usage: `quarterdeck_control KUBECONFIG HOLDER NAMESPACE`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube_leader_election::{LeaseLock, LeaseLockParams, LeaseLockResult};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

/// The Lease that the split-brain test's checker looks at.
const LEASE: &str = "quarterdeck";
const LEASE_NAMESPACE: &str = "kube-system";
/// How long a lease lasts; the README asks to renew it three times in that time.
const LEASE_TTL: Duration = Duration::from_secs(6);
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// Between two rounds of work.
const WORK_EVERY: Duration = Duration::from_millis(50);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kubeconfig, holder, namespace] = &args[..] else {
        bail!("usage: quarterdeck_control KUBECONFIG HOLDER NAMESPACE")
    };
    let kubeconfig = Kubeconfig::read_from(kubeconfig).with_context(|| kubeconfig.clone())?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // Nothing in the environment of a test stands between it and its server.
    config.proxy_url = None;
    let client = kube::Client::try_from(config)?;

    let leads = Arc::new(AtomicBool::new(false));
    tokio::spawn(elect(client.clone(), holder.clone(), leads.clone()));
    let mut work = Work::new(&client, namespace, holder);
    let mut rounds = tokio::time::interval(WORK_EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        if let Err(error) = work.round(&leads).await {
            eprintln!("work: {error:#}");
        }
    }
}

/// The background task of the crate's example, to the letter: after an error it believes what it believed before.
async fn elect(client: kube::Client, holder_id: String, leads: Arc<AtomicBool>) {
    let params = LeaseLockParams { lease_name: LEASE.to_owned(), holder_id, lease_ttl: LEASE_TTL };
    let leadership = LeaseLock::new(client, LEASE_NAMESPACE, params);
    let mut tries = tokio::time::interval(RENEW_EVERY);
    tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tries.tick().await;
        match leadership.try_acquire_or_renew().await {
            Ok(result) => leads.store(matches!(result, LeaseLockResult::Acquired(_)), Ordering::Relaxed),
            Err(error) => eprintln!("election: {error}"),
        }
    }
}

/// What the leader does.
struct Work {
    holder: String,
    /// Rounds begun.
    rounds: u64,
    services: Api<Service>,
    pods: Api<Pod>,
    slices: Api<EndpointSlice>,
}

impl Work {
    fn new(client: &kube::Client, namespace: &str, holder: &str) -> Self {
        Self {
            holder: holder.to_owned(),
            rounds: 0,
            services: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client.clone(), namespace),
            slices: Api::namespaced(client.clone(), namespace),
        }
    }

    /// Writes the slice of every service. Asks before each whether we still lead, so that no write is later than it has to
    /// be.
    async fn round(&mut self, leads: &AtomicBool) -> Result<()> {
        if !leads.load(Ordering::Relaxed) {
            return Ok(());
        }
        let services = self.services.list(&ListParams::default()).await?;
        let pods = self.pods.list(&ListParams::default()).await?;
        let params = PatchParams::apply("control").force();
        self.rounds += 1;
        // A write that changes nothing leaves no trace.
        let mark = format!("{} {}", self.holder, self.rounds);
        for service in services.items.iter().filter_map(|service| service.metadata.name.as_deref()) {
            if !leads.load(Ordering::Relaxed) {
                break;
            }
            let slice = slice(service, &mark, &pods.items);
            self.slices.patch(service, &params, &Patch::Apply(slice)).await.with_context(|| service.to_owned())?;
        }
        Ok(())
    }
}

/// The slice of a service that selects its pods by `app=<name>`, with a mark of who wrote it.
fn slice(service: &str, mark: &str, pods: &[Pod]) -> Value {
    let of_service = |pod: &&Pod| {
        pod.metadata.labels.as_ref().and_then(|labels| labels.get("app")).is_some_and(|app| app == service)
    };
    let endpoints: Vec<Value> = pods.iter().filter(of_service).filter_map(endpoint).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": service,
            "labels": { "kubernetes.io/service-name": service },
            "annotations": { "quarterdeck.dev/control": mark },
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
    })
}

fn endpoint(pod: &Pod) -> Option<Value> {
    let status = pod.status.as_ref()?;
    let address = status.pod_ip.as_deref()?;
    let ready =
        status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    Some(json!({ "addresses": [address], "conditions": { "ready": ready } }))
}
