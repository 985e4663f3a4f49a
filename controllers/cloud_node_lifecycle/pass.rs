//! One look at all nodes of one cloud.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use quarterdeck_api::cloud::account::{CloudAccount, record_name};
use quarterdeck_cloud::guard::Seen;
use quarterdeck_cloud::model::Lookup;
use quarterdeck_cloud::nodes::{about, node_ref};
use quarterdeck_cloud::{CloudError, Guarded};
use quarterdeck_runtime::client::{ApiError, Class, DeletePrecondition, PatchPrecondition, Propagation};
use quarterdeck_runtime::controller::{Cx, Error};
use quarterdeck_runtime::object::{Kind, ObjectKey};
use quarterdeck_runtime::ongoing::Ongoing;
use quarterdeck_runtime::view::NodeView;
use serde_json::Value;
use tokio::time::Instant;

use super::absence::{Doubt, Record, Suspects, doubt_of};
use super::look::{Nodes, Sign, parted, sign};
use super::verdict::{Census, Hold, Verdict, is_control_plane, judge};
use super::{Watch, reasons, taint};

/// Answers of the clouds that all their controllers share may be this old, or so many periods.
const SHARED_AGE: Duration = Duration::from_secs(30);
const SHARED_PERIODS: u32 = 6;
/// How many Ready nodes are asked for beside those that seem to be gone; an answer that lacks one of them is not
/// complete.
const WITNESSES: usize = 20;
/// For how many nodes a pass records events of one kind.
const TOLD: usize = 5;
/// How long after a provider did not say in which account nodes are it is asked again for that alone.
const ACCOUNT_RETRY: Duration = Duration::from_secs(300);

/// What is remembered of one cloud from pass to pass.
#[derive(Default)]
pub(super) struct Memory {
    suspects: Suspects,
    /// How many nodes were kept, by reason.
    kept: BTreeMap<&'static str, i64>,
    /// When the cloud was last asked for no more than the account.
    account_asked: Option<Instant>,
    /// What the cloud does not say: of which node whether it exists, or, by its own name, where nodes are.
    unsaid: Ongoing<String>,
}

/// The first thing that went wrong with a node; the others are looked at all the same.
#[derive(Default)]
struct Trouble(Option<Error>);

impl Trouble {
    fn note(&mut self, result: Result<(), Error>) {
        if let Err(error) = result {
            self.0.get_or_insert(error);
        }
    }

    fn end(self) -> Result<(), Error> {
        self.0.map_or(Ok(()), Err)
    }
}

impl Watch {
    /// Looks at all nodes of a cloud. A cloud that does not answer holds up nothing but its own pass.
    pub(super) async fn pass(&self, cx: &Cx, provider: &Guarded, memory: &mut Memory) -> Result<(), Error> {
        let failed = |error: CloudError| {
            Error::Transient(format!("asking cloud {} for the instances of nodes: {error}", provider.name()))
        };
        let info = provider.info().await.map_err(failed)?;
        if !info.instances {
            return Ok(());
        }
        let all = self.nodes.all();
        let (ready, troubled) = parted(&all, &info.schemes);

        let mut trouble = Trouble::default();
        for node in ready.iter().filter(|node| taint::is_shut(node)) {
            trouble.note(put_taint_right(cx, node, false).await);
        }
        memory.suspects.keep(troubled.iter().map(|node| &**node));
        trouble.note(self.write_account_down(cx, provider, info.max_batch.max(1), &ready, memory).await);
        trouble.note(self.ask(cx, provider, info.max_batch.max(1), &ready, &troubled, memory).await);
        // What is known is acted on, whatever could not be asked.
        let census = Census {
            in_cluster: all.len(),
            in_cloud: ready.len() + troubled.len(),
            ready_control_planes: all
                .iter()
                .filter(|node| node.ready && !node.deleting && is_control_plane(node))
                .count(),
            at: Instant::now(),
            now: jiff::Timestamp::now().as_second(),
            grace: self.rules.grace,
            percent: self.rules.percent,
        };
        trouble.note(self.conclude(cx, provider, &census, &troubled, memory).await);
        trouble.end()
    }

    /// Asks for the nodes that are not Ready: from the shared snapshot, and the cloud itself where that says that one
    /// is gone.
    async fn ask(
        &self,
        cx: &Cx,
        provider: &Guarded,
        max_batch: usize,
        ready: &Nodes,
        troubled: &Nodes,
        memory: &mut Memory,
    ) -> Result<(), Error> {
        let failed = |error: CloudError| {
            Error::Transient(format!("asking cloud {} for the instances of nodes: {error}", provider.name()))
        };
        let (suspects, others): (Nodes, Nodes) =
            troubled.iter().cloned().partition(|node| memory.suspects.get(node).is_some());
        let now = Instant::now();
        let is_due = |node: &NodeView| memory.suspects.get(node).is_some_and(|suspect| suspect.is_due(now));
        let mut due: Nodes = suspects.into_iter().filter(|node| is_due(node)).collect();
        let mut trouble = Trouble::default();
        if !others.is_empty() {
            let refs: Vec<_> = others.iter().map(|node| node_ref(node)).collect();
            let seen = provider.look_up(&refs, SHARED_AGE.min(self.period * SHARED_PERIODS)).await.map_err(failed)?;
            for (node, seen) in others.iter().zip(&seen) {
                match sign(&seen.lookup) {
                    Sign::Shut => trouble.note(put_taint_right(cx, node, true).await),
                    Sign::Gone => due.push(Arc::clone(node)),
                    Sign::Nothing => {}
                    Sign::Unknown(error) => {
                        let error = error as &dyn std::error::Error;
                        if memory.unsaid.begins(node.key.name().to_owned()) {
                            let node = node.key.name();
                            tracing::warn!(node, error, "the cloud does not say whether an instance exists");
                        }
                        continue;
                    }
                }
                memory.unsaid.ends(&node.key.name().to_owned());
            }
        }
        let witnesses = witnesses(ready, max_batch);
        for some in due.chunks(max_batch.saturating_sub(witnesses.len()).max(1)) {
            let asked: Nodes = some.iter().chain(&witnesses).cloned().collect();
            let refs: Vec<_> = asked.iter().map(|node| node_ref(node)).collect();
            match provider.look_up(&refs, Duration::ZERO).await {
                Ok(seen) => trouble.note(self.hear(cx, provider, &asked, &seen, memory).await),
                Err(error) => {
                    // No answer is no proof of anything.
                    some.iter().for_each(|node| memory.suspects.clear(node));
                    return Err(failed(error));
                }
            }
        }
        trouble.end()
    }

    /// Takes answers of the cloud itself.
    async fn hear(
        &self,
        cx: &Cx,
        provider: &Guarded,
        asked: &Nodes,
        seen: &[Seen],
        memory: &mut Memory,
    ) -> Result<(), Error> {
        let mut snapshots: HashMap<(u64, &str), Vec<(&NodeView, &Seen)>> = HashMap::new();
        for (node, seen) in asked.iter().zip(seen) {
            snapshots.entry((seen.snapshot, &*seen.account)).or_default().push((&**node, seen));
        }
        let name = record_name(provider.name());
        let account = self.account(&name);
        for snapshot in snapshots.values() {
            let doubt = doubt_of(snapshot, Record { name: &name, account: account.as_ref() });
            for (node, seen) in snapshot.iter().filter(|(node, _)| !node.ready) {
                memory.suspects.hear(node, seen, doubt.as_ref());
            }
            if doubt == Some(Doubt::AccountUnrecorded) {
                record(cx, provider, snapshot).await?;
            }
        }
        Ok(())
    }

    /// The account that was written down under this name.
    fn account(&self, name: &str) -> Option<Arc<str>> {
        let record = self.accounts.get(&ObjectKey::cluster(name))?;
        Some(record.spec.account.as_str().into()).filter(|account: &Arc<str>| !account.is_empty())
    }

    /// Has the account written down while all is well, so that it is known when something goes: asks for some Ready
    /// nodes, mostly by way of what is known already.
    async fn write_account_down(
        &self,
        cx: &Cx,
        provider: &Guarded,
        max_batch: usize,
        ready: &Nodes,
        memory: &mut Memory,
    ) -> Result<(), Error> {
        let asked_lately = memory.account_asked.is_some_and(|at| at.elapsed() < ACCOUNT_RETRY);
        if ready.is_empty() || asked_lately || self.account(&record_name(provider.name())).is_some() {
            return Ok(());
        }
        memory.account_asked = Some(Instant::now());
        let some: Nodes = ready.iter().take(WITNESSES.min(max_batch)).cloned().collect();
        let refs: Vec<_> = some.iter().map(|node| node_ref(node)).collect();
        let seen = match provider.look_up(&refs, SHARED_AGE).await {
            Ok(seen) => seen,
            Err(error) => {
                // It is asked again when it matters.
                let error = &error as &dyn std::error::Error;
                if memory.unsaid.begins(String::new()) {
                    let provider = provider.name();
                    tracing::warn!(provider, error, "the cloud does not say in which account nodes are");
                }
                return Ok(());
            }
        };
        memory.unsaid.ends(&String::new());
        record(cx, provider, &some.iter().zip(&seen).map(|(node, seen)| (&**node, seen)).collect::<Vec<_>>()).await
    }

    /// Deletes what is proven to be gone, and tells of what is kept.
    async fn conclude(
        &self,
        cx: &Cx,
        provider: &Guarded,
        census: &Census,
        troubled: &Nodes,
        memory: &mut Memory,
    ) -> Result<(), Error> {
        let suspects: Vec<_> = troubled.iter().filter_map(|node| Some((&**node, memory.suspects.get(node)?))).collect();
        let verdicts = judge(census, &suspects);
        let judged: Vec<(NodeView, Verdict)> =
            suspects.iter().zip(verdicts).map(|((node, _), verdict)| ((*node).clone(), verdict)).collect();
        let (mut kept, mut told, mut trouble) = (BTreeMap::new(), 0, Trouble::default());
        for (node, verdict) in &judged {
            match verdict {
                Verdict::Wait => {
                    if let Some(suspect) = memory.suspects.get_mut(node) {
                        suspect.told = None;
                    }
                }
                Verdict::Keep(hold) => {
                    *kept.entry(hold.reason()).or_insert(0) += 1;
                    told += usize::from(self.keep(cx, provider, node, hold, told < TOLD, memory));
                }
                Verdict::Delete => trouble.note(self.delete(cx, provider, node, memory).await),
            }
        }
        self.metrics.kept(provider.name(), &kept, &memory.kept);
        memory.kept = kept;
        trouble.end()
    }

    /// Tells once that a node is kept; whether it told.
    fn keep(
        &self,
        cx: &Cx,
        provider: &Guarded,
        node: &NodeView,
        hold: &Hold,
        aloud: bool,
        memory: &mut Memory,
    ) -> bool {
        let Some(suspect) = memory.suspects.get_mut(node) else { return false };
        if suspect.told == Some(hold.reason()) {
            return false;
        }
        suspect.told = Some(hold.reason());
        self.metrics.refused(provider.name(), hold.reason());
        tracing::warn!(
            node = node.key.name(),
            provider = provider.name(),
            reason = hold.reason(),
            evidence = suspect.evidence,
            %hold,
            "the cloud says that an instance is gone, and its node is kept"
        );
        if aloud {
            let message = format!(
                "Keeping node {} although cloud {} says that its instance is gone ({}): {hold}",
                node.key.name(),
                provider.name(),
                suspect.evidence
            );
            cx.recorder.event(&about(node), reasons::KEPT, message);
        }
        aloud
    }

    async fn delete(&self, cx: &Cx, provider: &Guarded, node: &NodeView, memory: &mut Memory) -> Result<(), Error> {
        let name = node.key.name();
        let evidence = memory.suspects.get(node).map(|suspect| suspect.evidence.clone()).unwrap_or_default();
        tracing::info!(node = name, provider = provider.name(), evidence, "deleting a node whose instance is gone");
        let message = format!("Deleting node {name} because it does not exist in the cloud provider: {evidence}");
        cx.recorder.event(&about(node), reasons::DELETING, message);
        let precondition =
            DeletePrecondition { uid: node.uid.to_string(), resource_version: Some(node.resource_version.to_string()) };
        let deleted = cx.api.delete(&Kind::of::<Node>(), &node.key, &precondition, Propagation::Background).await;
        match deleted {
            Ok(()) => self.metrics.deleted(provider.name(), true),
            Err(error) if error.is_not_found() => {}
            // It changed meanwhile: the next pass judges it as it is now.
            Err(error) if matches!(error.class(), Class::Conflict | Class::NotLeader) => return Err(error.into()),
            Err(error) => {
                self.metrics.deleted(provider.name(), false);
                let message = format!("Failed deleting node {name}: {error}");
                cx.recorder.event(&about(node), reasons::DELETE_FAILED, message);
                return Err(error.into());
            }
        }
        memory.suspects.clear(node);
        Ok(())
    }
}

/// Writes down in which account a Ready node was found; who was first has written it.
async fn record(cx: &Cx, provider: &Guarded, snapshot: &[(&NodeView, &Seen)]) -> Result<(), Error> {
    let is_witness = |(node, seen): &&(&NodeView, &Seen)| {
        node.ready && !seen.account.is_empty() && matches!(seen.lookup, Ok(Lookup::Found(_)))
    };
    let Some((node, seen)) = snapshot.iter().find(is_witness) else { return Ok(()) };
    let (provider, account, witness) = (provider.name(), &*seen.account, node.key.name());
    match cx.api.create(&CloudAccount::new(provider, account, witness)).await {
        Ok(_) => tracing::info!(provider, account, witness, "wrote down in which account the cluster's nodes are"),
        Err(error) if error.is_already_exists() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

async fn put_taint_right(cx: &Cx, node: &NodeView, shut: bool) -> Result<(), Error> {
    match taint::patch(node, shut) {
        Some(patch) => write(cx, node, &patch).await?,
        None => return Ok(()),
    }
    let (reason, message) = match shut {
        true => (reasons::SHUT_DOWN, "The instance is shut down: nothing is scheduled to the node"),
        false => (reasons::RUNS_AGAIN, "The instance runs again"),
    };
    tracing::info!(node = node.key.name(), shut, "the taint of a shut instance was put right");
    cx.recorder.event(&about(node), reason, message);
    Ok(())
}

/// Ready nodes, spread over all of them, to be asked for beside others; they take half a question at most.
fn witnesses(ready: &Nodes, max_batch: usize) -> Nodes {
    let count = WITNESSES.min(max_batch / 2).min(ready.len());
    (0..count).map(|index| Arc::clone(&ready[index * ready.len() / count])).collect()
}

/// Patches a node as it was read; one that is gone needs nothing.
async fn write(cx: &Cx, node: &NodeView, patch: &Value) -> Result<(), ApiError> {
    let as_read = PatchPrecondition::ResourceVersion {
        uid: node.uid.to_string(),
        resource_version: node.resource_version.to_string(),
    };
    match cx.api.merge_patch(&Kind::of::<Node>(), &node.key, None, patch, &as_read).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn witnesses_are_spread_over_all_ready_nodes() {
        let ready: Nodes = (0..100).map(|index| Arc::new(NodeView::named(&format!("n{index:02}")))).collect();
        let names = |max_batch| -> Vec<String> {
            witnesses(&ready, max_batch).iter().map(|node| node.key.name().to_owned()).collect()
        };
        assert_eq!(names(1000).len(), WITNESSES);
        assert_eq!(names(8), ["n00", "n25", "n50", "n75"]);
        assert_eq!(names(1), Vec::<String>::new(), "a cloud that answers for one node at a time proves nothing");
        assert!(witnesses(&Nodes::new(), 100).is_empty());
    }
}
