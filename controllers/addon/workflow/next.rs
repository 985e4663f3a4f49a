//! What is to run now. Pure: the clock is a value.
//!
//! Nothing is terminal. A step is tried again as its `retryStrategy` says; when that is used up and
//! nothing is under way any more, the round has failed, and after a while another one begins with the
//! steps that failed. Steps that finished do not run again.

use std::time::Duration;

use jiff::Timestamp;

use super::program::{Action, Node, Program, When};
use super::progress::{NodeProgress, Progress, State, after};

/// Wait after the first round that failed, and the longest one.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// How much longer than it may a Pod is waited for: the kubelet ends it by itself, with its log.
const GRACE: Duration = Duration::from_secs(30);

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Next<'p> {
    /// The progress as it is now; keep it, whatever else happens.
    pub progress: Progress,
    /// Steps to begin: [`Progress::begin`], then carry them out.
    pub start: Vec<&'p Node>,
    /// Steps under way: look at them again.
    pub running: Vec<&'p Node>,
    /// Steps whose attempt was given up: end what they left running.
    pub stop: Vec<&'p Node>,
    /// Steps ended that others may refer to: compile again with [`Progress::known`] and
    /// [`Progress::status`], and call again.
    pub compile_again: bool,
    /// How the whole stands.
    pub phase: Phase,
    /// When to call again although nothing has happened.
    pub wake: Option<Timestamp>,
}

/// How a program stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Steps are under way or to begin.
    Running,
    /// All is done.
    Succeeded,
    /// A round has failed; another one begins then.
    Failed {
        /// Why.
        message: String,
        /// When the next round begins.
        retry_at: Timestamp,
    },
    /// All that is left waits for its next attempt.
    Waiting {
        /// When that is.
        until: Timestamp,
    },
}

/// Says what is to run. `program` must have been compiled with this progress' [`Progress::known`] and
/// [`Progress::status`].
#[must_use]
pub fn next<'p>(program: &'p Program, progress: &Progress, now: Timestamp) -> Next<'p> {
    let mut progress = progress.clone();
    progress.nodes.retain(|name, _| program.all().any(|node| node.name == *name));
    if let Some(at) = progress.retry_at {
        if now < at {
            return idle(progress.clone(), Phase::Failed { message: progress.message, retry_at: at }, Some(at));
        }
        begin_round(program, &mut progress);
    }
    let round = *progress.started.get_or_insert(now);
    let mut turn = Turn {
        now,
        progress,
        start: Vec::new(),
        running: Vec::new(),
        stop: Vec::new(),
        changed: false,
        wake: None,
        most: program.parallelism,
    };
    let over = program.deadline.map(|deadline| (after(round, deadline), deadline));
    match over {
        Some((at, deadline)) if now >= at => turn.give_up(program, deadline, after(at, GRACE)),
        Some((at, _)) => turn.wake_at(at),
        None => {}
    }
    let main = turn.part(&program.nodes);
    let status = match main {
        Part::UnderWay => return turn.into_next(),
        Part::Succeeded => "Succeeded",
        Part::Failed => "Failed",
    };
    let mut exit = Part::Succeeded;
    if !program.exit.is_empty() {
        if turn.progress.status.as_deref() != Some(status) {
            // A step of `onExit` runs once for each way to end.
            turn.progress.status = Some(status.to_owned());
            for node in &program.exit {
                if let Some(recorded) = turn.progress.nodes.get_mut(&node.name) {
                    *recorded = NodeProgress { attempts: recorded.attempts, ..NodeProgress::default() };
                }
            }
            turn.changed = true;
            return turn.into_next();
        }
        exit = turn.part(&program.exit);
        if exit == Part::UnderWay {
            return turn.into_next();
        }
    }
    let Turn { mut progress, stop, .. } = turn;
    progress.status = Some(status.to_owned());
    if main == Part::Succeeded && exit == Part::Succeeded {
        progress.failed_rounds = 0;
        progress.message.clear();
        return Next { stop, ..idle(progress, Phase::Succeeded, None) };
    }
    let message = failure(program, &progress);
    progress.fail(&message, now);
    let retry_at = progress.retry_at.unwrap_or(now);
    Next { stop, ..idle(progress, Phase::Failed { message, retry_at }, Some(retry_at)) }
}

fn idle<'p>(progress: Progress, phase: Phase, wake: Option<Timestamp>) -> Next<'p> {
    let (start, running, stop) = (Vec::new(), Vec::new(), Vec::new());
    Next { progress, start, running, stop, compile_again: false, phase, wake }
}

/// Steps that failed may run again.
fn begin_round(program: &Program, progress: &mut Progress) {
    (progress.retry_at, progress.started) = (None, None);
    for node in program.all() {
        if let Some(recorded) = progress.nodes.get_mut(&node.name)
            && recorded.state == State::Failed
            && !recorded.passed_over
        {
            recorded.state = State::Pending;
            (recorded.tries, recorded.first, recorded.retry_at) = (0, None, None);
        }
    }
}

fn is(progress: &Progress, node: &Node, state: State) -> bool {
    progress.of(node).is_some_and(|recorded| recorded.state == state)
}

fn grace(node: &Node) -> Duration {
    if matches!(node.action, Action::Pod(_)) { GRACE } else { Duration::ZERO }
}

/// Whether a step runs in a Pod now.
fn in_pod(progress: &Progress, node: &Node) -> bool {
    matches!(node.action, Action::Pod(_)) && is(progress, node, State::Running)
}

/// The wait after a round that failed: twice the one before, and a little of its own for each Addon.
pub(super) fn wait(progress: &Progress) -> Duration {
    let doublings = progress.failed_rounds.saturating_sub(1).min(10);
    let plain = FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT);
    let spread = progress
        .revision
        .bytes()
        .fold(progress.failed_rounds, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    plain + plain.mul_f64(f64::from(spread % 256) / 1024.0)
}

/// The first failure, in the order of the program, and how many more there are.
fn failure(program: &Program, progress: &Progress) -> String {
    let failed: Vec<(&str, &str)> = program
        .all()
        .filter_map(|node| {
            let recorded = progress.of(node)?;
            (recorded.state == State::Failed && !recorded.passed_over).then_some((&*node.name, &*recorded.message))
        })
        .collect();
    match failed.as_slice() {
        [] => "failed".to_owned(),
        [(name, message)] => format!("step {name}: {message}"),
        [(name, message), more @ ..] => format!("step {name}: {message} (and {} more)", more.len()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    UnderWay,
    Succeeded,
    Failed,
}

struct Turn<'p> {
    now: Timestamp,
    progress: Progress,
    start: Vec<&'p Node>,
    running: Vec<&'p Node>,
    stop: Vec<&'p Node>,
    /// Whether steps ended in this turn.
    changed: bool,
    wake: Option<Timestamp>,
    /// How many steps may run at once.
    most: Option<u32>,
}

impl<'p> Turn<'p> {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Ends all attempts of a round that took too long, those in Pods a while later.
    fn give_up(&mut self, program: &'p Program, deadline: Duration, last: Timestamp) {
        let message = format!("the program took longer than its {} s", deadline.as_secs());
        for node in program.nodes.iter() {
            let waits = self.progress.of(node).is_some_and(|recorded| {
                recorded.state == State::Running || (recorded.state == State::Pending && recorded.tries > 0)
            });
            if !waits {
                continue;
            }
            if self.now < last && in_pod(&self.progress, node) {
                self.wake_at(last);
                continue;
            }
            if is(&self.progress, node, State::Running) {
                self.stop.push(node);
            }
            if let Some(recorded) = self.progress.nodes.get_mut(&node.name) {
                recorded.state = State::Failed;
                recorded.message.clone_from(&message);
            }
        }
        let ended = |node: &Node| self.progress.of(node).is_some_and(|recorded| recorded.ended().is_some());
        let failed = program.nodes.iter().any(|node| is(&self.progress, node, State::Failed) && !ended(node));
        // Steps that have not begun would begin otherwise.
        let in_grace = |node: &Node| self.now < last && in_pod(&self.progress, node);
        let left = |node: &&Node| !ended(node) && !in_grace(node);
        if !failed && let Some(node) = program.nodes.iter().find(left) {
            self.progress.settle(node, State::Failed, &message);
            if let Some(recorded) = self.progress.nodes.get_mut(&node.name) {
                recorded.passed_over = false;
            }
        }
    }

    /// Sorts the steps of one part.
    fn part(&mut self, nodes: &'p [Node]) -> Part {
        self.overdue(nodes);
        let failed = |progress: &Progress| {
            nodes.iter().any(|node| {
                progress.of(node).is_some_and(|recorded| recorded.state == State::Failed && recorded.ended().is_none())
            })
        };
        let (mut under_way, mut unknown) = (false, Vec::new());
        // Once a step has failed nothing new begins; what is under way is seen to its end.
        let stopping = failed(&self.progress);
        for node in nodes {
            let recorded = self.progress.of(node);
            if recorded.is_some_and(|recorded| recorded.ended().is_some()) {
                continue;
            }
            match recorded.map_or(State::Pending, |recorded| recorded.state) {
                State::Running => {
                    under_way = true;
                    self.running.push(node);
                    if let (Some(deadline), Some(started)) = (node.deadline, recorded.and_then(|r| r.started)) {
                        self.wake_at(after(started, deadline + grace(node)));
                    }
                }
                State::Pending => {
                    let tries = recorded.map_or(0, |recorded| recorded.tries);
                    if stopping && tries == 0 {
                        continue;
                    }
                    let ready = node.after.iter().all(|at| {
                        nodes.get(*at).is_some_and(|before| {
                            self.progress.of(before).is_some_and(|recorded| recorded.ended().is_some())
                        })
                    });
                    if !ready {
                        continue;
                    }
                    under_way = true;
                    match (&node.when, recorded.and_then(|recorded| recorded.retry_at)) {
                        (When::Skip, _) => {
                            self.progress.settle(node, State::Skipped, "its condition does not hold");
                            self.changed = true;
                        }
                        (When::Unknown(_), _) => unknown.push(node),
                        (When::Run, _) if matches!(node.action, Action::Pending(_)) => unknown.push(node),
                        (When::Run, Some(at)) if self.now < at => self.wake_at(at),
                        (When::Run, _) => self.start.push(node),
                    }
                }
                State::Succeeded | State::Skipped | State::Failed => {}
            }
        }
        // All that these wait for has ended; if that happened just now, they are known a moment later.
        if !self.changed && !unknown.is_empty() {
            for node in unknown {
                let reason = match (&node.when, &node.action) {
                    (When::Unknown(reason), _) | (_, Action::Pending(reason)) => reason.as_str(),
                    _ => "not known",
                };
                self.progress.settle(node, State::Failed, reason);
            }
            self.changed = true;
        }
        if under_way {
            Part::UnderWay
        } else if failed(&self.progress) {
            Part::Failed
        } else {
            Part::Succeeded
        }
    }

    /// Ends attempts that took longer than their step may.
    fn overdue(&mut self, nodes: &'p [Node]) {
        for node in nodes {
            let Some(deadline) = node.deadline else { continue };
            let Some(recorded) = self.progress.of(node) else { continue };
            if recorded.state == State::Running
                && let Some(started) = recorded.started
                && self.now >= after(started, deadline + grace(node))
            {
                let message = format!("it took longer than its {} s", deadline.as_secs());
                self.progress.end(node, super::progress::Outcome::Failed { message }, self.now);
                self.stop.push(node);
            }
        }
    }

    fn into_next(self) -> Next<'p> {
        let Self { progress, mut start, running, stop, changed, wake, most, .. } = self;
        if let Some(most) = most {
            // What is applied is done at once, and runs nowhere.
            let mut free = (most as usize).saturating_sub(running.len());
            start.retain(|node| {
                let takes = !matches!(node.action, Action::Apply(_) | Action::Create(_));
                let goes = !takes || free > 0;
                free -= usize::from(takes && goes);
                goes
            });
        }
        let idle = start.is_empty() && running.is_empty() && !changed;
        let phase = match wake {
            Some(until) if idle => Phase::Waiting { until },
            _ => Phase::Running,
        };
        Next { progress, start, running, stop, compile_again: changed, phase, wake }
    }
}

#[cfg(test)]
#[path = "next_tests.rs"]
mod tests;
