//! One worker: takes keys, waits until caches show our own writes, reconciles, and tells the queue
//! what became of the key.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::failing::State;
use super::metrics::Outcome;
use super::{ControllerUnit, Means};
use crate::client::{Class, WriteLog};
use crate::controller::{Action, Controller, Cx, Error};
use crate::queue::Taken;

/// When a key is looked at again that a shut gate refused; a real loss of the lease stops the
/// worker long before.
const GATE_RETRY: Duration = Duration::from_millis(100);

/// How a reconcile ended.
enum Ended {
    Finished(Result<Action, Error>),
    Panicked(String),
    TooLong,
    Cancelled,
}

impl<C: Controller> ControllerUnit<C> {
    /// Serves keys until the tenure ends.
    pub(super) async fn work(self: &Arc<Self>, means: &Means) {
        loop {
            let taken = tokio::select! {
                biased;
                () = means.stop.cancelled() => return,
                taken = self.queue.take() => taken,
            };
            if self.waiting.park_until_visible(&taken.key, means) {
                continue;
            }
            self.serve(taken, means).await;
        }
    }

    async fn serve(&self, taken: Taken<C::Key>, means: &Means) {
        let Taken { key, failures } = taken;
        let log = WriteLog::default();
        let cx = Cx {
            api: means.api.logging_to(log.clone()),
            recorder: means.recorder.clone(),
            authority: means.authority.clone(),
            stop: means.stop.clone(),
            attempt: failures,
        };
        let span = crate::span!(
            "reconcile",
            controller = self.descriptor.name,
            %key,
            attempt = failures,
            epoch = means.authority.epoch,
            result = tracing::field::Empty,
            requeue_ms = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        );
        let started = Instant::now();
        let ended = self.run(cx, &key, means).instrument(span.clone()).await;
        let waits_for_own_writes = self.waiting.note(&key, log.take());
        let result = outcome(&ended);
        span.record("result", result.label());
        if let Ended::Finished(Ok(Action::RequeueAfter(after))) = &ended {
            span.record("requeue_ms", u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        }
        if result.is_fault() {
            span.record("otel.status_code", "ERROR");
        }
        drop(span);
        self.metrics.observe(&key, started.elapsed(), result);
        self.give_back(&key, failures, ended, waits_for_own_writes);
    }

    /// Runs one reconcile under its deadlines; a panic ends only this one.
    async fn run(&self, cx: Cx, key: &C::Key, means: &Means) -> Ended {
        let started = Instant::now();
        let mut reconcile =
            std::pin::pin!(AssertUnwindSafe(self.controller.reconcile(&cx, key.clone())).catch_unwind());
        let hard = started + self.deadlines.hard;
        let mut warned = false;
        loop {
            let soft = if warned { hard } else { started + self.deadlines.soft };
            tokio::select! {
                biased;
                () = means.stop.cancelled() => return Ended::Cancelled,
                ended = &mut reconcile => {
                    return match ended {
                        Ok(result) => Ended::Finished(result),
                        Err(panic) => Ended::Panicked(panic_text(&*panic)),
                    };
                }
                () = tokio::time::sleep_until(soft.min(hard)) => {
                    if warned || hard <= soft {
                        return Ended::TooLong;
                    }
                    warned = true;
                    tracing::warn!(
                        controller = self.descriptor.name,
                        %key,
                        seconds = self.deadlines.soft.as_secs(),
                        "a reconcile takes long"
                    );
                }
            }
        }
    }

    fn give_back(&self, key: &C::Key, failures: u32, ended: Ended, waits_for_own_writes: bool) {
        self.tell(key, failures, &ended);
        let error = match ended {
            Ended::Finished(Ok(Action::Done)) => return self.queue.done(key),
            Ended::Finished(Ok(Action::RequeueAfter(delay))) => return self.queue.done_until(key, delay),
            Ended::Cancelled => return self.queue.give_up(key),
            Ended::Panicked(_) | Ended::TooLong => return self.retry(key, failures, None),
            Ended::Finished(Err(error)) => error,
        };
        match error.class() {
            Class::NotLeader => self.queue.done_until(key, GATE_RETRY),
            // It comes back once the cache shows the version that was in the way.
            Class::Conflict if waits_for_own_writes => self.queue.give_up(key),
            Class::Terminal => self.queue.done(key),
            Class::Conflict | Class::Transient => self.retry(key, failures, Some(&error)),
        }
    }

    /// Has a key tried again later, unless that was done too often.
    fn retry(&self, key: &C::Key, failures: u32, error: Option<&Error>) {
        let controller = self.descriptor.name;
        let delay = self.queue.retry(key, &self.setup.retry);
        let error = error.map(|error| error as &dyn std::error::Error);
        tracing::debug!(controller, %key, error, ?delay, "will be retried");
        let last_words = error.map_or_else(|| "its last try did not end well".to_owned(), ToString::to_string);
        if delay.is_none() && self.failing.note(key, State::GivenUp, failures, &last_words) {
            tracing::warn!(controller, %key, state = "given-up", error = last_words, "a key was given up until it changes");
        }
    }

    /// A line of the log when a key begins to fail, fails otherwise, or is well again.
    fn tell(&self, key: &C::Key, failures: u32, ended: &Ended) {
        let controller = self.descriptor.name;
        let (state, error) = match ended {
            Ended::Cancelled => return,
            Ended::Finished(Ok(_)) => {
                if self.failing.is_well(key) {
                    tracing::info!(controller, %key, state = "well", failures, "a key that failed is well again");
                }
                return;
            }
            Ended::Panicked(text) => (State::Panicked, text.clone()),
            Ended::TooLong => (State::TooLong, format!("it did not end within {:?}", self.deadlines.hard)),
            Ended::Finished(Err(error)) => match error.class() {
                Class::NotLeader => return,
                Class::Terminal => (State::GivenUp, chain(error)),
                Class::Transient => (State::Retrying, chain(error)),
                Class::Conflict => (State::Conflicting, chain(error)),
            },
        };
        if !self.failing.note(key, state, failures, &error) {
            return;
        }
        let state_name = state.name();
        match state {
            State::Panicked | State::TooLong => {
                tracing::error!(controller, %key, state = state_name, error, "a key fails");
            }
            _ => tracing::warn!(controller, %key, state = state_name, error, "a key fails"),
        }
    }
}

fn outcome(ended: &Ended) -> Outcome {
    match ended {
        Ended::Finished(Ok(Action::Done)) => Outcome::Success,
        Ended::Finished(Ok(Action::RequeueAfter(_))) => Outcome::RequeueAfter,
        Ended::Finished(Err(error)) => match error.class() {
            Class::Transient => Outcome::Error,
            Class::Conflict => Outcome::Conflict,
            Class::Terminal => Outcome::Terminal,
            Class::NotLeader => Outcome::NotLeader,
        },
        Ended::Panicked(_) => Outcome::Panic,
        Ended::TooLong => Outcome::Timeout,
        Ended::Cancelled => Outcome::Cancelled,
    }
}

/// An error with what caused it.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
