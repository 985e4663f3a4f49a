//! Who the masters are, by the replicas' own Leases: for the status page, and for the collection of those that nobody
//! renews any more.
//!
//! Whether a replica is alive is judged as the elector judges a leader: by how long ago, on our own clock, its Lease was
//! last seen to change. What its clock says is shown and never compared.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use parking_lot::Mutex;
use quarterdeck_api::status::{MasterPart, TermNote};
use quarterdeck_election::Leadership;
use quarterdeck_election::clock::{BootClock, BootInstant, Clock as _};
use quarterdeck_runtime::client::{Clients, DeletePrecondition, Identity, Propagation};
use quarterdeck_runtime::informer::{Change, Informers, Lister, Selection, State};
use quarterdeck_runtime::notes::REPLICAS_NAMESPACE;
use quarterdeck_runtime::object::{Kind, ObjectKey};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::replica::{ADDRESS_NOTE, CERTIFICATE_NOTE, ELECTION_NOTE, TERMS_NOTE, VERSION_NOTE, annotation};

/// A Lease that has not been seen to change for this long is collected.
const KEPT: Duration = Duration::from_secs(3600);
/// How often the leader looks for such Leases; in memory.
const SWEEP: Duration = Duration::from_secs(60);

/// When a Lease was last seen to change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sighting {
    /// What a renewal changes.
    renewal: Option<(Option<String>, Option<String>)>,
    uid: String,
    at: BootInstant,
}

/// When each Lease was last seen to change, by name.
#[derive(Debug, Default)]
struct Sightings(HashMap<String, Sighting>);

impl Sightings {
    /// A Lease as it was seen now. One that is seen for the first time counts as just renewed: nobody knows better.
    fn saw(&mut self, now: BootInstant, lease: &Lease) {
        let spec = lease.spec.as_ref();
        let renewal =
            spec.map(|spec| (spec.holder_identity.clone(), spec.renew_time.as_ref().map(|time| time.0.to_string())));
        let uid = lease.metadata.uid.clone().unwrap_or_default();
        let name = lease.metadata.name.clone().unwrap_or_default();
        let known = self.0.get(&name);
        if known.is_none_or(|known| known.uid != uid || known.renewal != renewal) {
            self.0.insert(name, Sighting { renewal, uid, at: now });
        }
    }

    fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Time since it was last seen to change; none if it was never seen.
    fn age(&self, now: BootInstant, name: &str) -> Option<Duration> {
        self.0.get(name).map(|sighting| now.since(sighting.at))
    }
}

/// The duration that a Lease names. One without was written by a version that never renewed: it says nothing about life.
fn duration(lease: &Lease) -> Option<Duration> {
    let seconds = lease.spec.as_ref()?.lease_duration_seconds?;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

fn note<'l>(lease: &'l Lease, note: &str) -> Option<&'l String> {
    lease.metadata.annotations.as_ref()?.get(&annotation(note))
}

fn terms_of(lease: &Lease) -> Vec<TermNote> {
    note(lease, TERMS_NOTE).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// A replica by its Lease, which was last seen to change `age` ago.
fn part(lease: &Lease, age: Duration, me: &str, holder: Option<&str>) -> Option<MasterPart> {
    let duration = duration(lease)?;
    let name = lease.metadata.name.clone()?;
    let identity = lease.spec.as_ref()?.holder_identity.clone().filter(|identity| !identity.is_empty());
    let leads = identity.is_some() && identity.as_deref() == holder;
    let since =
        terms_of(lease).into_iter().rfind(|term| term.ended.is_none() && Some(&term.holder) == identity.as_ref());
    Some(MasterPart {
        me: name == me,
        address: note(lease, ADDRESS_NOTE).cloned(),
        certificate_sha256: note(lease, CERTIFICATE_NOTE).cloned(),
        version: note(lease, VERSION_NOTE).cloned(),
        leads,
        since: since.filter(|_| leads).map(|term| term.began),
        seen_seconds: (age.as_secs_f64() * 10.0).round() / 10.0,
        alive: identity.is_some() && age < duration,
        identity,
        name,
    })
}

/// Whether a Lease is to go: it names a duration, so whoever wrote it renews, and it has not been seen to change for
/// longer than that and [`KEPT`].
fn is_over(lease: &Lease, age: Duration, me: &str) -> bool {
    let Some(duration) = duration(lease) else { return false };
    lease.metadata.name.as_deref() != Some(me) && age > duration + KEPT
}

/// The replicas of this election.
#[derive(Clone)]
pub(crate) struct Masters {
    leases: Lister<Lease>,
    seen: Arc<Mutex<Sightings>>,
    me: Arc<str>,
    election: Arc<str>,
}

impl Masters {
    /// Follows the replicas' Leases; `me` is the name of this replica, `election` the Lease it stands for, as
    /// `namespace/name`.
    pub(crate) fn new(informers: &Informers, me: &str, election: &str) -> Self {
        let selection = Selection { namespace: Some(REPLICAS_NAMESPACE.to_owned()), ..Selection::default() };
        // As who writes them: nobody else needs to see them.
        let leases = informers.reading_as(Identity::Manager).dynamic::<Lease>(Kind::of::<Lease>(), selection);
        let seen: Arc<Mutex<Sightings>> = Arc::default();
        let sightings = Arc::clone(&seen);
        leases.on_change(move |change| match change {
            Change::Added(lease) | Change::Updated { new: lease, .. } => {
                sightings.lock().saw(BootClock.now(), lease);
            }
            Change::Deleted { last, .. } => sightings.lock().forget(last.metadata.name.as_deref().unwrap_or_default()),
        });
        Self { leases, seen, me: me.into(), election: election.into() }
    }

    /// The replicas by name, as they are now; `holder` is who holds the Lease of the election.
    pub(crate) fn parts(&self, holder: Option<&str>) -> Vec<MasterPart> {
        let now = BootClock.now();
        let seen = self.seen.lock();
        let mut parts: Vec<MasterPart> = self
            .all()
            .iter()
            .filter_map(|lease| part(lease, seen.age(now, lease.metadata.name.as_deref()?)?, &self.me, holder))
            .collect();
        parts.sort_by(|a, b| a.name.cmp(&b.name));
        parts
    }

    /// The terms of each replica.
    pub(crate) fn terms(&self) -> Vec<(String, Vec<TermNote>)> {
        self.all().iter().map(|lease| (lease.metadata.name.clone().unwrap_or_default(), terms_of(lease))).collect()
    }

    /// Why the replicas are not known, if they are not.
    pub(crate) fn trouble(&self) -> Option<String> {
        match self.leases.status().state {
            State::Forbidden(message) | State::Retrying(message) => Some(message),
            _ => None,
        }
    }

    /// The Leases of this election's replicas.
    fn all(&self) -> Vec<Arc<Lease>> {
        let mut all = self.leases.all();
        all.retain(|lease| note(lease, ELECTION_NOTE).is_none_or(|election| **election == *self.election));
        all
    }

    /// Collects, while this replica leads, the Leases of replicas that are gone.
    pub(crate) async fn sweep(
        self,
        clients: Clients,
        leadership: watch::Receiver<Leadership>,
        stop: CancellationToken,
    ) {
        let api = clients.api(&Identity::Manager);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SWEEP) => {}
            }
            if leadership.borrow().tenure().is_none() {
                continue;
            }
            for (name, precondition) in self.over() {
                let key = ObjectKey::new(REPLICAS_NAMESPACE, name.as_str());
                match api.delete(self.leases.kind(), &key, &precondition, Propagation::Background).await {
                    Ok(()) => tracing::info!(replica = name, "collected the Lease of a replica that is gone"),
                    Err(error) => tracing::debug!(replica = name, %error, "the Lease of a replica that is gone stays"),
                }
            }
        }
    }

    /// The Leases that are to go, each with the proof that it is still as it was seen.
    fn over(&self) -> Vec<(String, DeletePrecondition)> {
        let (now, seen) = (BootClock.now(), self.seen.lock());
        let over = self.leases.all().into_iter().filter_map(|lease| {
            let name = lease.metadata.name.clone()?;
            let over = is_over(&lease, seen.age(now, &name)?, &self.me);
            let metadata = &lease.metadata;
            let precondition =
                DeletePrecondition { uid: metadata.uid.clone()?, resource_version: metadata.resource_version.clone() };
            over.then_some((name, precondition))
        });
        over.collect()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

    use super::*;
    use crate::replica::DURATION_SECONDS;

    fn at(seconds: u64) -> BootInstant {
        BootInstant::from_nanos(seconds * 1_000_000_000)
    }

    fn lease(name: &str, holder: Option<&str>, renewed: &str) -> Lease {
        let metadata = ObjectMeta { name: Some(name.to_owned()), uid: Some("u1".to_owned()), ..ObjectMeta::default() };
        let spec = LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Some(MicroTime(renewed.parse::<Timestamp>().expect("a time"))),
            ..LeaseSpec::default()
        };
        Lease { metadata, spec: Some(spec) }
    }

    fn alive(seen: &Sightings, now: u64, lease: &Lease) -> bool {
        let name = lease.metadata.name.as_deref().expect("it has one");
        part(lease, seen.age(at(now), name).expect("it was seen"), "me", None).expect("it names a duration").alive
    }

    #[test]
    fn a_clock_that_lies_makes_nobody_dead_and_nobody_alive() {
        let mut seen = Sightings::default();
        // A clock years behind ours, and one years ahead that has stopped with its master.
        let (slow, dead) =
            (lease("slow", Some("s"), "1999-01-01T00:00:00Z"), lease("dead", Some("d"), "2099-01-01T00:00:00Z"));
        seen.saw(at(100), &slow);
        seen.saw(at(100), &dead);
        let slow = lease("slow", Some("s"), "1999-01-01T00:00:10Z");
        seen.saw(at(139), &slow);
        seen.saw(at(139), &dead);
        assert!(alive(&seen, 170, &slow));
        assert!(!alive(&seen, 170, &dead), "it has not been renewed for 70 s");
        // It comes back with a clock that went backwards.
        let back = lease("dead", Some("d"), "2024-01-01T00:00:00Z");
        seen.saw(at(171), &back);
        assert!(alive(&seen, 172, &back));
    }

    #[test]
    fn one_that_left_is_not_alive_and_one_that_never_renews_says_nothing() {
        let mut seen = Sightings::default();
        let left = lease("left", None, "2026-01-01T00:00:00Z");
        seen.saw(at(1), &left);
        assert!(!alive(&seen, 2, &left));
        let mut old = lease("old", Some("o"), "2026-01-01T00:00:00Z");
        old.spec.as_mut().expect("set").lease_duration_seconds = None;
        assert_eq!(part(&old, Duration::ZERO, "me", None), None);
        assert!(!is_over(&old, KEPT * 10, "me"), "its writer may be alive");
    }

    #[test]
    fn a_lease_goes_an_hour_after_it_expired_on_our_own_clock() {
        let gone = lease("gone", Some("g"), "1999-01-01T00:00:00Z");
        let duration = Duration::from_secs(40);
        assert!(!is_over(&gone, duration + KEPT, "me"));
        assert!(is_over(&gone, duration + KEPT + Duration::from_secs(1), "me"));
        assert!(!is_over(&gone, KEPT * 10, "gone"), "never one's own");
    }

    #[test]
    fn the_leader_is_the_one_whose_name_stands_in_the_lease() {
        let mut leader = lease("a", Some("a_1"), "2026-01-01T00:00:00Z");
        let terms =
            r#"[{"version":3,"holder":"a_0","began":"x","ended":"y"},{"version":9,"holder":"a_1","began":"z"}]"#;
        leader.metadata.annotations = Some([(annotation(TERMS_NOTE), terms.to_owned())].into());
        let shown = part(&leader, Duration::ZERO, "a", Some("a_1")).expect("it names a duration");
        assert!(shown.leads && shown.me && shown.alive);
        assert_eq!(shown.since.as_deref(), Some("z"));
        let shown = part(&leader, Duration::ZERO, "b", Some("b_1")).expect("it names a duration");
        assert!(!shown.leads && !shown.me);
        assert_eq!(shown.since, None);
    }

    #[test]
    fn a_lease_that_was_made_anew_is_another() {
        let mut seen = Sightings::default();
        let mut lease = lease("a", Some("a_1"), "2026-01-01T00:00:00Z");
        seen.saw(at(1), &lease);
        lease.metadata.uid = Some("u2".to_owned());
        seen.saw(at(50), &lease);
        assert_eq!(seen.age(at(51), "a"), Some(Duration::from_secs(1)));
    }
}
