//! A provider that answers what it is told to, and remembers what it was asked.

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::{CloudError, Result};
use crate::model::{
    Answers, Deletion, Handle, Ingress, IngressPoint, LbOutcome, LoadBalancerSpec, NodeRef, OwnedLoadBalancer, Owner,
    Page, Route,
};
use crate::provider::{CallCtx, Instances, LoadBalancers, Provider, ProviderInfo, Routes};

/// A question, as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Asked {
    Info,
    Probe,
    GetMany(Vec<NodeRef>),
    Get(Owner),
    Ensure(LoadBalancerSpec, Option<Handle>),
    UpdateBackends(LoadBalancerSpec, Handle),
    EnsureDeleted(Owner, Option<Handle>),
    ListOwned(Option<String>),
    List(Option<String>),
    Create(Route),
    Replace(Route, Route),
    Delete(Route),
}

/// What it does with a call.
#[derive(Clone, Debug, Default)]
pub(super) enum Mood {
    #[default]
    Answers,
    Fails(CloudError),
    /// Until the caller leaves.
    Hangs,
    Panics,
}

pub(super) struct Scripted {
    pub(super) asked: Mutex<Vec<(CallCtx, Asked)>>,
    pub(super) mood: Mutex<Mood>,
    /// Notified when a call began.
    pub(super) began: Notify,
    /// Notified when a hanging call was cancelled.
    pub(super) left: Notify,
    pub(super) info: Mutex<ProviderInfo>,
    pub(super) answers: Mutex<Answers>,
    pub(super) owned: Mutex<Page<OwnedLoadBalancer>>,
    pub(super) outcome: Mutex<LbOutcome>,
    pub(super) deletion: Mutex<Deletion>,
    pub(super) routes: Mutex<Page<Route>>,
    /// Whether it has instances, load balancers and routes.
    pub(super) able: bool,
}

impl Default for Scripted {
    fn default() -> Self {
        let ingress = Ingress { at: IngressPoint::Ip("192.0.2.1".parse().unwrap()), proxy_mode: false };
        let outcome =
            LbOutcome::Ready { ingress: vec![ingress], handle: Handle("lb".into()), fingerprint: String::new() };
        Self {
            asked: Mutex::default(),
            mood: Mutex::default(),
            began: Notify::new(),
            left: Notify::new(),
            info: Mutex::new(ProviderInfo {
                name: "scripted".into(),
                schemes: vec!["scripted".into()],
                max_batch: 100,
                instances: true,
                load_balancers: true,
                routes: true,
                needs_addresses: false,
            }),
            answers: Mutex::default(),
            owned: Mutex::new(Page { items: vec![], next: None }),
            outcome: Mutex::new(outcome),
            deletion: Mutex::new(Deletion::Gone),
            routes: Mutex::new(Page { items: vec![], next: None }),
            able: true,
        }
    }
}

impl Scripted {
    async fn take(&self, call: &CallCtx, asked: Asked) -> Result<()> {
        self.asked.lock().push((call.clone(), asked));
        self.began.notify_one();
        let mood = self.mood.lock().clone();
        match mood {
            Mood::Answers => Ok(()),
            Mood::Fails(error) => Err(error),
            Mood::Hangs => {
                call.cancel.cancelled().await;
                self.left.notify_one();
                Err(CloudError::Other("nobody reads this".into()))
            }
            Mood::Panics => panic!("as it was told to"),
        }
    }
}

#[async_trait]
impl Provider for Scripted {
    async fn info(&self, call: &CallCtx) -> Result<ProviderInfo> {
        self.take(call, Asked::Info).await?;
        Ok(self.info.lock().clone())
    }
    async fn probe(&self, call: &CallCtx) -> Result<()> {
        self.take(call, Asked::Probe).await
    }
    fn instances(&self) -> Option<&dyn Instances> {
        self.able.then_some(self)
    }
    fn load_balancers(&self) -> Option<&dyn LoadBalancers> {
        self.able.then_some(self)
    }
    fn routes(&self) -> Option<&dyn Routes> {
        self.able.then_some(self)
    }
}

#[async_trait]
impl Instances for Scripted {
    async fn get_many(&self, call: &CallCtx, nodes: &[NodeRef]) -> Result<Answers> {
        self.take(call, Asked::GetMany(nodes.to_vec())).await?;
        Ok(self.answers.lock().clone())
    }
}

#[async_trait]
impl LoadBalancers for Scripted {
    async fn get(&self, call: &CallCtx, owner: &Owner) -> Result<Vec<OwnedLoadBalancer>> {
        self.take(call, Asked::Get(owner.clone())).await?;
        Ok(self.owned.lock().items.clone())
    }
    async fn ensure(&self, call: &CallCtx, spec: &LoadBalancerSpec, known: Option<&Handle>) -> Result<LbOutcome> {
        self.take(call, Asked::Ensure(spec.clone(), known.cloned())).await?;
        Ok(self.outcome.lock().clone())
    }
    async fn update_backends(&self, call: &CallCtx, spec: &LoadBalancerSpec, known: &Handle) -> Result<LbOutcome> {
        self.take(call, Asked::UpdateBackends(spec.clone(), known.clone())).await?;
        Ok(self.outcome.lock().clone())
    }
    async fn ensure_deleted(&self, call: &CallCtx, owner: &Owner, known: Option<&Handle>) -> Result<Deletion> {
        self.take(call, Asked::EnsureDeleted(owner.clone(), known.cloned())).await?;
        Ok(*self.deletion.lock())
    }
    async fn list_owned(&self, call: &CallCtx, page: Option<&str>) -> Result<Page<OwnedLoadBalancer>> {
        self.take(call, Asked::ListOwned(page.map(str::to_owned))).await?;
        Ok(self.owned.lock().clone())
    }
}

#[async_trait]
impl Routes for Scripted {
    async fn list(&self, call: &CallCtx, page: Option<&str>) -> Result<Page<Route>> {
        self.take(call, Asked::List(page.map(str::to_owned))).await?;
        Ok(self.routes.lock().clone())
    }
    async fn create(&self, call: &CallCtx, route: &Route) -> Result<()> {
        self.take(call, Asked::Create(route.clone())).await
    }
    async fn replace(&self, call: &CallCtx, old: &Route, new: &Route) -> Result<()> {
        self.take(call, Asked::Replace(old.clone(), new.clone())).await
    }
    async fn delete(&self, call: &CallCtx, route: &Route) -> Result<()> {
        self.take(call, Asked::Delete(route.clone())).await
    }
}
