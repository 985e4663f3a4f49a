//! A provider that does what it is told, also what no provider should.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::{Condvar, Mutex};
use tokio_util::sync::CancellationToken;

use crate::error::{CloudError, Result};
use crate::model::{Answers, Lookup, NodeRef, Page, Proof, Route};
use crate::provider::{CallCtx, Instances, Provider, ProviderInfo, Routes};

/// What a call does.
#[derive(Clone)]
pub(super) enum Does {
    /// It answers.
    Answer,
    /// It fails.
    Fail(CloudError),
    /// It never ends, but can be dropped.
    Pend,
    /// It blocks its thread until [`Wild::release`].
    Block,
    /// It blocks the threads that it shares with others, and waits for a task there.
    BlockShared,
    /// It panics.
    Panic,
}

#[derive(Default)]
pub(super) struct Wild {
    does: Mutex<HashMap<&'static str, Does>>,
    /// Names and contexts of the calls that were begun.
    pub(super) calls: Mutex<Vec<(&'static str, CallCtx)>>,
    /// Calls that were dropped before their end.
    pub(super) dropped: Arc<Mutex<usize>>,
    held: Arc<Held>,
    /// How often it became another one, and its schemes since.
    another: Mutex<(u64, Vec<String>)>,
}

/// Threads that are held until they are released.
#[derive(Default)]
struct Held {
    /// Whether they are released, and how many were held.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Held {
    /// Blocks the thread that it is called on.
    fn hold(&self) {
        let mut state = self.state.lock();
        state.1 += 1;
        while !state.0 {
            self.changed.wait(&mut state);
        }
    }
}

struct Dropped(Arc<Mutex<usize>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        *self.0.lock() += 1;
    }
}

impl Wild {
    pub(super) fn that(does: &[(&'static str, Does)]) -> Arc<Self> {
        let wild = Self::default();
        wild.does.lock().extend(does.iter().cloned());
        Arc::new(wild)
    }

    /// Has calls of a method do this from now on.
    pub(super) fn tell(&self, method: &'static str, does: Does) {
        self.does.lock().insert(method, does);
    }

    /// Has it become another one, with these schemes.
    pub(super) fn become_another(&self, schemes: &[&str]) {
        let mut another = self.another.lock();
        *another = (another.0 + 1, schemes.iter().map(|scheme| (*scheme).to_owned()).collect());
    }

    /// Lets go of all threads.
    pub(super) fn release(&self) {
        self.held.state.lock().0 = true;
        self.held.changed.notify_all();
    }

    /// How many threads it has blocked so far.
    pub(super) fn blocked(&self) -> usize {
        self.held.state.lock().1
    }

    /// How often a method was called.
    pub(super) fn count(&self, method: &str) -> usize {
        self.calls.lock().iter().filter(|(name, _)| *name == method).count()
    }

    /// The token of the last call of a method.
    pub(super) fn last_token(&self, method: &str) -> CancellationToken {
        let calls = self.calls.lock();
        calls.iter().rev().find(|(name, _)| *name == method).expect("there was a call").1.cancel.clone()
    }

    /// The numbers of tenures that a method was called with.
    pub(super) fn epochs(&self, method: &str) -> Vec<u64> {
        self.calls.lock().iter().filter(|(name, _)| *name == method).map(|(_, call)| call.lease_epoch).collect()
    }

    async fn act(&self, method: &'static str, call: &CallCtx) -> Result<()> {
        self.calls.lock().push((method, call.clone()));
        let does = self.does.lock().get(method).cloned().unwrap_or(Does::Answer);
        match does {
            Does::Answer => Ok(()),
            Does::Fail(error) => Err(error),
            Does::Pend => {
                let _dropped = Dropped(Arc::clone(&self.dropped));
                std::future::pending().await
            }
            Does::Block => {
                self.held.hold();
                Ok(())
            }
            Does::BlockShared => {
                for _ in 0..8 {
                    let held = Arc::clone(&self.held);
                    tokio::spawn(async move { held.hold() });
                }
                let _ = tokio::spawn(async {}).await;
                std::future::pending().await
            }
            Does::Panic => panic!("out of cheese"),
        }
    }
}

impl Drop for Wild {
    fn drop(&mut self) {
        self.release();
    }
}

#[async_trait]
impl Provider for Wild {
    fn incarnation(&self) -> u64 {
        self.another.lock().0
    }

    async fn info(&self, call: &CallCtx) -> Result<ProviderInfo> {
        self.act("identity.info", call).await?;
        let (_, schemes) = self.another.lock().clone();
        Ok(ProviderInfo {
            name: "wild".to_owned(),
            schemes: if schemes.is_empty() { vec!["wild".to_owned()] } else { schemes },
            max_batch: 100,
            instances: true,
            load_balancers: false,
            routes: true,
            needs_addresses: false,
        })
    }

    async fn probe(&self, call: &CallCtx) -> Result<()> {
        self.act("identity.probe", call).await
    }

    fn instances(&self) -> Option<&dyn Instances> {
        Some(self)
    }

    fn routes(&self) -> Option<&dyn Routes> {
        Some(self)
    }
}

#[async_trait]
impl Instances for Wild {
    async fn get_many(&self, call: &CallCtx, nodes: &[NodeRef]) -> Result<Answers> {
        self.act("instances.get_many", call).await?;
        let absent = || Ok(Lookup::Absent(Proof { evidence: String::new() }));
        let nodes = nodes.iter().map(|node| (node.clone(), absent())).collect();
        Ok(Answers { account: "acme".to_owned(), nodes })
    }
}

#[async_trait]
impl Routes for Wild {
    async fn list(&self, call: &CallCtx, _: Option<&str>) -> Result<Page<Route>> {
        self.act("routes.list", call).await?;
        Ok(Page { items: Vec::new(), next: None })
    }

    async fn create(&self, call: &CallCtx, _: &Route) -> Result<()> {
        self.act("routes.create", call).await
    }

    async fn delete(&self, call: &CallCtx, _: &Route) -> Result<()> {
        self.act("routes.delete", call).await
    }
}

pub(super) fn route() -> Route {
    Route {
        name: "r".to_owned(),
        destination: "10.0.0.0/24".parse().unwrap(),
        node: "n".to_owned(),
        provider_id: String::new(),
        next_hops: Vec::new(),
        blackhole: false,
    }
}
