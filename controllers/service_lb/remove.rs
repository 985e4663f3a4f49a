//! Removal of load balancers. The provider is always told, also where nothing seems to be left: what a half-made one
//! left behind cannot be seen. The status is emptied first and the finalizer goes last: an address that a status shows is
//! nobody else's, wherever a leader dies.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use quarterdeck_cloud::model::{Deletion, Handle, Owner};
use quarterdeck_cloud::{CloudError, Guarded};
use quarterdeck_runtime::controller::{Action, Cx, Error};
use quarterdeck_runtime::object::{Cached as _, Kind, ObjectKey};
use tokio::time::Instant;

use super::memory::Busy;
use super::record::Record;
use super::sync::{Doing, operation_id};
use super::{Balancer, reasons, status};

/// What stands for removal where the digest of a wish stands otherwise.
const REMOVAL: &str = "removal";

impl Balancer {
    /// Removes the load balancer of a Service that should have none, and all traces of it from the Service.
    pub(super) async fn remove(
        &self,
        cx: &Cx,
        key: &ObjectKey,
        service: &Service,
        owner: &Owner,
        provider: Option<&str>,
    ) -> Result<Action, Error> {
        let service = &mut service.clone();
        if let Some(action) = self.remove_everywhere(cx, key, service, owner, provider).await? {
            return Ok(action);
        }
        self.addresses.release(cx, &owner.uid, &[]).await?;
        if let Some(patch) = status::release(service) {
            self.write(cx, key, patch).await?;
        }
        self.complaints.forget(key);
        self.addresses.stop_waiting(key);
        self.memory.forget(key);
        self.tell(cx, owner, reasons::DELETED, "Deleted load balancer");
        Ok(Action::Done)
    }

    /// Removes the load balancer from the provider that no longer looks after the Service; the other one begins when
    /// the Service shows that it has it.
    pub(super) async fn remove_from_former(
        &self,
        cx: &Cx,
        key: &ObjectKey,
        service: &Service,
        owner: &Owner,
        former: &str,
        now: &str,
    ) -> Result<Action, Error> {
        let service = &mut service.clone();
        if let Some(action) = self.remove_everywhere(cx, key, service, owner, Some(former)).await? {
            return Ok(action);
        }
        self.addresses.release(cx, &owner.uid, &[]).await?;
        if let Some(patch) = status::claim(service, &Record::new(&owner.uid, now)) {
            self.write(cx, key, patch).await?;
        }
        self.memory.forget(key);
        self.tell(cx, owner, reasons::DELETED, "Deleted load balancer");
        Ok(Action::Done)
    }

    /// Empties the status, then has the provider remove it, or every provider if nobody knows which one made it. `None`:
    /// it is gone, and `service` is as it is now.
    async fn remove_everywhere(
        &self,
        cx: &Cx,
        key: &ObjectKey,
        service: &mut Service,
        owner: &Owner,
        provider: Option<&str>,
    ) -> Result<Option<Action>, Error> {
        let record = Record::of(service).unwrap_or_default();
        let _busy = Busy { memory: &self.memory, key };
        let known = self.memory.begin(key, owner, provider.unwrap_or_default(), cx.authority.epoch);
        let now = Instant::now();
        if let Some(hold) = known.hold.as_ref().filter(|hold| hold.until > now)
            && hold.digest.as_deref().is_none_or(|digest| digest == REMOVAL)
        {
            return Ok(Some(Action::RequeueAfter(hold.until - now)));
        }
        let providers = match self.asked(provider) {
            Ok(providers) => providers,
            Err(message) => {
                self.warn(cx, owner, reasons::SYNC_FAILED, message.clone());
                return Err(Error::Transient(message));
            }
        };
        // First of all: from the moment on at which the cloud gives an address to others, no status shows it.
        if let Some(patch) = status::withdraw(service)
            && let Some(written) = self.write(cx, key, patch).await?
        {
            service.metadata.resource_version = Some(written.resource_version);
            service.status = None;
        }
        if known.announced.as_deref() != Some(REMOVAL) {
            self.tell(cx, owner, reasons::DELETING, "Deleting load balancer");
            self.memory.change(key, |known| known.announced = Some(REMOVAL.to_owned()));
        }
        for provider in providers {
            match self.remove_at(cx, provider, owner, record.handle.as_ref(), &record.claim).await {
                Ok(Deletion::Gone) => {}
                Ok(Deletion::InProgress(after)) => {
                    return Ok(Some(Action::RequeueAfter(self.hold(key, Some(REMOVAL), after))));
                }
                Err(error) => return self.failed(cx, key, owner, Doing::Syncing, &error).map(Some),
            }
        }
        Ok(None)
    }

    /// The provider of this name, or all of them.
    fn asked(&self, provider: Option<&str>) -> Result<Vec<&Arc<Guarded>>, String> {
        match provider {
            None => Ok(self.cloud.providers().iter().collect()),
            Some(name) => self.provider(name).map(|provider| vec![provider]).ok_or_else(|| {
                format!(
                    "Error syncing load balancer: it was made by provider {name:?}, which is not in --cloud-provider; \
                     it cannot be removed"
                )
            }),
        }
    }

    /// Has one provider remove it; `claim` tells it from others that the owner had before.
    pub(super) async fn remove_at(
        &self,
        cx: &Cx,
        provider: &Guarded,
        owner: &Owner,
        handle: Option<&Handle>,
        claim: &str,
    ) -> Result<Deletion, CloudError> {
        let op = operation_id(&[&owner.cluster.0, &owner.uid, claim, REMOVAL, provider.name()]);
        match provider.ensure_load_balancer_deleted(&cx.authority, op, owner, handle).await {
            // Made by somebody else, so that it is removed by them.
            Err(CloudError::ImplementedElsewhere(_)) => Ok(Deletion::Gone),
            Err(CloudError::NotImplemented(_)) if !provider.info().await?.load_balancers => Ok(Deletion::Gone),
            // An error is no proof that nothing is there; an empty list is.
            Err(error @ CloudError::NotFound(_)) => match provider.load_balancers_of(owner).await?.as_slice() {
                [] => Ok(Deletion::Gone),
                _ => Err(error),
            },
            answer => answer,
        }
    }

    /// Removes the load balancer of a Service that went without waiting for us: its finalizer was taken away. `None`:
    /// there is nothing to do.
    pub(super) async fn remove_of_vanished(
        &self,
        cx: &Cx,
        key: &ObjectKey,
        service: Option<&Service>,
    ) -> Result<Option<Action>, Error> {
        let Some(known) = self.memory.get(key) else { return Ok(None) };
        let uid = &known.owner.uid;
        if service.is_some_and(|service| service.uid() == uid) {
            return Ok(None);
        }
        // The cache is no proof.
        let live = cx.api.get_metadata(&Kind::of::<Service>(), key).await?;
        if live.is_some_and(|live| live.uid.as_deref() == Some(uid)) {
            return Err(Error::Stale(format!("{key} is there, and not in the cache")));
        }
        if let Some(provider) = self.provider(&known.provider) {
            let handle = known.made.as_ref().map(|made| &made.handle);
            let claim = handle.map(|handle| handle.0.as_str()).unwrap_or_default();
            match self.remove_at(cx, provider, &known.owner, handle, claim).await {
                Ok(Deletion::Gone) => {}
                Ok(Deletion::InProgress(after)) => return Ok(Some(Action::RequeueAfter(after))),
                Err(error) => return self.failed(cx, key, &known.owner, Doing::Syncing, &error).map(Some),
            }
        }
        self.addresses.release(cx, uid, &[]).await?;
        self.addresses.stop_waiting(key);
        self.memory.forget(key);
        Ok(None)
    }
}
