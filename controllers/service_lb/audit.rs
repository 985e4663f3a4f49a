//! The comparison of a provider's load balancers with the Services: those that are gone or were changed are put right,
//! those whose Service is gone are orphans. Nothing is concluded from a list that failed or names another cluster.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Service};
use parking_lot::Mutex;
use quarterdeck_cloud::model::{ClusterId, Deletion, OwnedLoadBalancer, Owner};
use quarterdeck_cloud::{CloudError, Guarded};
use quarterdeck_runtime::controller::{Action, Cx, Error};
use quarterdeck_runtime::object::{Cached as _, Kind, ObjectKey};
use quarterdeck_runtime::ongoing::Ongoing;
use tokio::time::Instant;

use super::key::Key;
use super::memory::Made;
use super::record::Record;
use super::status::reference;
use super::{Balancer, reasons};

/// How audits are made, and what they suspect.
pub(super) struct Audits {
    period: Duration,
    grace: Duration,
    /// Whether orphans are deleted, and up to which share of all load balancers, in percent.
    delete: Option<usize>,
    suspects: Mutex<HashMap<Suspect, Since>>,
    /// What is wrong with a provider's list, or with an orphan of it: provider and what.
    wrong: Ongoing<(String, String)>,
}

/// Stands for the list itself among what is wrong.
const LISTING: &str = "";

/// So few orphans never trip the brake.
const BRAKE_MINIMUM: usize = 3;

/// Whether so many orphans among so many load balancers are rather somebody's mistake than orphans.
fn brakes(orphans: usize, of: usize, percent: usize) -> bool {
    orphans >= BRAKE_MINIMUM && orphans * 100 > of * percent
}

/// What may be an orphan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Suspect {
    /// A load balancer, by provider and handle.
    LoadBalancer(String, String),
    /// A reservation, by name and the holder's uid.
    Reservation(String, String),
}

#[derive(Clone, Copy, Debug)]
struct Since {
    first: Instant,
    /// Whether it was reported, and if so, whether as one that is deleted.
    reported: Option<bool>,
}

impl Audits {
    pub(super) fn new(period: Duration, grace: Duration, delete: Option<usize>) -> Self {
        Self { period, grace, delete, suspects: Mutex::default(), wrong: Ongoing::default() }
    }

    /// Suspects something; true once it has been suspected for the whole grace.
    fn ripe(&self, suspect: &Suspect, now: Instant) -> bool {
        let mut suspects = self.suspects.lock();
        let since = suspects.entry(suspect.clone()).or_insert(Since { first: now, reported: None });
        now.duration_since(since.first) >= self.grace
    }

    /// Whether it was not reported yet, or otherwise.
    fn report_once(&self, suspect: &Suspect, deleted: bool) -> bool {
        let mut suspects = self.suspects.lock();
        suspects.get_mut(suspect).is_some_and(|since| since.reported.replace(deleted) != Some(deleted))
    }

    fn clear(&self, suspect: &Suspect) {
        self.suspects.lock().remove(suspect);
    }
}

/// A Service, as an audit of one provider sees it.
struct Live {
    key: ObjectKey,
    /// Whether it carries the record of a load balancer at this provider.
    recorded: bool,
    /// What it was last made as in this tenure, by this provider, if no reconcile is at it.
    made: Option<Made>,
    /// Whether a reconcile is at it.
    busy: bool,
}

/// What an audit found.
#[derive(Debug, Default, PartialEq)]
struct Findings<'a> {
    /// Load balancers that are gone: the Service, and what was made.
    gone: Vec<(ObjectKey, Made)>,
    /// Load balancers that somebody else changed: the Service, what was made, and what it is now.
    changed: Vec<(ObjectKey, Made, String)>,
    /// Load balancers of which there are several.
    duplicates: Vec<Vec<&'a OwnedLoadBalancer>>,
    /// Services about which this tenure knows nothing yet.
    unknown: Vec<ObjectKey>,
    /// Load balancers of no Service.
    ownerless: Vec<&'a OwnedLoadBalancer>,
}

/// Compares; pure. `live` are all Services, by uid; the list was asked for at `began`, so that what was made since
/// may not be in it.
///
/// # Errors
/// The cluster that the list names, if that is another one: nothing may be concluded then.
fn compare<'a>(
    cluster: &ClusterId,
    live: &HashMap<String, Live>,
    listed: &'a [OwnedLoadBalancer],
    began: Instant,
) -> Result<Findings<'a>, ClusterId> {
    if let Some(foreign) = listed.iter().find(|balancer| balancer.owner.cluster != *cluster) {
        return Err(foreign.owner.cluster.clone());
    }
    let mut by_uid: HashMap<&str, Vec<&OwnedLoadBalancer>> = HashMap::new();
    for balancer in listed {
        by_uid.entry(&balancer.owner.uid).or_default().push(balancer);
    }
    let mut found = Findings::default();
    for (uid, service) in live {
        let own = by_uid.get(uid.as_str()).map(Vec::as_slice).unwrap_or_default();
        let Some(made) = service.made.as_ref().filter(|made| made.at < began) else {
            if service.recorded && !service.busy && service.made.is_none() {
                found.unknown.push(service.key.clone());
            }
            continue;
        };
        match own.iter().find(|balancer| balancer.handle == made.handle).or(own.first()) {
            None => found.gone.push((service.key.clone(), made.clone())),
            Some(balancer) => {
                let told = !made.fingerprint.is_empty() && !balancer.fingerprint.is_empty();
                if told && made.fingerprint != balancer.fingerprint {
                    found.changed.push((service.key.clone(), made.clone(), balancer.fingerprint.clone()));
                }
            }
        }
    }
    for (uid, balancers) in by_uid {
        if balancers.len() > 1 {
            found.duplicates.push(balancers.clone());
        }
        if !live.contains_key(uid) {
            found.ownerless.extend(balancers);
        }
    }
    found.ownerless.sort_by(|a, b| a.handle.cmp(&b.handle));
    Ok(found)
}

impl Balancer {
    /// Compares one provider's load balancers with the Services.
    pub(super) async fn audit(&self, cx: &Cx, at: usize) -> Result<Action, Error> {
        let Some(provider) = self.cloud.providers().get(at) else { return Ok(Action::Done) };
        let again = Ok(Action::RequeueAfter(self.audits.period));
        let Some(cluster) = self.cloud.cluster() else {
            return Err(Error::Transient("the cluster's id is not known yet".to_owned()));
        };
        let began = Instant::now();
        let listed = match self.listed(provider).await {
            Ok(Some(listed)) => listed,
            Ok(None) => return again,
            Err(error) => {
                // Nothing is concluded. What is wrong with the provider is told at its calls.
                if self.audits.wrong.begins((provider.name().to_owned(), LISTING.to_owned())) {
                    tracing::warn!(provider = provider.name(), %error, "load balancers cannot be listed");
                }
                return error
                    .retry_after()
                    .map_or_else(|| Err(Error::Transient(error.to_string())), |after| Ok(Action::RequeueAfter(after)));
            }
        };
        if self.audits.wrong.ends(&(provider.name().to_owned(), LISTING.to_owned())) {
            tracing::info!(provider = provider.name(), "load balancers are listed again");
        }
        let live = self.live(provider, cx.authority.epoch);
        let found = match compare(cluster, &live, &listed, began) {
            Ok(found) => found,
            Err(foreign) => {
                if self.audits.wrong.begins((provider.name().to_owned(), foreign.to_string())) {
                    let provider = provider.name();
                    tracing::error!(provider, %foreign, "the provider lists load balancers of another cluster; nothing is concluded");
                }
                return again;
            }
        };
        self.put_right(cx, provider, cluster, &found);
        let extra: usize = found.duplicates.iter().map(|balancers| balancers.len() - 1).sum();
        for balancers in &found.duplicates {
            let all: Vec<OwnedLoadBalancer> = balancers.iter().map(|balancer| (*balancer).clone()).collect();
            let recorded = live.get(&all[0].owner.uid).and_then(|service| service.made.as_ref());
            self.report_duplicates(cx, &all[0].owner, recorded.map(|made| &made.handle), &all);
        }
        let orphans = self.orphans(cx, provider, &found.ownerless, listed.len()).await?;
        self.stale_reservations(cx, provider, &live, &listed).await?;
        self.metrics.audited(provider.name(), orphans, extra);
        again
    }

    /// The provider's load balancers; `None` if it has no such thing.
    async fn listed(&self, provider: &Guarded) -> Result<Option<Vec<OwnedLoadBalancer>>, CloudError> {
        if !provider.info().await?.load_balancers {
            return Ok(None);
        }
        match provider.owned_load_balancers().await {
            Ok(listed) => Ok(Some(listed)),
            Err(CloudError::NotImplemented(_) | CloudError::ImplementedElsewhere(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn live(&self, provider: &Guarded, epoch: u64) -> HashMap<String, Live> {
        let service = |service: &Service| {
            let (key, uid) = (service.key(), service.uid().to_owned());
            let known = self.memory.get(&key);
            let busy = known.as_ref().is_some_and(|known| known.busy);
            let ours = known.filter(|known| {
                known.owner.uid == uid && known.provider == provider.name() && known.epoch == epoch && !known.busy
            });
            let recorded = Record::of(service).is_some_and(|record| record.provider == provider.name());
            (uid, Live { key, recorded, made: ours.and_then(|known| known.made), busy })
        };
        self.services.all().iter().map(|object| service(object)).collect()
    }

    /// Has load balancers made again that are gone or were changed.
    fn put_right(&self, cx: &Cx, provider: &Guarded, cluster: &ClusterId, found: &Findings<'_>) {
        let gone = found.gone.iter().map(|(key, made)| (key, made, "gone", None));
        let changed = found.changed.iter().map(|(key, made, now)| (key, made, "changed", Some(now.as_str())));
        for (key, made, what, now) in gone.chain(changed) {
            let mark = format!("{what} {}", now.unwrap_or_default());
            if !self.memory.drifted(key, made, mark) {
                continue;
            }
            self.metrics.drifted(provider.name(), what);
            if let Some(service) = self.services.get(key) {
                let owner = super::wish::owner(&service, cluster);
                let message = format!("Load balancer {} is {what}; it is put right", made.handle.0);
                self.warn(cx, &owner, reasons::DRIFTED, message);
            }
            self.queue.add(Key::Service(key.clone()));
        }
        found.unknown.iter().for_each(|key| self.queue.resync(Key::Service(key.clone())));
    }

    /// Reports, and removes if that was asked for, load balancers whose Service is proven to be gone, `of` so many
    /// altogether. Answers how many there are.
    async fn orphans(
        &self,
        cx: &Cx,
        provider: &Guarded,
        ownerless: &[&OwnedLoadBalancer],
        of: usize,
    ) -> Result<usize, Error> {
        let suspect =
            |balancer: &OwnedLoadBalancer| Suspect::LoadBalancer(provider.name().to_owned(), balancer.handle.0.clone());
        let now = Instant::now();
        // What found its owner again is suspected no more.
        let still: Vec<Suspect> = ownerless.iter().map(|balancer| suspect(balancer)).collect();
        self.audits.suspects.lock().retain(|suspected, _| match suspected {
            Suspect::LoadBalancer(of, _) => of != provider.name() || still.contains(suspected),
            Suspect::Reservation(..) => true,
        });
        let mut orphans = Vec::new();
        for (balancer, suspect) in ownerless.iter().zip(&still) {
            if !self.audits.ripe(suspect, now) || self.lives(cx, &balancer.owner).await? {
                continue;
            }
            orphans.push((*balancer, suspect));
        }
        let braked = self.audits.delete.is_some_and(|percent| brakes(orphans.len(), of, percent));
        self.metrics.braked(provider.name(), braked);
        let deletes = self.audits.delete.is_some() && !braked;
        let mut left = orphans.len();
        for (balancer, suspect) in orphans {
            if self.audits.report_once(suspect, deletes) {
                self.report_orphan(cx, provider, balancer, braked);
            }
            if deletes && self.delete_orphan(cx, provider, balancer).await {
                self.audits.clear(suspect);
                left -= 1;
            }
        }
        Ok(left)
    }

    /// Whether the Service is there, asked of the server itself.
    async fn lives(&self, cx: &Cx, owner: &Owner) -> Result<bool, Error> {
        let key = ObjectKey::new(owner.namespace.as_str(), owner.name.as_str());
        let live = cx.api.get_metadata(&Kind::of::<Service>(), &key).await?;
        Ok(live.is_some_and(|live| live.uid.as_deref() == Some(owner.uid.as_str())))
    }

    fn report_orphan(&self, cx: &Cx, provider: &Guarded, balancer: &OwnedLoadBalancer, braked: bool) {
        let Owner { namespace, name, uid, .. } = &balancer.owner;
        let what_next = match self.audits.delete {
            None => "--cloud-delete-orphans would remove it",
            Some(_) if braked => {
                "it is kept, for there are too many such at once: remove those that are rightly so, or raise \
                 --load-balancer-orphan-brake"
            }
            Some(_) => "it is removed",
        };
        let message = format!(
            "Load balancer {} of provider {} belongs to Service {namespace}/{name} (uid {uid}), which is gone: {what_next}",
            balancer.handle.0,
            provider.name()
        );
        tracing::warn!(provider = provider.name(), load_balancer = balancer.handle.0, %namespace, %name, %uid, "a load balancer is orphaned");
        cx.recorder.event(&self.about_orphan(&balancer.owner), reasons::ORPHANED, message);
    }

    /// Events live in the namespace of what they are about, which may be gone with the Service.
    fn about_orphan(&self, owner: &Owner) -> ObjectReference {
        let namespace = ObjectKey::cluster(owner.namespace.as_str());
        if self.addresses.namespaces.get(&namespace).is_some_and(|namespace| !namespace.is_deleting()) {
            return reference(&owner.namespace, &owner.name, &owner.uid);
        }
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some("kube-system".to_owned()),
            uid: Some(owner.cluster.0.to_string()),
            ..ObjectReference::default()
        }
    }

    async fn delete_orphan(&self, cx: &Cx, provider: &Guarded, balancer: &OwnedLoadBalancer) -> bool {
        let name = provider.name();
        let trouble = (name.to_owned(), balancer.handle.0.clone());
        match self.remove_at(cx, provider, &balancer.owner, Some(&balancer.handle), &balancer.handle.0).await {
            Ok(Deletion::Gone) => {
                tracing::info!(
                    provider = name,
                    load_balancer = balancer.handle.0,
                    "an orphaned load balancer was removed"
                );
                self.audits.wrong.ends(&trouble);
                let message =
                    format!("Deleted load balancer {} of provider {name}, whose Service is gone", balancer.handle.0);
                cx.recorder.event(&self.about_orphan(&balancer.owner), reasons::DELETED, message);
                true
            }
            Ok(Deletion::InProgress(_)) => false,
            Err(error) => {
                if self.audits.wrong.begins(trouble) {
                    let load_balancer = &*balancer.handle.0;
                    tracing::warn!(provider = name, load_balancer, %error, "an orphaned load balancer cannot be removed");
                }
                false
            }
        }
    }

    /// Gives addresses back whose holder is proven to be gone, together with its load balancer.
    async fn stale_reservations(
        &self,
        cx: &Cx,
        provider: &Guarded,
        live: &HashMap<String, Live>,
        listed: &[OwnedLoadBalancer],
    ) -> Result<(), Error> {
        let now = Instant::now();
        for reservation in self.addresses.reservations.all() {
            if reservation.spec.provider != provider.name() {
                continue;
            }
            for holder in &reservation.spec.holders {
                let suspect = Suspect::Reservation(reservation.key().name().to_owned(), holder.uid.clone());
                let used = listed.iter().any(|balancer| balancer.owner.uid == holder.uid);
                if used || live.contains_key(&holder.uid) {
                    self.audits.clear(&suspect);
                    continue;
                }
                if !self.audits.ripe(&suspect, now) {
                    continue;
                }
                let cluster = self.cloud.cluster().cloned().unwrap_or_else(|| ClusterId("".into()));
                let (namespace, name) = (holder.namespace.clone(), holder.name.clone());
                let owner = Owner { cluster, namespace, name, uid: holder.uid.clone() };
                if self.lives(cx, &owner).await? {
                    continue;
                }
                // A list may have been cut short; who is asked for by name is there, or is not.
                if matches!(provider.load_balancers_of(&owner).await.as_deref(), Ok([])) {
                    self.addresses.drop_holder(cx, &reservation, &holder.uid).await?;
                    self.audits.clear(&suspect);
                    // Its version is outdated now; the rest is looked at next time.
                    break;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
