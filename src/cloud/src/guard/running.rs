//! A call that runs, on a thread of its own, and what becomes of it when nobody waits for it any more.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;

use super::Method;
use super::core::Core;
use super::threads::Looked;
use crate::error::{CloudError, Result};
use crate::provider::CallClass;

/// How long a call that was dropped may take to be gone; one that takes longer blocks its thread.
const GONE: Duration = Duration::from_secs(1);

/// What is known of a call from outside of it.
struct Running {
    core: Arc<Core>,
    class: CallClass,
    /// Which runtime it runs in.
    runtime: usize,
    /// Its caller does not wait any more.
    cancel: CancellationToken,
    /// It is to be dropped.
    abort: CancellationToken,
    ended: CancellationToken,
    /// Given back when it ends, or when it was held for too long.
    place: Mutex<Option<OwnedSemaphorePermit>>,
}

/// Tells the end of a call, however it ends.
struct End(Arc<Running>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.place.lock().take();
        self.0.core.counts.in_flight[self.0.class as usize].fetch_sub(1, SeqCst);
        self.0.ended.cancel();
    }
}

/// Starts a call; the answer is lost if the provider is stopped first.
pub(super) fn start<T, F>(
    core: &Arc<Core>,
    method: Method,
    place: OwnedSemaphorePermit,
    cancel: CancellationToken,
    make: impl FnOnce() -> F + Send + 'static,
) -> oneshot::Receiver<Result<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let (tell, told) = oneshot::channel();
    let Some((runtime, handle)) = core.threads.current() else { return told };
    core.counts.in_flight[method.class as usize].fetch_add(1, SeqCst);
    let running = Arc::new(Running {
        core: Arc::clone(core),
        class: method.class,
        runtime,
        cancel,
        abort: CancellationToken::new(),
        ended: CancellationToken::new(),
        place: Mutex::new(Some(place)),
    });
    let end = End(Arc::clone(&running));
    let (abort, name) = (running.abort.clone(), Arc::clone(&core.name));
    let here = handle.clone();
    handle.spawn_blocking(move || {
        let call = || {
            here.block_on(async move {
                tokio::select! {
                    biased;
                    () = abort.cancelled() => None,
                    answer = make() => Some(answer),
                }
            })
        };
        // The default hook has told where; the caller is told what.
        let answer = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
            let what = words(&*panic);
            Some(Err(CloudError::Other(format!("provider {name} panicked in {}: {what}", method.name))))
        });
        drop(end);
        if let Some(answer) = answer {
            let _ = tell.send(answer);
        }
    });
    core.threads.watch().spawn(look_after(running));
    told
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Sees to it that a call whose caller is gone ends, and costs little if it does not.
async fn look_after(call: Arc<Running>) {
    tokio::select! {
        biased;
        () = call.ended.cancelled() => return,
        () = call.cancel.cancelled() => {}
    }
    let (core, limits) = (&call.core, &call.core.limits.abandoned);
    core.counts.abandoned.fetch_add(1, SeqCst);
    if !ends(&call, limits.grace).await {
        // What it waits for may be a task of the provider's that gets no thread.
        core.threads.watch().spawn(suspect(Arc::clone(core), call.runtime));
        call.abort.cancel();
        if !ends(&call, GONE).await {
            stuck(&call).await;
        }
    }
    core.counts.abandoned.fetch_sub(1, SeqCst);
}

async fn ends(call: &Running, within: Duration) -> bool {
    tokio::time::timeout(within, call.ended.cancelled()).await.is_ok()
}

/// A call that cannot be dropped: its thread is blocked.
async fn stuck(call: &Running) {
    let core = &call.core;
    core.counts.stuck.fetch_add(1, SeqCst);
    core.reckon(core.threads.exhausted());
    if !ends(call, core.limits.abandoned.keeps_place).await {
        call.place.lock().take();
        call.ended.cancelled().await;
    }
    core.counts.stuck.fetch_sub(1, SeqCst);
    core.reckon(core.threads.exhausted());
}

/// Looks whether the provider blocked more than its calls' own threads.
async fn suspect(core: Arc<Core>, runtime: usize) {
    let Some(looked) = core.threads.look_at(runtime).await else { return };
    if looked == Looked::Alive {
        return;
    }
    tracing::error!(
        provider = &*core.name,
        blocked = core.threads.blocked(),
        "the cloud provider has blocked all threads of its runtime; another one takes its place while there may be"
    );
    core.reckon(core.threads.exhausted());
    core.threads.revived(runtime).await;
    core.reckon(core.threads.exhausted());
}
