//! An election by `kube-leader-election`, used as its README says: a background task tries to acquire or renew the Lease
//! and shares the outcome, and the application works while that says that it leads.
//!
//! The work is a slice for each service of a namespace, which follows the readiness of the service's pods, as those of an
//! endpointslice controller do: read from a cache, written while leading. The split-brain test puts three of these in the
//! place of quarterdeck's replicas and fails unless its checker finds what they do to each other.
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
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};

/// The Lease that the split-brain test's checker looks at.
const LEASE: &str = "quarterdeck";
const LEASE_NAMESPACE: &str = "kube-system";
/// How long a lease lasts; the README asks to renew it three times in that time.
const LEASE_TTL: Duration = Duration::from_secs(6);
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How often the cache is filled.
const READ_EVERY: Duration = Duration::from_millis(100);
/// Between two writes.
const WRITE_EVERY: Duration = Duration::from_millis(10);

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
    let (sender, cache) = watch::channel(Vec::new());
    tokio::spawn(read(client.clone(), namespace.clone(), sender));
    work(client, namespace, holder, &leads, cache).await
}

/// The background task, as in the crate's example `shared-lease`: after an error it believes what it believed before.
async fn elect(client: kube::Client, holder_id: String, leads: Arc<AtomicBool>) {
    let params = LeaseLockParams { lease_name: LEASE.to_owned(), holder_id, lease_ttl: LEASE_TTL };
    let leadership = LeaseLock::new(client, LEASE_NAMESPACE, params);
    let mut tries = every(RENEW_EVERY);
    loop {
        tries.tick().await;
        match leadership.try_acquire_or_renew().await {
            Ok(result) => leads.store(matches!(result, LeaseLockResult::Acquired(_)), Ordering::Relaxed),
            Err(error) => eprintln!("election: {error}"),
        }
    }
}

/// What a slice is made of: the name of a service, and its endpoints.
type Wanted = (String, Vec<Value>);

/// Keeps a cache warm, whoever leads.
async fn read(client: kube::Client, namespace: String, cache: watch::Sender<Vec<Wanted>>) {
    let mut rounds = every(READ_EVERY);
    let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    loop {
        rounds.tick().await;
        let all = ListParams::default();
        match tokio::try_join!(services.list(&all), pods.list(&all)) {
            Ok((services, pods)) => {
                let names = services.items.into_iter().filter_map(|service| service.metadata.name);
                let wanted = names.map(|name| (name.clone(), endpoints(&name, &pods.items)));
                cache.send_replace(wanted.collect());
            }
            Err(error) => eprintln!("read: {error}"),
        }
    }
}

/// Writes the slice of every service again and again. Asks before each write whether we still lead, so that none is later
/// than it has to be.
async fn work(
    client: kube::Client,
    namespace: &str,
    holder: &str,
    leads: &AtomicBool,
    cache: watch::Receiver<Vec<Wanted>>,
) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::namespaced(client, namespace);
    let params = PatchParams::apply("control").force();
    let mut pace = every(WRITE_EVERY);
    for round in 0_u64.. {
        pace.tick().await;
        let wanted = cache.borrow().clone();
        for (service, endpoints) in wanted {
            pace.tick().await;
            if !leads.load(Ordering::Relaxed) {
                break;
            }
            // A write that changes nothing leaves no trace.
            let slice = slice(&service, &endpoints, &format!("{holder} {round}"));
            if let Err(error) = slices.patch(&service, &params, &Patch::Apply(slice)).await {
                eprintln!("write: {error}");
            }
        }
    }
    Ok(())
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn slice(service: &str, endpoints: &[Value], mark: &str) -> Value {
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

/// Of the pods that a service selects by `app=<name>`.
fn endpoints(service: &str, pods: &[Pod]) -> Vec<Value> {
    let selects =
        |pod: &Pod| pod.metadata.labels.as_ref().and_then(|labels| labels.get("app")).is_some_and(|app| app == service);
    pods.iter().filter(|pod| selects(pod)).filter_map(endpoint).collect()
}

fn endpoint(pod: &Pod) -> Option<Value> {
    let status = pod.status.as_ref()?;
    let address = status.pod_ip.as_deref()?;
    let ready =
        status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    Some(json!({ "addresses": [address], "conditions": { "ready": ready } }))
}
