//! Routes: one `MetalRoute` for each node.

use async_trait::async_trait;
use quarterdeck_api::cloud::metal::MetalRoute;

use super::Metal;
use super::balancers::TRIES;
use super::objects::{self, Plan};
use crate::error::{CloudError, Result};
use crate::model::{Page, Route};
use crate::provider::{CallCtx, Routes};

impl Metal {
    /// Reads a node's object, plans and writes, until nobody else wrote in between.
    async fn settle_route(
        &self,
        node: &str,
        plan: impl Fn(Option<MetalRoute>) -> Result<Plan<MetalRoute>> + Send + Sync,
    ) -> Result<()> {
        let mut last = CloudError::Conflict(format!("MetalRoute {node} is written by somebody else all the time"));
        // The networks of a node are in one object, and may be asked for at once.
        let _turn = self.turns.take(&format!("route/{node}")).await;
        for _ in 0..TRIES {
            let stored = self.routers.find::<MetalRoute>(node).await?;
            let written = match plan(stored)? {
                Plan::Keep(_) | Plan::Nothing => return Ok(()),
                Plan::Create(object) => self.routers.create(&object).await,
                Plan::Replace(object) => self.routers.replace(&object).await,
                Plan::Delete(object) => self.routers.delete(&object, true).await,
            };
            match written {
                Err(error @ CloudError::Conflict(_)) => last = error,
                written => return written,
            }
        }
        Err(last)
    }
}

#[async_trait]
impl Routes for Metal {
    async fn list(&self, call: &CallCtx, page: Option<&str>) -> Result<Page<Route>> {
        let page = self.routers.page::<MetalRoute>(objects::selector(&call.cluster), self.shared.page(), page).await?;
        Ok(Page { items: page.items.iter().flat_map(objects::routes).collect(), next: page.next })
    }

    async fn create(&self, call: &CallCtx, route: &Route) -> Result<()> {
        let (cluster, epoch) = (call.cluster.to_string(), call.lease_epoch);
        self.settle_route(&route.node, |stored| objects::plan_route(stored, route, &cluster, epoch)).await
    }

    async fn replace(&self, call: &CallCtx, old: &Route, new: &Route) -> Result<()> {
        // The new one first: a network that two nodes have for a moment leads somewhere all the time.
        self.create(call, new).await?;
        if old.node == new.node && old.destination.trunc() == new.destination.trunc() {
            return Ok(());
        }
        self.delete(call, old).await
    }

    async fn delete(&self, call: &CallCtx, route: &Route) -> Result<()> {
        let (cluster, epoch) = (call.cluster.to_string(), call.lease_epoch);
        self.settle_route(&route.node, |stored| objects::plan_no_route(stored, route, &cluster, epoch)).await
    }
}
