//! The cluster: informers of what is wanted, the Lease by which the agent is seen to live, and its report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use quarterdeck_api::cloud::metal::{AGENTS_NAMESPACE, AgentStatus, MetalAgent, MetalLoadBalancer, MetalRoute};
use quarterdeck_runtime::client::Clients;
use quarterdeck_runtime::client::Identity;
use quarterdeck_runtime::informer::{Change, Informers, Lister, Selection, State};
use quarterdeck_runtime::object::{Cached, Kind, ObjectKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::{Followed, Told};
use crate::desired::{Now, ObjectId, ObjectKind, Snapshot};

/// Changes that come within this time are taken together.
const SETTLE: Duration = Duration::from_millis(20);
/// Reports are written at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// A request that has no answer by then is given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// After an error, reports wait this long.
const RETRY: Duration = Duration::from_secs(5);

/// An object whose spec nobody has looked at: one that cannot be understood must not look as if it were gone.
#[derive(Debug, Deserialize)]
struct Loose {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
}

impl Cached for Loose {
    fn key(&self) -> ObjectKey {
        ObjectKey::cluster(self.metadata.name.as_deref().unwrap_or_default())
    }

    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn resource_version(&self) -> &str {
        self.metadata.resource_version.as_deref().unwrap_or_default()
    }

    fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn each_label(&self, visit: &mut dyn FnMut(&str, &str)) {
        for (key, value) in self.metadata.labels.iter().flatten() {
            visit(key, value);
        }
    }

    fn trim(&mut self) {
        self.metadata.managed_fields = None;
    }
}

/// Objects that changed, with whether the server said itself that one was deleted; and since when there are any.
type Changed = (BTreeMap<ObjectId, bool>, Option<Instant>);

/// Follows the cluster: tells a complete state first, then what changes. Tells nothing before both kinds have been read
/// whole; errors leave everything as it is.
pub async fn follow(clients: Clients, tell: mpsc::Sender<Told>) {
    let informers = Informers::new().reading_as(Identity::Manager);
    let balancers: Lister<Loose> = informers.dynamic(Kind::of::<MetalLoadBalancer>(), Selection::default());
    let routes: Lister<Loose> = informers.dynamic(Kind::of::<MetalRoute>(), Selection::default());
    let changed: Arc<(Mutex<Changed>, Notify)> = Arc::default();
    for (kind, lister) in [(ObjectKind::Balancer, &balancers), (ObjectKind::Route, &routes)] {
        let changed = Arc::clone(&changed);
        lister.on_change(move |change| {
            let (waiting, notify) = &*changed;
            let mut waiting = waiting.lock();
            let deleted = matches!(change, Change::Deleted { is_final: true, .. });
            let name = change.object().metadata.name.clone().unwrap_or_default();
            waiting.0.insert(ObjectId { kind, name }, deleted);
            waiting.1.get_or_insert_with(Instant::now);
            notify.notify_one();
        });
    }
    informers.start(Arc::new(clients), tokio::runtime::Handle::current());
    let mut told_before = None;
    while !(balancers.has_synced() && routes.has_synced()) {
        let refusal = balancers.refusal().or_else(|| routes.refusal());
        if refusal != told_before
            && let Some(refusal) = refusal.clone()
            && tell.send(Told::Nothing(refusal)).await.is_err()
        {
            return;
        }
        told_before = refusal;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let now = |id: &ObjectId, deleted: bool| {
        let lister = if id.kind == ObjectKind::Balancer { &balancers } else { &routes };
        let absent = if deleted { Now::Gone } else { Now::Missing };
        lister.get(&ObjectKey::cluster(id.name.as_str())).map_or(absent, |object| understand(id.kind, &object))
    };
    let both = [balancers.clone(), routes.clone()];
    let followed: Followed = Arc::new(move || {
        both.iter().map(Lister::status).map(|status| (status.state == State::Watching).then_some(status.relists)).sum()
    });
    // What changes from here on is told again, which does no harm.
    *changed.0.lock() = Changed::default();
    let mut snapshot = Snapshot::default();
    for (kind, lister) in [(ObjectKind::Balancer, &balancers), (ObjectKind::Route, &routes)] {
        for object in lister.all() {
            let id = ObjectId { kind, name: object.metadata.name.clone().unwrap_or_default() };
            super::add(&mut snapshot, id, understand(kind, &object));
        }
    }
    let mut told = Told::Cluster(snapshot, followed);
    loop {
        if tell.send(told).await.is_err() {
            return;
        }
        // The first of several is told at once, and the others together.
        let settled = Instant::now() + SETTLE;
        changed.1.notified().await;
        tokio::time::sleep_until(settled).await;
        let (ids, since) = std::mem::take(&mut *changed.0.lock());
        let changes = ids.into_iter().map(|(id, deleted)| (now(&id, deleted), id)).map(|(now, id)| (id, now)).collect();
        told = Told::Changes(changes, since.unwrap_or(settled));
    }
}

fn understand(kind: ObjectKind, object: &Loose) -> Now {
    super::read(kind, object.metadata.generation.unwrap_or(0), &object.spec)
}

/// How often the Lease is renewed, and how long it counts.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    /// Of a host that takes in traffic.
    pub gateway: Duration,
    /// Of others.
    pub node: Duration,
}

impl Heartbeat {
    /// Duration of the Lease of such a host, whole seconds.
    fn duration(self, gateway: bool) -> Duration {
        let duration = if gateway { self.gateway } else { self.node };
        Duration::from_secs(duration.as_secs().max(1))
    }
}

/// Keeps the Lease until it is stopped. It is left to run out then: the kernel goes on without the agent.
pub async fn beat(client: kube::Client, name: String, heartbeat: Heartbeat, mut gateway: watch::Receiver<bool>) {
    let leases: Api<Lease> = Api::namespaced(client, AGENTS_NAMESPACE);
    let mut known: Option<Lease> = None;
    loop {
        let is_gateway = *gateway.borrow_and_update();
        let duration = heartbeat.duration(is_gateway);
        let renewal = tokio::time::timeout(PATIENCE.min(duration), renew(&leases, &name, duration, known.take()));
        match renewal.await {
            Ok(Ok(lease)) => known = Some(lease),
            Ok(Err(error)) => tracing::warn!(error = &error as &dyn std::error::Error, "the lease was not renewed"),
            Err(_) => tracing::warn!("the lease was not renewed: no answer in time"),
        }
        let pause = if known.is_some() { duration / 4 } else { duration / 8 };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            change = gateway.changed() => if change.is_err() { return },
        }
    }
}

async fn renew(
    leases: &Api<Lease>,
    name: &str,
    duration: Duration,
    known: Option<Lease>,
) -> Result<Lease, kube::Error> {
    let known = match known {
        Some(lease) => Some(lease),
        None => leases.get_opt(name).await?,
    };
    let now = MicroTime(Timestamp::now());
    let (mut lease, is_new) = match known {
        Some(lease) => (lease, false),
        None => {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            (Lease { metadata, spec: None }, true)
        }
    };
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = Some(name.to_owned());
    spec.lease_duration_seconds = i32::try_from(duration.as_secs()).ok();
    spec.acquire_time.get_or_insert_with(|| now.clone());
    spec.renew_time = Some(now);
    if is_new {
        leases.create(&PostParams::default(), &lease).await
    } else {
        leases.replace(name, &PostParams::default(), &lease).await
    }
}

/// Writes the report whenever it changes.
pub async fn report(client: kube::Client, name: String, mut reports: watch::Receiver<Option<AgentStatus>>) {
    let agents: Api<MetalAgent> = Api::all(client);
    let mut written: Option<AgentStatus> = None;
    loop {
        let report = reports.borrow_and_update().clone();
        let pause = match report {
            Some(report) if written.as_ref() != Some(&report) => {
                match tokio::time::timeout(PATIENCE, write(&agents, &name, report.clone())).await {
                    Ok(Ok(())) => {
                        written = Some(report);
                        REPORT_EVERY
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "the report was not written");
                        RETRY
                    }
                    Err(_) => {
                        tracing::warn!("the report was not written: no answer in time");
                        RETRY
                    }
                }
            }
            _ => Duration::ZERO,
        };
        if pause.is_zero() {
            if reports.changed().await.is_err() {
                return;
            }
        } else {
            tokio::time::sleep(pause).await;
        }
    }
}

async fn write(agents: &Api<MetalAgent>, name: &str, mut status: AgentStatus) -> Result<(), kube::Error> {
    status.reported_at = Some(Time(Timestamp::now()));
    let mut agent = match agents.get_opt(name).await? {
        Some(agent) => agent,
        None => {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            agents.create(&PostParams::default(), &MetalAgent { metadata, status: None }).await?
        }
    };
    agent.metadata.managed_fields = None;
    agent.status = Some(status);
    agents.replace_status(name, &PostParams::default(), &agent).await?;
    Ok(())
}
