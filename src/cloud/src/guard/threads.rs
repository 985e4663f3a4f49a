//! The threads of one provider.
//!
//! Every call has a thread of its own, so that one that blocks it (a client without async, a `sleep`, a busy loop) costs
//! no other call anything. What calls leave running besides — a client's connection task — shares a few threads; if all
//! of those get blocked, a further runtime takes their place.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

/// Threads for what calls leave running.
pub(super) const SHARED: usize = 2;
/// Runtimes that a provider may block.
const MOST: usize = 4;
/// How long a runtime may take to run a task that does nothing.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);
/// How often a blocked runtime is asked again.
const AGAIN: Duration = Duration::from_secs(5);

struct Slot {
    runtime: Runtime,
    blocked: bool,
    /// Whether somebody is looking after it already.
    suspect: bool,
}

/// What came of a look at a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// It runs tasks.
    Alive,
    /// It does not; another one is in use now.
    Replaced,
    /// It does not, and there may be no more.
    Exhausted,
}

/// The runtimes of one provider.
pub(super) struct Threads {
    name: String,
    /// How many calls may run at once in one runtime.
    calls: usize,
    slots: Mutex<Slots>,
    /// Runs none of the provider's code: it looks after the calls.
    watch: Mutex<Option<Runtime>>,
    watch_handle: Handle,
}

#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    current: usize,
    stopped: bool,
}

impl Threads {
    /// Starts the first runtime.
    pub(super) fn start(name: &str, calls: usize) -> std::io::Result<Self> {
        let watch = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .thread_name(format!("cloud-{name}-w"))
            .enable_all()
            .build()?;
        let threads = Self {
            name: name.to_owned(),
            calls,
            slots: Mutex::default(),
            watch_handle: watch.handle().clone(),
            watch: Mutex::new(Some(watch)),
        };
        let first = threads.make()?;
        threads.slots.lock().all.push(first);
        Ok(threads)
    }

    fn make(&self) -> std::io::Result<Slot> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(SHARED)
            .max_blocking_threads(self.calls)
            .thread_name(format!("cloud-{}", self.name))
            .enable_all()
            .build()?;
        Ok(Slot { runtime, blocked: false, suspect: false })
    }

    /// The runtime for a call that begins now, and its number; `None` once stopped.
    pub(super) fn current(&self) -> Option<(usize, Handle)> {
        let slots = self.slots.lock();
        let slot = slots.all.get(slots.current).filter(|_| !slots.stopped)?;
        Some((slots.current, slot.runtime.handle().clone()))
    }

    /// Where calls are looked after.
    pub(super) fn watch(&self) -> &Handle {
        &self.watch_handle
    }

    /// Looks whether a runtime still runs tasks, and takes another one if it does not. `None` if somebody is at it
    /// already.
    pub(super) async fn look_at(&self, number: usize) -> Option<Looked> {
        let handle = {
            let mut slots = self.slots.lock();
            let slot = slots.all.get_mut(number)?;
            if std::mem::replace(&mut slot.suspect, true) {
                return None;
            }
            slot.runtime.handle().clone()
        };
        if alive(&handle).await {
            self.tell(number, false);
            return Some(Looked::Alive);
        }
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.all.get_mut(number) {
            slot.blocked = true;
        }
        if slots.stopped || slots.current != number {
            return Some(Looked::Replaced);
        }
        if let Some(free) = slots.all.iter().position(|slot| !slot.blocked) {
            slots.current = free;
            return Some(Looked::Replaced);
        }
        if slots.all.len() < MOST
            && let Ok(slot) = self.make()
        {
            slots.all.push(slot);
            slots.current = slots.all.len() - 1;
            return Some(Looked::Replaced);
        }
        Some(Looked::Exhausted)
    }

    /// Waits until a blocked runtime runs tasks again; it may be used again then.
    pub(super) async fn revived(&self, number: usize) {
        let handle = self.slots.lock().all.get(number).map(|slot| slot.runtime.handle().clone());
        let Some(handle) = handle else { return };
        while !alive(&handle).await {
            tokio::time::sleep(AGAIN).await;
        }
        self.tell(number, false);
    }

    fn tell(&self, number: usize, blocked: bool) {
        let mut slots = self.slots.lock();
        let current = slots.current;
        let current_blocked = slots.all.get(current).is_some_and(|slot| slot.blocked);
        if let Some(slot) = slots.all.get_mut(number) {
            (slot.blocked, slot.suspect) = (blocked, false);
        }
        if current_blocked && !blocked {
            slots.current = number;
        }
    }

    /// Runtimes that a provider has blocked.
    pub(super) fn blocked(&self) -> usize {
        self.slots.lock().all.iter().filter(|slot| slot.blocked).count()
    }

    /// Whether it has blocked all of them, and gets no more.
    pub(super) fn exhausted(&self) -> bool {
        let slots = self.slots.lock();
        !slots.all.is_empty() && slots.all.iter().all(|slot| slot.blocked)
    }

    /// Ends all of it without waiting: a provider may be stuck in there.
    pub(super) fn stop(&self) {
        let slots = {
            let mut slots = self.slots.lock();
            slots.stopped = true;
            std::mem::take(&mut slots.all)
        };
        for slot in slots {
            slot.runtime.shutdown_background();
        }
        if let Some(watch) = self.watch.lock().take() {
            watch.shutdown_background();
        }
    }
}

/// Whether a runtime runs tasks.
async fn alive(handle: &Handle) -> bool {
    let sign = handle.spawn(async {});
    tokio::time::timeout(SIGN_OF_LIFE, sign).await.is_ok()
}
