//! Putting a question: in calls of the size that the provider takes, around nodes that make calls fail.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::pack::pack;
use super::{Asker, BARRED_FOR, Barred, FORGET, INTEREST, Inner, Outcome, Seen, State, Told, UnderWay};
use crate::error::{CloudError, Result};
use crate::model::{Answers, NodeRef};
use crate::provider::CallClass;

/// Calls that one question may spend on finding the nodes that make a call fail.
const SEARCH: usize = 64;

impl Inner {
    /// Puts the question that is forming.
    pub(super) async fn put(self: Arc<Self>) -> Arc<Outcome> {
        let max = Arc::clone(&self.asker).max_batch().await;
        let (calls, at, number) = self.begin(*max.as_ref().unwrap_or(&usize::MAX));
        let told = match max {
            Ok(_) => self.ask(calls).await,
            Err(error) => {
                let unasked = |node| (node, Told::Unasked(error.clone()));
                calls.into_iter().flatten().map(unasked).collect()
            }
        };
        let outcome = Arc::new(Outcome { at, number, told });
        self.end(&outcome);
        outcome
    }

    /// Closes the question that is forming, and says what calls it takes.
    fn begin(&self, max: usize) -> (Vec<Vec<NodeRef>>, Instant, u64) {
        let mut state = self.state.lock();
        let at = Instant::now();
        let (groups, question) =
            state.forming.take().map(|forming| (forming.groups, forming.question)).unwrap_or_default();
        state.questions += 1;
        let number = state.questions;
        // Nodes that made a call fail before are asked for one by one.
        let (alone, groups): (Vec<_>, Vec<_>) = split(&groups, |node| state.barred.contains_key(node));
        let mut calls = pack(&groups, max);
        if max < usize::MAX {
            fill(&mut calls, max, &state, at);
        }
        calls.extend(pack(&alone, 1));
        let nodes: HashSet<NodeRef> = calls.iter().flatten().cloned().collect();
        state.under_way.push(UnderWay { number, at, nodes, question });
        (calls, at, number)
    }

    async fn ask(&self, calls: Vec<Vec<NodeRef>>) -> HashMap<NodeRef, Told> {
        let search = Search { left: AtomicUsize::new(SEARCH), given_up: Mutex::default() };
        let asked = calls.into_iter().map(|nodes| ask_or_split(Arc::clone(&self.asker), nodes, &search));
        let told: Vec<_> = futures::stream::iter(asked).buffer_unordered(CallClass::Batch.places()).collect().await;
        told.into_iter().flatten().collect()
    }

    /// Keeps the answers.
    fn end(&self, outcome: &Outcome) {
        let mut state = self.state.lock();
        state.under_way.retain(|one| one.number != outcome.number);
        for (node, told) in &outcome.told {
            match told {
                Told::Seen { lookup: Ok(lookup), account } => {
                    let (lookup, account) = (Ok(lookup.clone()), Arc::clone(account));
                    let seen = Seen { lookup, account, at: outcome.at, snapshot: outcome.number };
                    let newer = state.known.get(node).is_some_and(|known| known.at > outcome.at);
                    if !newer {
                        state.known.insert(node.clone(), seen);
                    }
                    state.barred.remove(node);
                }
                Told::Refused(error) => {
                    let barred = Barred { error: error.clone(), at: outcome.at, number: outcome.number };
                    state.barred.insert(node.clone(), barred);
                }
                // What is known stays: an error says nothing of the node.
                Told::Seen { lookup: Err(_), .. } | Told::Unasked(_) => {}
            }
        }
        let kept = |at: &Instant| at.elapsed() < FORGET;
        state.known.retain(|_, known| kept(&known.at));
        state.wanted.retain(|_, at| kept(at));
        state.barred.retain(|_, barred| kept(&barred.at));
    }
}

/// The groups' nodes for which `apart` holds, and the others.
fn split(groups: &[Vec<NodeRef>], apart: impl Fn(&NodeRef) -> bool) -> (Vec<Vec<NodeRef>>, Vec<Vec<NodeRef>>) {
    let halves = groups.iter().map(|group| group.iter().cloned().partition::<Vec<_>, _>(|node| apart(node)));
    let (apart, others): (Vec<_>, Vec<_>) = halves.unzip();
    let some = |groups: Vec<Vec<NodeRef>>| groups.into_iter().filter(|group| !group.is_empty()).collect();
    (some(apart), some(others))
}

/// Gives the room that is left in the calls to nodes that somebody asked for lately, so that their answers grow old
/// together and the next question serves all of them.
fn fill(calls: &mut [Vec<NodeRef>], max: usize, state: &State, now: Instant) {
    let room: usize = calls.iter().map(|call| max.saturating_sub(call.len())).sum();
    if room == 0 {
        return;
    }
    let asked: HashSet<&NodeRef> = calls.iter().flatten().collect();
    let idle = |node: &NodeRef| {
        !asked.contains(node)
            && state.barred.get(node).is_none_or(|barred| now.saturating_duration_since(barred.at) > BARRED_FOR)
            && !state.under_way.iter().any(|one| one.nodes.contains(node))
    };
    let mut wanted: Vec<(&NodeRef, &Instant)> = state
        .wanted
        .iter()
        .filter(|(node, at)| now.saturating_duration_since(**at) <= INTEREST && idle(node))
        .collect();
    wanted.sort_by(|(a, at), (b, bt)| bt.cmp(at).then_with(|| a.cmp(b)));
    let mut extra: Vec<NodeRef> = wanted.into_iter().take(room).map(|(node, _)| node.clone()).collect();
    for call in calls {
        let room = max.saturating_sub(call.len()).min(extra.len());
        call.extend(extra.drain(..room));
    }
}

/// What the calls of one question share.
struct Search {
    /// Calls that may still be spent on finding the nodes that make a call fail.
    left: AtomicUsize,
    /// Why no further call is made: a provider that is unwell is not asked again by the same question, which would keep
    /// its callers waiting for one deadline after the other.
    given_up: Mutex<Option<CloudError>>,
}

/// Asks for these nodes; while the provider refuses the call because of one of them, asks for each half.
fn ask_or_split(asker: Arc<dyn Asker>, nodes: Vec<NodeRef>, search: &Search) -> BoxFuture<'_, Vec<(NodeRef, Told)>> {
    async move {
        let asked: Arc<[NodeRef]> = nodes.into();
        let unasked =
            |error: &CloudError| asked.iter().map(|node| (node.clone(), Told::Unasked(error.clone()))).collect();
        let given_up = search.given_up.lock().clone();
        if let Some(error) = given_up {
            return unasked(&error);
        }
        let error = match Arc::clone(&asker).ask(Arc::clone(&asked)).await {
            Ok(answers) => return told(&asked, &answers),
            Err(error) => error,
        };
        let about_one = matches!(error, CloudError::Invalid(_) | CloudError::NotFound(_));
        if !about_one {
            search.given_up.lock().get_or_insert_with(|| error.clone());
            return unasked(&error);
        }
        if asked.len() == 1 {
            return vec![(asked[0].clone(), Told::Refused(error))];
        }
        if search.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(2)).is_err() {
            return unasked(&error);
        }
        let (one, other) = asked.split_at(asked.len() / 2);
        let mut all = ask_or_split(Arc::clone(&asker), one.to_vec(), search).await;
        all.extend(ask_or_split(asker, other.to_vec(), search).await);
        all
    }
    .boxed()
}

/// What the answers say of each node that was asked for; silence is an error, never an absence.
fn told(asked: &[NodeRef], answers: &Answers) -> Vec<(NodeRef, Told)> {
    let account: Arc<str> = answers.account.as_str().into();
    let silent = || -> Result<_> { Err(CloudError::Other("the provider did not answer for this node".to_owned())) };
    let one = |node: &NodeRef| {
        let lookup = answers.nodes.get(node).cloned().unwrap_or_else(silent);
        (node.clone(), Told::Seen { lookup, account: Arc::clone(&account) })
    };
    asked.iter().map(one).collect()
}
