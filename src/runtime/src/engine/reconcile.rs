//! One worker: takes keys, waits until caches show our own writes, reconciles, and tells the queue
//! what became of the key.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;
use tracing::Instrument as _;

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
        let span = tracing::debug_span!("reconcile", controller = self.descriptor.name, %key, attempt = failures);
        let started = Instant::now();
        let ended = self.run(cx, &key, means).instrument(span).await;
        let waits_for_own_writes = self.waiting.note(&key, log.take());
        self.metrics.observe(&key, started.elapsed(), outcome(&ended));
        self.give_back(&key, ended, waits_for_own_writes);
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
                    tracing::warn!(controller = self.descriptor.name, %key, dur_s = self.deadlines.soft.as_secs(),
                        "a reconcile takes long");
                }
            }
        }
    }

    fn give_back(&self, key: &C::Key, ended: Ended, waits_for_own_writes: bool) {
        let controller = self.descriptor.name;
        let error = match ended {
            Ended::Finished(Ok(Action::Done)) => return self.queue.done(key),
            Ended::Finished(Ok(Action::RequeueAfter(delay))) => return self.queue.done_until(key, delay),
            Ended::Cancelled => return self.queue.give_up(key),
            Ended::Panicked(text) => {
                tracing::error!(controller, %key, panic = text, "a reconcile panicked");
                self.retry(key);
                return;
            }
            Ended::TooLong => {
                tracing::error!(controller, %key, dur_s = self.deadlines.hard.as_secs(), "a reconcile was cancelled");
                self.retry(key);
                return;
            }
            Ended::Finished(Err(error)) => error,
        };
        match error.class() {
            Class::NotLeader => self.queue.done_until(key, GATE_RETRY),
            // It comes back once the cache shows the version that was in the way.
            Class::Conflict if waits_for_own_writes => self.queue.give_up(key),
            Class::Terminal => {
                tracing::warn!(controller, %key, error = &error as &dyn std::error::Error, "given up until it changes");
                self.queue.done(key);
            }
            Class::Conflict | Class::Transient => {
                let delay = self.retry(key);
                tracing::warn!(controller, %key, error = &error as &dyn std::error::Error, ?delay, "will be retried");
            }
        }
    }

    fn retry(&self, key: &C::Key) -> Option<Duration> {
        self.queue.retry(key, &self.setup.retry)
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

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
