//! What ran of a program. It lives in the Addon's status, so that a restart repeats nothing that
//! finished.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::program::{Action, Ended, Known, KnownNodes, Node, Program};

/// Longest message and longest result that are kept, bytes.
const LONGEST: usize = 4096;

/// What ran of one phase of one Addon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// The revision it belongs to; progress of another one is worth nothing.
    pub revision: String,
    /// Rounds of the whole program that have failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub failed_rounds: u32,
    /// When this round began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When the next round begins, after one that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// How this round ended, not counting `onExit`: `Succeeded` or `Failed`
    /// ([`Context::status`](super::Context::status)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Why the last round failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// By [`Node::name`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, NodeProgress>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It has not begun, or waits to be tried again.
    #[default]
    Pending,
    /// An attempt is under way.
    Running,
    /// It did what it was to do.
    Succeeded,
    /// Its attempts are used up, for this round.
    Failed,
    /// Its condition did not hold.
    Skipped,
}

/// What ran of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeProgress {
    /// Names what it did ([`Node::content`]); another content is another step.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// Where it stands.
    pub state: State,
    /// Number of the last attempt that began. Each has a larger one than the one before; the first has
    /// that of its second, so that a revision that comes back shares no names with its first time.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// Attempts begun in this round.
    #[serde(skip_serializing_if = "is_zero")]
    pub tries: u32,
    /// When the first attempt of this round began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
    /// When the last attempt began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When the next attempt may begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// Whether the program goes on although it failed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub passed_over: bool,
    /// What it did so far, such as the uids of objects that it deleted: not done again by a later attempt.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub marks: BTreeMap<String, String>,
    /// Output parameters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// What it wrote on its standard output, where another step asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// What is to be said of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl NodeProgress {
    /// How it ended, as far as it has.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        match self.state {
            State::Succeeded => Some(Ended::Succeeded),
            State::Skipped => Some(Ended::Skipped),
            State::Failed if self.passed_over => Some(Ended::Failed),
            State::Pending | State::Running | State::Failed => None,
        }
    }
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it was to do.
    Succeeded {
        /// Output parameters.
        outputs: BTreeMap<String, String>,
        /// What it wrote on its standard output, if that was asked for.
        result: Option<String>,
        /// What is to be said of it; may be empty.
        message: String,
    },
    /// It did not.
    Failed {
        /// Why.
        message: String,
    },
}

impl Outcome {
    /// A success with nothing to hand on.
    #[must_use]
    pub fn done() -> Self {
        Self::Succeeded { outputs: BTreeMap::new(), result: None, message: String::new() }
    }
}

impl Progress {
    /// Progress of a revision of which nothing ran.
    #[must_use]
    pub fn new(revision: &str) -> Self {
        Self { revision: revision.to_owned(), ..Self::default() }
    }

    /// This progress if it belongs to the revision, else a new one.
    #[must_use]
    pub fn of_revision(self, revision: &str) -> Self {
        if self.revision == revision { self } else { Self::new(revision) }
    }

    /// Progress of an Addon that another system brought here: nothing of it is run again.
    #[must_use]
    pub fn adopted(program: &Program, revision: &str) -> Self {
        let node = |node: &Node| {
            let done = NodeProgress {
                hash: node.content().unwrap_or_default().to_owned(),
                state: State::Succeeded,
                message: "adopted".to_owned(),
                ..NodeProgress::default()
            };
            (node.name.clone(), done)
        };
        let nodes = program.all().map(node).collect();
        Self { nodes, status: Some("Succeeded".to_owned()), ..Self::new(revision) }
    }

    /// Notes that a round failed, and when the next one begins.
    pub fn fail(&mut self, message: &str, now: Timestamp) {
        self.failed_rounds = self.failed_rounds.saturating_add(1);
        self.retry_at = Some(after(now, super::next::wait(self)));
        self.message = cut(message);
    }

    /// What [`compile`](super::compile()) may know of the steps that have ended.
    #[must_use]
    pub fn known(&self) -> KnownNodes {
        let known = |(name, node): (&String, &NodeProgress)| {
            let (parameters, result) = (node.outputs.clone(), node.result.clone());
            Some((name.clone(), Known { ended: node.ended()?, parameters, result }))
        };
        self.nodes.iter().filter_map(known).collect()
    }

    /// Where a step stands, if what is recorded belongs to what it does now.
    #[must_use]
    pub fn of(&self, node: &Node) -> Option<&NodeProgress> {
        let recorded = self.nodes.get(&node.name)?;
        let is_same = match node.content() {
            Some(content) => recorded.hash.is_empty() || recorded.hash == content,
            None => true,
        };
        is_same.then_some(recorded)
    }

    /// The number of the attempt of a step that is under way, part of the name of its Pod: ask once it
    /// has begun.
    #[must_use]
    pub fn attempt(&self, node: &Node) -> u32 {
        let recorded = self.nodes.get(&node.name);
        let begun = recorded.map_or(0, |recorded| recorded.attempts);
        match self.of(node) {
            Some(recorded) if recorded.state == State::Running => begun,
            _ => begun.saturating_add(1),
        }
    }

    /// Notes that an attempt of a step begins. Nothing if one is under way.
    pub fn begin(&mut self, node: &Node, now: Timestamp) {
        if self.of(node).is_some_and(|recorded| recorded.state == State::Running) {
            return;
        }
        let attempts = self.nodes.get(&node.name).map_or(0, |recorded| recorded.attempts);
        let before = self.of(node).cloned().unwrap_or_default();
        let begun = NodeProgress {
            hash: node.content().unwrap_or_default().to_owned(),
            state: State::Running,
            attempts: if attempts == 0 { first_attempt(now) } else { attempts.saturating_add(1) },
            tries: before.tries.saturating_add(1),
            first: before.first.or(Some(now)),
            started: Some(now),
            marks: before.marks,
            message: before.message,
            ..NodeProgress::default()
        };
        self.nodes.insert(node.name.clone(), begun);
    }

    /// Says something of a step that is under way, such as what its Pod waits for, and what it did so far.
    pub fn note(&mut self, node: &Node, message: &str, marks: BTreeMap<String, String>) {
        if let Some(recorded) = self.nodes.get_mut(&node.name)
            && recorded.state == State::Running
        {
            recorded.message = cut(message);
            recorded.marks = marks;
        }
    }

    /// What a step did so far.
    #[must_use]
    pub fn marks(&self, node: &Node) -> BTreeMap<String, String> {
        self.of(node).map(|recorded| recorded.marks.clone()).unwrap_or_default()
    }

    /// The number of the last attempt of a step that began; 0 if none did.
    #[must_use]
    pub fn last_attempt(&self, node: &Node) -> u32 {
        self.nodes.get(&node.name).map_or(0, |recorded| recorded.attempts)
    }

    /// Notes how an attempt ended. Nothing if none was under way: an old answer changes nothing.
    pub fn end(&mut self, node: &Node, outcome: Outcome, now: Timestamp) {
        if self.of(node).is_none_or(|recorded| recorded.state != State::Running) {
            return;
        }
        let Some(recorded) = self.nodes.get_mut(&node.name) else { return };
        match outcome {
            Outcome::Succeeded { outputs, result, message } => {
                recorded.state = State::Succeeded;
                recorded.outputs = outputs.into_iter().map(|(name, value)| (name, cut(&value))).collect();
                recorded.result = result.as_deref().map(cut);
                recorded.message = cut(&message);
            }
            Outcome::Failed { message } => {
                recorded.message = cut(&message);
                match retry_at(node, recorded, now) {
                    Some(at) => {
                        recorded.state = State::Pending;
                        recorded.retry_at = Some(at);
                    }
                    None => {
                        recorded.state = State::Failed;
                        recorded.passed_over = node.continue_on_failure;
                    }
                }
            }
        }
    }

    /// Notes an outcome without an attempt: of a step that is skipped, or cannot even begin.
    pub(super) fn settle(&mut self, node: &Node, state: State, message: &str) {
        let attempts = self.nodes.get(&node.name).map_or(0, |recorded| recorded.attempts);
        let settled = NodeProgress {
            hash: if state == State::Skipped { String::new() } else { node.content().unwrap_or_default().to_owned() },
            state,
            attempts,
            passed_over: state == State::Failed && node.continue_on_failure,
            message: cut(message),
            ..NodeProgress::default()
        };
        self.nodes.insert(node.name.clone(), settled);
    }
}

fn first_attempt(now: Timestamp) -> u32 {
    u32::try_from(now.as_second()).unwrap_or(1).max(1)
}

/// When a step that failed is tried again in this round, if at all.
fn retry_at(node: &Node, recorded: &NodeProgress, now: Timestamp) -> Option<Timestamp> {
    let retry = &node.retry;
    // What cannot be done, such as an action that is not known, is no better a moment later.
    if !retry.given || matches!(node.action, Action::Pending(_)) {
        return None;
    }
    if retry.limit.is_some_and(|limit| recorded.tries > limit) {
        return None;
    }
    let growth = u64::from(retry.factor.max(1)).saturating_pow(recorded.tries.saturating_sub(1).min(32));
    let wait = Duration::from_secs(retry.backoff.as_secs().saturating_mul(growth))
        .saturating_add(Duration::from_nanos(retry.backoff.subsec_nanos().into()));
    let at = after(now, wait);
    let too_late = retry.max.is_some_and(|max| recorded.first.is_some_and(|first| at > after(first, max)));
    (!too_late).then_some(at)
}

/// A moment later; the end of time at most.
pub(super) fn after(at: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| at.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}

/// The beginning of a text, so that a status stays small.
pub(super) fn cut(text: &str) -> String {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
