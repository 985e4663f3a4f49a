//! One comparison of the routes there should be with those of one cloud.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use quarterdeck_cloud::nodes::{about, scheme};
use quarterdeck_cloud::{CloudError, Guarded};
use quarterdeck_runtime::client::{ApiError, PatchPrecondition};
use quarterdeck_runtime::controller::{Cx, Error};
use quarterdeck_runtime::object::Kind;
use quarterdeck_runtime::view::{Condition, NodeView};
use serde_json::json;
use tokio::time::Instant;

use super::departed::SPACING;
use super::plan::{Claims, Op, Plan, Wrong, claims, plan};
use super::tries::{Tries, verb};
use super::{Router, reasons};

/// How many changes are made at once: as many as a cloud has places for.
const AT_ONCE: usize = 16;

/// When a pass that was stopped short by a shut gate begins again; a real loss of the lease ends it long before.
const GATE_RETRY: Duration = Duration::from_millis(200);

/// How one change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Yes,
    No,
    /// It may not be made by this process now: nothing is known of what others do.
    NotByUs,
}

/// A wrong network that was told: uid of the node, and what is wrong.
pub(super) type Told = (Arc<str>, String);

/// What is remembered of one cloud from pass to pass.
#[derive(Default)]
pub(super) struct Memory {
    tries: Tries,
    /// Networks that were wrong in the last pass.
    told: HashSet<Told>,
}

impl Router {
    /// Makes, moves and removes the routes of a cloud, and says on each node whether it has its own. Returns when the
    /// next look is due.
    pub(super) async fn pass(&self, cx: &Cx, provider: &Guarded, memory: &mut Memory) -> Result<Duration, Error> {
        let failed = |error: CloudError| match error {
            CloudError::NotImplemented(_) | CloudError::ImplementedElsewhere(_) => Ok(self.period),
            error => Err(Error::Transient(format!("listing the routes of cloud {}: {error}", provider.name()))),
        };
        let info = match provider.info().await {
            Ok(info) if info.routes => info,
            Ok(_) => return Ok(self.period),
            Err(error) => return failed(error),
        };
        if !self.nodes.has_synced() {
            return Err(Error::Stale("the nodes are not known yet".to_owned()));
        }
        self.metrics.synced();
        let routes = match provider.routes().await {
            Ok(routes) => routes,
            Err(error) => return failed(error),
        };
        // Only now: a node that appeared while the routes were listed is no owner of a stale one.
        let nodes = self.nodes.all();
        let alone = self.cloud.most() == 1;
        let is_own = |node: &NodeView| match node.provider_id.as_deref() {
            Some(id) => info.schemes.iter().any(|own| own == scheme(id)),
            None => alone,
        };
        let (gone, waits) = match nodes.is_empty() {
            true => self.departed.proven(cx, routes.iter().map(|route| &*route.node)).await?,
            false => Default::default(),
        };
        let claims = claims(&nodes, &routes, &self.cluster);
        self.tell_wrong(cx, provider, &claims, is_own, memory);
        let plan = plan(&nodes, is_own, &routes, &claims, &self.cluster, &gone);
        let Some(missing) = self.change(cx, provider, &plan, memory).await else { return Ok(GATE_RETRY) };
        self.say(cx, &plan, &missing).await?;
        let next = memory.tries.next().map(|next| next.saturating_duration_since(Instant::now()));
        Ok(next.into_iter().chain(waits.then_some(SPACING)).min().unwrap_or(self.period))
    }

    /// Tells once of each network that gets no route.
    fn tell_wrong(
        &self,
        cx: &Cx,
        provider: &Guarded,
        claims: &Claims,
        is_own: impl Fn(&NodeView) -> bool,
        memory: &mut Memory,
    ) {
        let own: Vec<&(Arc<NodeView>, Wrong)> = claims.wrong.iter().filter(|(node, _)| is_own(node)).collect();
        let mut now = HashSet::new();
        for (node, wrong) in &own {
            let key = (Arc::clone(&node.uid), wrong.to_string());
            // Two clouds may have one scheme.
            if self.told.lock().insert(key.clone()) {
                tracing::warn!(
                    node = node.key.name(),
                    error = wrong as &dyn std::error::Error,
                    "a pod network gets no route"
                );
                cx.recorder.event(&about(node), reasons::INVALID_CIDR, wrong.to_string());
            }
            now.insert(key);
        }
        let mut told = self.told.lock();
        memory.told.difference(&now).for_each(|past| {
            told.remove(past);
        });
        drop(told);
        memory.told = now;
        self.metrics.wrong(provider.name(), &own.iter().map(|(_, wrong)| wrong).collect::<Vec<_>>());
    }

    /// Makes the changes, several destinations at once; returns those whose route is not as it should be. `None` if
    /// this process may not change anything.
    async fn change(&self, cx: &Cx, provider: &Guarded, plan: &Plan, memory: &mut Memory) -> Option<BTreeSet<IpNet>> {
        memory.tries.keep(plan.changes.values().flatten());
        let tries = Mutex::new(&mut memory.tries);
        let missing = Mutex::new(Some(BTreeSet::new()));
        let changes = futures::stream::iter(&plan.changes);
        let one = |(destination, ops): (&IpNet, &Vec<Op>)| {
            let (destination, ops, tries, missing) = (*destination, ops.clone(), &tries, &missing);
            async move {
                for op in &ops {
                    match self.make(cx, provider, plan, op, tries).await {
                        Made::Yes => continue,
                        Made::NotByUs => *missing.lock() = None,
                        // A route too many is not one that lacks.
                        Made::No if matches!(op, Op::Delete(_)) => {}
                        Made::No => {
                            if let Some(missing) = &mut *missing.lock() {
                                missing.insert(destination);
                            }
                        }
                    }
                    return;
                }
            }
        };
        changes.for_each_concurrent(AT_ONCE, one).await;
        missing.into_inner()
    }

    /// Makes one change, unless it failed and is not due again.
    async fn make(&self, cx: &Cx, provider: &Guarded, plan: &Plan, op: &Op, tries: &Mutex<&mut Tries>) -> Made {
        let Some(op_id) = tries.lock().begin(op, Instant::now()) else { return Made::No };
        let authority = &cx.authority;
        let result = match op {
            Op::Create(new) => provider.create_route(authority, op_id, new).await,
            Op::Replace { old, new } => provider.replace_route(authority, op_id, old, new).await,
            Op::Delete(route) => match provider.delete_route(authority, op_id, route).await {
                Err(CloudError::NotFound(_)) => Ok(()),
                result => result,
            },
        };
        let outcome = result.as_ref().map_or_else(CloudError::outcome, |()| "ok");
        self.metrics.changed(provider.name(), verb(op), outcome);
        if matches!(result, Err(CloudError::NotLeading(_) | CloudError::Superseded(_))) {
            return Made::NotByUs;
        }
        let is_news = tries.lock().end(op, op_id, result.as_ref().err(), Instant::now());
        match result {
            Ok(()) => {
                tracing::info!(provider = provider.name(), operation = verb(op), route = ?op, "changed a route");
                Made::Yes
            }
            Err(error) => {
                let cause = &error as &dyn std::error::Error;
                let (provider, operation) = (provider.name(), verb(op));
                if is_news {
                    tracing::warn!(provider, operation, route = ?op, error = cause, "a route could not be changed");
                } else {
                    tracing::debug!(provider, operation, route = ?op, error = cause, "a route can still not be changed");
                }
                if is_news
                    && let Op::Create(new) | Op::Replace { new, .. } = op
                    && let Some((node, _)) = plan.nodes.iter().find(|(node, _)| node.key.name() == new.node)
                {
                    let message = format!("Could not create route {} for node {}: {error}", new.destination, new.node);
                    cx.recorder.event(&about(node), reasons::ROUTE_FAILED, message);
                }
                Made::No
            }
        }
    }

    /// Says on each node whether its routes are there.
    async fn say(&self, cx: &Cx, plan: &Plan, missing: &BTreeSet<IpNet>) -> Result<(), Error> {
        let trouble = Mutex::new(None);
        let write = |(node, needed): &(Arc<NodeView>, Option<BTreeSet<IpNet>>)| {
            let routed = needed.as_ref().is_some_and(|needed| needed.is_disjoint(missing));
            let (node, trouble) = (Arc::clone(node), &trouble);
            async move {
                if let Err(error) = say_one(cx, &node, routed).await {
                    trouble.lock().get_or_insert(error);
                }
            }
        };
        futures::stream::iter(&plan.nodes).for_each_concurrent(AT_ONCE, write).await;
        trouble.into_inner().map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Status, reason and message that the condition `NetworkUnavailable` gets; `None` if it says so already.
pub(super) fn condition(said: Option<&Condition>, routed: bool) -> Option<[&'static str; 3]> {
    let [status, reason, message] = match routed {
        true => ["False", "RouteCreated", "RouteController created a route"],
        false => ["True", "NoRouteCreated", "RouteController failed to create a route"],
    };
    let says_so = said.is_some_and(|said| &*said.status == status && &*said.reason == reason);
    (!says_so).then_some([status, reason, message])
}

/// Writes the condition if it changes. The patch names this condition only, others stay.
async fn say_one(cx: &Cx, node: &NodeView, routed: bool) -> Result<(), ApiError> {
    let Some([status, reason, message]) = condition(node.network_unavailable.as_ref(), routed) else { return Ok(()) };
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default().to_string();
    let patch = json!({ "status": { "conditions": [{
        "type": "NetworkUnavailable", "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    }] } });
    let same = PatchPrecondition::Uid(node.uid.to_string());
    match cx.api.strategic_patch(&Kind::of::<Node>(), &node.key, Some("status"), &patch, &same).await {
        Err(error) if error.is_not_found() => return Ok(()),
        written => written?,
    };
    tracing::info!(node = node.key.name(), routed, "the condition NetworkUnavailable of a node changed");
    if routed {
        cx.recorder.event(&about(node), reasons::ROUTED, "All routes of the node are there");
    }
    Ok(())
}
