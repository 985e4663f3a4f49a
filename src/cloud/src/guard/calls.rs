//! The calls that controllers make, one function a method.

use std::sync::Arc;

use quarterdeck_runtime::facility::Authority;
use uuid::Uuid;

use super::core::Core;
use super::{Guarded, method};
use crate::error::{CloudError, Result};
use crate::model::{Deletion, Handle, LbOutcome, LoadBalancerSpec, OwnedLoadBalancer, Owner, Page, Route};
use crate::provider::{LoadBalancers, ProviderInfo, Routes, SharedProvider};

/// Pages of a list at most; a list that is longer than this is broken.
const PAGES: usize = 10_000;

fn balancers(provider: &SharedProvider) -> Result<&dyn LoadBalancers> {
    provider.load_balancers().ok_or_else(|| CloudError::NotImplemented("load balancers".to_owned()))
}

fn routes(provider: &SharedProvider) -> Result<&dyn Routes> {
    provider.routes().ok_or_else(|| CloudError::NotImplemented("routes".to_owned()))
}

/// All pages of a list, each asked for with what the one before named.
async fn pages<T, F>(page: impl Fn(Option<String>) -> F) -> Result<Vec<T>>
where
    F: Future<Output = Result<Page<T>>>,
{
    let mut all = Vec::new();
    let mut next = None;
    for _ in 0..PAGES {
        let got = page(next).await?;
        all.extend(got.items);
        next = got.next;
        if next.is_none() {
            return Ok(all);
        }
    }
    Err(CloudError::Other(format!("the list has more than {PAGES} pages")))
}

impl Guarded {
    /// What the provider says of itself: what it said before, unless it may be another one now.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn info(&self) -> Result<Arc<ProviderInfo>> {
        self.core.info().await
    }

    /// Whether the cloud answers and accepts the credentials.
    ///
    /// # Errors
    /// Why not.
    pub async fn probe(&self) -> Result<()> {
        self.core.probe().await
    }

    /// All load balancers of this owner: none, one, or duplicates.
    ///
    /// # Errors
    /// When the provider cannot say.
    pub async fn load_balancers_of(&self, owner: &Owner) -> Result<Vec<OwnedLoadBalancer>> {
        let owner = owner.clone();
        self.core
            .call(method::GET_BALANCERS, None, Uuid::new_v4(), |provider, call| async move {
                balancers(&provider)?.get(&call, &owner).await
            })
            .await
    }

    /// Makes or changes a load balancer. `op_id` stays the same while the same change is tried again.
    ///
    /// # Errors
    /// When it was not done, or nobody knows: [`CloudError::maybe_applied`].
    pub async fn ensure_load_balancer(
        &self,
        authority: &Authority,
        op_id: Uuid,
        spec: &LoadBalancerSpec,
        known: Option<&Handle>,
    ) -> Result<LbOutcome> {
        let (spec, known) = (spec.clone(), known.cloned());
        self.core
            .call(method::ENSURE_BALANCER, Some(authority), op_id, |provider, call| async move {
                balancers(&provider)?.ensure(&call, &spec, known.as_ref()).await
            })
            .await
    }

    /// Changes which nodes get traffic.
    ///
    /// # Errors
    /// As [`Self::ensure_load_balancer`]; [`CloudError::NotFound`] if the load balancer is gone.
    pub async fn update_backends(
        &self,
        authority: &Authority,
        op_id: Uuid,
        spec: &LoadBalancerSpec,
        known: &Handle,
    ) -> Result<LbOutcome> {
        let (spec, known) = (spec.clone(), known.clone());
        self.core
            .call(method::UPDATE_BACKENDS, Some(authority), op_id, |provider, call| async move {
                balancers(&provider)?.update_backends(&call, &spec, &known).await
            })
            .await
    }

    /// Removes everything that belongs to the owner's load balancer.
    ///
    /// # Errors
    /// When something may be left.
    pub async fn ensure_load_balancer_deleted(
        &self,
        authority: &Authority,
        op_id: Uuid,
        owner: &Owner,
        known: Option<&Handle>,
    ) -> Result<Deletion> {
        let (owner, known) = (owner.clone(), known.cloned());
        self.core
            .call(method::DELETE_BALANCER, Some(authority), op_id, |provider, call| async move {
                balancers(&provider)?.ensure_deleted(&call, &owner, known.as_ref()).await
            })
            .await
    }

    /// All load balancers of this cluster.
    ///
    /// # Errors
    /// When a page could not be had: nothing may be concluded then.
    pub async fn owned_load_balancers(&self) -> Result<Vec<OwnedLoadBalancer>> {
        pages(|from| {
            self.core.call(method::LIST_BALANCERS, None, Uuid::new_v4(), |provider, call| async move {
                balancers(&provider)?.list_owned(&call, from.as_deref()).await
            })
        })
        .await
    }

    /// All routes of this cluster.
    ///
    /// # Errors
    /// When a page could not be had: nothing may be concluded then.
    pub async fn routes(&self) -> Result<Vec<Route>> {
        pages(|from| {
            self.core.call(method::LIST_ROUTES, None, Uuid::new_v4(), |provider, call| async move {
                routes(&provider)?.list(&call, from.as_deref()).await
            })
        })
        .await
    }

    /// Makes a route.
    ///
    /// # Errors
    /// When it was not done, or nobody knows.
    pub async fn create_route(&self, authority: &Authority, op_id: Uuid, route: &Route) -> Result<()> {
        let route = route.clone();
        self.core
            .call(method::CREATE_ROUTE, Some(authority), op_id, |provider, call| async move {
                routes(&provider)?.create(&call, &route).await
            })
            .await
    }

    /// Has a destination lead elsewhere.
    ///
    /// # Errors
    /// When it was not done, or nobody knows.
    pub async fn replace_route(&self, authority: &Authority, op_id: Uuid, old: &Route, new: &Route) -> Result<()> {
        let (old, new) = (old.clone(), new.clone());
        self.core
            .call(method::REPLACE_ROUTE, Some(authority), op_id, |provider, call| async move {
                routes(&provider)?.replace(&call, &old, &new).await
            })
            .await
    }

    /// Removes a route.
    ///
    /// # Errors
    /// When it was not done, or nobody knows.
    pub async fn delete_route(&self, authority: &Authority, op_id: Uuid, route: &Route) -> Result<()> {
        let route = route.clone();
        self.core
            .call(method::DELETE_ROUTE, Some(authority), op_id, |provider, call| async move {
                routes(&provider)?.delete(&call, &route).await
            })
            .await
    }
}

impl Core {
    /// Whether the cloud answers and accepts the credentials.
    pub(super) async fn probe(self: &Arc<Self>) -> Result<()> {
        let ask = |provider: SharedProvider, call| async move { provider.probe(&call).await };
        self.call(method::PROBE, None, Uuid::new_v4(), ask).await
    }
}
