//! Questions about nodes: many callers, few calls.
//!
//! Callers of 100 ms share one question; answers are kept, and whoever can do with an older one gets it. A question is
//! driven by those who wait for it and ends with the last of them. Only answers are kept: a failed question leaves what
//! is known as it was, and whoever needs a newer one gets the error.

mod pack;
mod question;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, Shared, WeakShared};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::{CloudError, Result};
use crate::model::{Answers, Lookup, NodeRef};

/// How long a question waits for others to join it.
const GATHER: Duration = Duration::from_millis(100);
/// How long a node that makes batches fail is not asked for again, unless a caller insists.
const BARRED_FOR: Duration = Duration::from_secs(300);
/// For how long a node is of interest after somebody asked for it: free room of a question goes to such.
const INTEREST: Duration = Duration::from_secs(30);
/// When an answer is forgotten.
const FORGET: Duration = Duration::from_secs(900);

/// What a provider said of one node, and when.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What it said.
    pub lookup: Result<Lookup>,
    /// Id of the account or project that was asked; empty where the question about this node failed.
    pub account: Arc<str>,
    /// When the question was put.
    pub at: Instant,
    /// Number of the question; answers of one number are of one moment.
    pub snapshot: u64,
}

/// Puts one question to a provider.
pub(super) trait Asker: Send + Sync + 'static {
    /// How many nodes a question may be about.
    fn max_batch(self: Arc<Self>) -> BoxFuture<'static, Result<usize>>;

    /// Asks.
    fn ask(self: Arc<Self>, nodes: Arc<[NodeRef]>) -> BoxFuture<'static, Result<Answers>>;
}

/// What came of one node in one question.
#[derive(Clone, Debug)]
enum Told {
    /// The provider answered for it.
    Seen { lookup: Result<Lookup>, account: Arc<str> },
    /// The provider refused to be asked for it alone.
    Refused(CloudError),
    /// It could not be asked.
    Unasked(CloudError),
}

/// What came of one question.
#[derive(Debug)]
struct Outcome {
    at: Instant,
    number: u64,
    told: HashMap<NodeRef, Told>,
}

type Question = Shared<BoxFuture<'static, Arc<Outcome>>>;
type WeakQuestion = WeakShared<BoxFuture<'static, Arc<Outcome>>>;

/// A question that gathers nodes.
struct Forming {
    groups: Vec<Vec<NodeRef>>,
    question: Option<WeakQuestion>,
}

/// A question that was put.
struct UnderWay {
    number: u64,
    at: Instant,
    nodes: HashSet<NodeRef>,
    question: Option<WeakQuestion>,
}

/// Why a node is asked for alone.
struct Barred {
    error: CloudError,
    at: Instant,
    number: u64,
}

#[derive(Default)]
struct State {
    /// The last good answer for each node.
    known: HashMap<NodeRef, Seen>,
    /// When somebody last asked for each node.
    wanted: HashMap<NodeRef, Instant>,
    /// Nodes that made a batch fail.
    barred: HashMap<NodeRef, Barred>,
    forming: Option<Forming>,
    under_way: Vec<UnderWay>,
    /// Questions put so far.
    questions: u64,
}

/// The account where none is known.
fn nobody() -> Arc<str> {
    Arc::from("")
}

struct Inner {
    asker: Arc<dyn Asker>,
    state: Mutex<State>,
}

/// The questions about nodes of one provider.
pub(super) struct Lookups {
    inner: Arc<Inner>,
}

impl Lookups {
    pub(super) fn new(asker: Arc<dyn Asker>) -> Self {
        Self { inner: Arc::new(Inner { asker, state: Mutex::default() }) }
    }

    /// See [`Guarded::look_up`](crate::Guarded::look_up).
    pub(super) async fn look_up(&self, nodes: &[NodeRef], max_age: Duration) -> Result<Vec<Seen>> {
        let (mut seen, questions) = self.inner.join(nodes, max_age);
        let mut failed = HashMap::new();
        for question in questions {
            let outcome = question.await;
            for node in nodes {
                let Some(told) = outcome.told.get(node) else { continue };
                let (lookup, account, of) = match told {
                    Told::Seen { lookup, account } => (lookup.clone(), Arc::clone(account), &mut seen),
                    Told::Refused(error) => (Err(error.clone()), nobody(), &mut seen),
                    Told::Unasked(error) => (Err(error.clone()), nobody(), &mut failed),
                };
                let told = Seen { lookup, account, at: outcome.at, snapshot: outcome.number };
                of.entry(node.clone()).or_insert(told);
            }
        }
        if seen.is_empty()
            && let Some(Seen { lookup: Err(error), .. }) = nodes.iter().find_map(|node| failed.get(node))
        {
            return Err(error.clone());
        }
        let none = || CloudError::Other("the question ended without a word on this node".to_owned());
        nodes.iter().map(|node| seen.get(node).or_else(|| failed.get(node)).cloned().ok_or_else(none)).collect()
    }
}

impl Inner {
    /// What is known well enough, and the questions that tell the rest.
    fn join(self: &Arc<Self>, nodes: &[NodeRef], max_age: Duration) -> (HashMap<NodeRef, Seen>, Vec<Question>) {
        let now = Instant::now();
        let fresh = |at: Instant| !max_age.is_zero() && now.saturating_duration_since(at) <= max_age;
        let mut state = self.state.lock();
        state.under_way.retain(|one| one.question.as_ref().is_some_and(|question| question.upgrade().is_some()));
        let (mut seen, mut questions): (HashMap<NodeRef, Seen>, Vec<(u64, Question)>) = Default::default();
        let (mut missing, mut met) = (Vec::new(), HashSet::new());
        for node in nodes.iter().filter(|node| met.insert((*node).clone())) {
            state.wanted.insert(node.clone(), now);
            if let Some(known) = state.known.get(node).filter(|known| fresh(known.at)) {
                seen.insert(node.clone(), known.clone());
                continue;
            }
            if let Some(barred) = state.barred.get(node)
                && !max_age.is_zero()
                && now.saturating_duration_since(barred.at) <= BARRED_FOR
            {
                let lookup = Err(barred.error.clone());
                let told = Seen { lookup, account: nobody(), at: barred.at, snapshot: barred.number };
                seen.insert(node.clone(), told);
                continue;
            }
            let running = state.under_way.iter().rev().find(|one| fresh(one.at) && one.nodes.contains(node));
            match running.and_then(|one| Some((one.number, one.question.as_ref()?.upgrade()?))) {
                Some((number, _)) if questions.iter().any(|(other, _)| *other == number) => {}
                Some(found) => questions.push(found),
                None => missing.push(node.clone()),
            }
        }
        let mut questions: Vec<Question> = questions.into_iter().map(|(_, question)| question).collect();
        if !missing.is_empty() {
            questions.push(self.gather(&mut state, missing));
        }
        (seen, questions)
    }

    /// Adds nodes to the question that is forming, or begins one.
    fn gather(self: &Arc<Self>, state: &mut State, nodes: Vec<NodeRef>) -> Question {
        if let Some(forming) = &mut state.forming
            && let Some(question) = forming.question.as_ref().and_then(WeakQuestion::upgrade)
        {
            forming.groups.push(nodes);
            return question;
        }
        let inner = Arc::clone(self);
        let question = async move {
            tokio::time::sleep(GATHER).await;
            inner.put().await
        };
        let question = question.boxed().shared();
        state.forming = Some(Forming { groups: vec![nodes], question: question.downgrade() });
        question
    }
}
