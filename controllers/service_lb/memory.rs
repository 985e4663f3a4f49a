//! What this process did in its tenure: what each load balancer was last made as, so that nothing is asked twice.
//! Nothing rests on it but calls that are saved; another leader begins without.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quarterdeck_cloud::model::{Handle, Ingress, LoadBalancerSpec, Owner};
use quarterdeck_runtime::object::ObjectKey;
use tokio::time::Instant;

/// A load balancer as this process left it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Made {
    /// Digest of what it was made as.
    pub(super) digest: String,
    /// What it was made as, and the nodes that it was told of.
    pub(super) spec: Arc<LoadBalancerSpec>,
    /// Whether [`Self::spec`] is what it was made as; a leader that found it made knows no more than the digest.
    pub(super) exact: bool,
    /// What the provider calls it.
    pub(super) handle: Handle,
    /// What the provider said it is configured as; empty if it cannot tell.
    pub(super) fingerprint: String,
    /// What the status has to show.
    pub(super) ingress: Vec<Ingress>,
    /// When the provider said so.
    pub(super) at: Instant,
}

/// Until when a load balancer is left alone.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hold {
    /// Until then.
    pub(super) until: Instant,
    /// Only as long as this is what is wanted; `None`: whatever is wanted.
    pub(super) digest: Option<String>,
}

/// What this process knows of the load balancer of one Service.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Whose it is.
    pub(super) owner: Owner,
    /// The provider's name.
    pub(super) provider: String,
    /// The tenure; what was known in another one counts for nothing.
    pub(super) epoch: u64,
    /// How it was left; `None` until the provider said that it is as it should be.
    pub(super) made: Option<Made>,
    /// Calls that reached their goal.
    pub(super) done: u64,
    /// Whether a call may have changed something although it failed.
    pub(super) uncertain: bool,
    /// What the audit found to be wrong with it, until it is put right.
    pub(super) drift: Option<String>,
    /// Until when it is left alone.
    pub(super) hold: Option<Hold>,
    /// Digest of what was last announced by an event.
    pub(super) announced: Option<String>,
    /// Whether a reconcile is at it.
    pub(super) busy: bool,
}

impl Known {
    /// Nothing but whose it is.
    pub(super) fn new(owner: Owner, provider: &str, epoch: u64) -> Self {
        Self {
            owner,
            provider: provider.to_owned(),
            epoch,
            made: None,
            done: 0,
            uncertain: false,
            drift: None,
            hold: None,
            announced: None,
            busy: false,
        }
    }
}

/// What this process knows, by Service.
#[derive(Default)]
pub(super) struct Memory(Mutex<HashMap<ObjectKey, Known>>);

impl Memory {
    /// What is known of a Service's load balancer.
    pub(super) fn get(&self, key: &ObjectKey) -> Option<Known> {
        self.0.lock().get(key).cloned()
    }

    /// Begins a reconcile: what is known of this owner at this provider in this tenure, or nothing.
    pub(super) fn begin(&self, key: &ObjectKey, owner: &Owner, provider: &str, epoch: u64) -> Known {
        let mut all = self.0.lock();
        let known = all.entry(key.clone()).or_insert_with(|| Known::new(owner.clone(), provider, epoch));
        if known.owner.uid != owner.uid || known.provider != provider || known.epoch != epoch {
            *known = Known::new(owner.clone(), provider, epoch);
        }
        known.busy = true;
        known.clone()
    }

    /// Changes what is known, if anything is.
    pub(super) fn change(&self, key: &ObjectKey, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.0.lock().get_mut(key) {
            change(known);
        }
    }

    /// Forgets a load balancer.
    pub(super) fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }

    /// Says that something is wrong with a load balancer, if it still is what the audit saw.
    pub(super) fn drifted(&self, key: &ObjectKey, made: &Made, what: String) -> bool {
        let mut all = self.0.lock();
        let Some(known) = all.get_mut(key).filter(|known| !known.busy && known.made.as_ref() == Some(made)) else {
            return false;
        };
        known.drift = Some(what);
        true
    }
}

/// Ends a reconcile's hold on a Service, also when the reconcile is cancelled.
pub(super) struct Busy<'a> {
    /// The memory.
    pub(super) memory: &'a Memory,
    /// The Service.
    pub(super) key: &'a ObjectKey,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.memory.change(self.key, |known| known.busy = false);
    }
}
