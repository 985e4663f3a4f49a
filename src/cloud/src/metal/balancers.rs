//! Load balancers: one `MetalLoadBalancer` for each Service.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use quarterdeck_api::cloud::metal::{LoadBalancerSpec, MetalLoadBalancer};
use tokio::time::Instant;

use super::Metal;
use super::objects::{self, Plan};
use crate::error::{CloudError, Result};
use crate::model::{self, Deletion, Handle, Ingress, IngressPoint, LbOutcome, OwnedLoadBalancer, Owner, Page};
use crate::provider::{CallCtx, LoadBalancers};

/// How often a write that lost a race is tried at once.
pub(super) const TRIES: usize = 5;
/// How soon to ask whether each address has a gateway.
const POLL: Duration = Duration::from_secs(1);
/// The same, of a load balancer that has waited longer than [`YOUNG`]: there may be no gateway for hours.
const POLL_SELDOM: Duration = Duration::from_secs(15);
/// For how long a load balancer counts as new.
const YOUNG: Duration = Duration::from_secs(60);
/// How soon to ask whether agents let go; longer than they take to report.
const LETTING_GO: Duration = Duration::from_secs(2);
/// How soon a deletion is tried again that lost a race.
const AGAIN: Duration = Duration::from_millis(200);
/// After how long it is said whom a deletion waits for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a deletion waits for agents that live and do not let go.
const LONGEST: Duration = Duration::from_secs(120);
/// How long it waits if nobody knows what agents have.
const LONGEST_BLIND: Duration = Duration::from_secs(10);
/// What is remembered of deletions that nobody asked about again.
const FORGOTTEN: Duration = Duration::from_secs(3600);

#[async_trait]
impl LoadBalancers for Metal {
    async fn get(&self, call: &CallCtx, owner: &Owner) -> Result<Vec<OwnedLoadBalancer>> {
        let stored = self.balancers.find::<MetalLoadBalancer>(&owner.uid).await?;
        let own = stored.filter(|stored| *stored.spec.owner.cluster == *call.cluster.0);
        Ok(own.iter().map(as_owned).collect())
    }

    async fn ensure(&self, call: &CallCtx, spec: &model::LoadBalancerSpec, _: Option<&Handle>) -> Result<LbOutcome> {
        let wanted = objects::wanted(spec)?;
        self.going.lock().remove(&spec.owner.uid);
        self.settle(&spec.owner.uid, |stored| objects::plan_balancer(stored, wanted.clone(), call.lease_epoch)).await
    }

    async fn update_backends(
        &self,
        call: &CallCtx,
        spec: &model::LoadBalancerSpec,
        known: &Handle,
    ) -> Result<LbOutcome> {
        if known.0 != spec.owner.uid {
            return Err(CloudError::NotFound(format!("{}: it is not that of {}", known.0, spec.owner.name)));
        }
        let backends = objects::wanted(spec)?.backends;
        self.settle(&spec.owner.uid, |stored| {
            let there = stored.filter(|stored| !objects::is_withdrawn(&stored.spec));
            let Some(stored) = there else { return Err(CloudError::NotFound(known.0.clone())) };
            let wanted = LoadBalancerSpec { backends: backends.clone(), ..stored.spec.clone() };
            objects::check_balancer(&stored, &call.cluster.0, call.lease_epoch)?;
            objects::plan_balancer(Some(stored), wanted, call.lease_epoch)
        })
        .await
    }

    async fn ensure_deleted(&self, call: &CallCtx, owner: &Owner, _: Option<&Handle>) -> Result<Deletion> {
        let _turn = self.turns.take(&format!("balancer/{}", owner.uid)).await;
        let stored = self.balancers.find::<MetalLoadBalancer>(&owner.uid).await?;
        if let Some(stored) = &stored {
            if *stored.spec.owner.cluster != *call.cluster.0 {
                return Ok(Deletion::Gone);
            }
            objects::check_balancer(stored, &call.cluster.0, call.lease_epoch)?;
            if let Some(next) = objects::withdrawn(stored, call.lease_epoch) {
                self.begins_to_go(&owner.uid);
                return match self.balancers.replace(&next).await {
                    Ok(()) => Ok(Deletion::InProgress(LETTING_GO)),
                    // Somebody gave its addresses to gateways meanwhile.
                    Err(CloudError::Conflict(_)) => Ok(Deletion::InProgress(AGAIN)),
                    Err(error) => Err(error),
                };
            }
        }
        let gone = async || match &stored {
            Some(stored) => self.balancers.delete(stored, true).await,
            None => Ok(()),
        };
        let holders = self.shared.holders(&owner.uid);
        let since = self.going.lock().get(&owner.uid).copied();
        if holders.as_ref().is_some_and(Vec::is_empty) {
            gone().await?;
            self.going.lock().remove(&owner.uid);
            return Ok(Deletion::Gone);
        }
        let waited = since.unwrap_or_else(|| self.begins_to_go(&owner.uid)).elapsed();
        let waits = still_waits(&owner.uid, holders.as_deref(), waited);
        if waits == Ok(Deletion::Gone) {
            gone().await?;
            self.going.lock().remove(&owner.uid);
        }
        waits
    }

    async fn list_owned(&self, call: &CallCtx, page: Option<&str>) -> Result<Page<OwnedLoadBalancer>> {
        let page = self
            .balancers
            .page::<MetalLoadBalancer>(objects::selector(&call.cluster), self.shared.page(), page)
            .await?;
        Ok(Page { items: page.items.iter().map(as_owned).collect(), next: page.next })
    }
}

impl Metal {
    /// Reads the object, plans and writes, until nobody else wrote in between.
    async fn settle(
        &self,
        name: &str,
        plan: impl Fn(Option<MetalLoadBalancer>) -> Result<Plan<MetalLoadBalancer>> + Send + Sync,
    ) -> Result<LbOutcome> {
        let mut last =
            CloudError::Conflict(format!("MetalLoadBalancer {name} is written by somebody else all the time"));
        let _turn = self.turns.take(&format!("balancer/{name}")).await;
        for _ in 0..TRIES {
            let stored = self.balancers.find::<MetalLoadBalancer>(name).await?;
            let (object, written) = match plan(stored)? {
                Plan::Keep(object) => (object, Ok(())),
                Plan::Create(object) => {
                    let written = self.balancers.create(&object).await;
                    (object, written)
                }
                Plan::Replace(object) => {
                    let written = self.balancers.replace(&object).await;
                    (object, written)
                }
                Plan::Delete(_) | Plan::Nothing => return Err(CloudError::NotFound(name.to_owned())),
            };
            match written {
                Ok(()) => return Ok(outcome(&object)),
                Err(error @ CloudError::Conflict(_)) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    fn begins_to_go(&self, name: &str) -> Instant {
        let mut going = self.going.lock();
        going.retain(|_, since| since.elapsed() < FORGOTTEN);
        *going.entry(name.to_owned()).or_insert_with(Instant::now)
    }
}

/// What is said while agents have not let go of a load balancer whose object is gone. Addresses are free once this
/// says so: an agent that lives and still has it is waited for, but not for ever.
fn still_waits(name: &str, holders: Option<&[String]>, waited: Duration) -> Result<Deletion> {
    let longest = if holders.is_some() { LONGEST } else { LONGEST_BLIND };
    let who = holders.map_or_else(|| "agents, whose reports are not known".to_owned(), |who| who.join(", "));
    if waited >= longest {
        tracing::warn!(
            load_balancer = name,
            agents = who,
            ?waited,
            "it is not waited for any longer: agents have not let go"
        );
        return Ok(Deletion::Gone);
    }
    if waited < PATIENCE {
        return Ok(Deletion::InProgress(LETTING_GO));
    }
    Err(CloudError::RetryAfter {
        after: LETTING_GO,
        message: format!("it waits for the metal agents of {who} to let go"),
    })
}

fn outcome(stored: &MetalLoadBalancer) -> LbOutcome {
    let spec = &stored.spec;
    let handle = Handle(spec.owner.uid.clone());
    if spec.addresses.iter().any(|address| address.gateway.is_none()) {
        let poll_after = if age(stored).is_some_and(|age| age > YOUNG) { POLL_SELDOM } else { POLL };
        return LbOutcome::Provisioning { poll_after, handle: Some(handle) };
    }
    // Nodes may take a short cut to their own pods: the gateway would send the packets to one of them anyway.
    let ingress = |address| Ingress { at: IngressPoint::Ip(address), proxy_mode: false };
    LbOutcome::Ready {
        ingress: spec.addresses.iter().map(|address| ingress(address.address)).collect(),
        handle,
        fingerprint: objects::fingerprint(spec),
    }
}

fn as_owned(stored: &MetalLoadBalancer) -> OwnedLoadBalancer {
    OwnedLoadBalancer {
        owner: objects::owner(&stored.spec),
        handle: Handle(stored.name().to_owned()),
        fingerprint: objects::fingerprint(&stored.spec),
        age: age(stored),
    }
}

/// How long ago the server says that it was made.
fn age(stored: &MetalLoadBalancer) -> Option<Duration> {
    let created = stored.metadata.creation_timestamp.as_ref()?;
    Duration::try_from(Timestamp::now().duration_since(created.0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_once_it_has_a_gateway_and_asked_for_seldom_if_that_takes_long() {
        let made = |gateway: Option<&str>, created: &str| -> MetalLoadBalancer {
            let metadata = serde_json::json!({"name": "u", "creationTimestamp": created});
            let address = serde_json::json!({"address": "192.0.2.1", "gateway": gateway});
            let spec = serde_json::json!({"owner": {"uid": "u"}, "addresses": [address]});
            serde_json::from_value(serde_json::json!({"metadata": metadata, "spec": spec})).expect("a load balancer")
        };
        let now = Timestamp::now().to_string();
        let handle = Some(Handle("u".into()));
        let waits = |poll_after| LbOutcome::Provisioning { poll_after, handle: handle.clone() };
        assert_eq!(outcome(&made(None, &now)), waits(POLL));
        assert_eq!(outcome(&made(None, "2026-01-01T00:00:00Z")), waits(POLL_SELDOM));
        let LbOutcome::Ready { ingress, fingerprint, .. } = outcome(&made(Some("gw"), &now)) else {
            panic!("it has one")
        };
        let expected = Ingress { at: IngressPoint::Ip("192.0.2.1".parse().expect("an address")), proxy_mode: false };
        assert_eq!((&ingress[..], fingerprint), (&[expected][..], objects::fingerprint(&made(None, &now).spec)));
    }

    #[test]
    fn a_deletion_waits_for_live_agents_says_for_whom_and_ends() {
        let who = ["gw-1".to_owned(), "gw-2".to_owned()];
        let later = |seconds| Duration::from_secs(seconds);
        assert_eq!(still_waits("a", Some(&who), later(1)), Ok(Deletion::InProgress(LETTING_GO)));
        let error = still_waits("a", Some(&who), later(11)).expect_err("it says so");
        assert!(error.to_string().contains("gw-1, gw-2") && error.retry_after() == Some(LETTING_GO), "{error}");
        assert_eq!(still_waits("a", Some(&who), LONGEST), Ok(Deletion::Gone));
        assert_eq!(still_waits("a", None, later(1)), Ok(Deletion::InProgress(LETTING_GO)));
        assert_eq!(still_waits("a", None, LONGEST_BLIND), Ok(Deletion::Gone));
    }
}
