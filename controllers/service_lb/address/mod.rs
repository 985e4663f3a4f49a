//! Addresses of load balancers: chosen by `choose`, and reserved in the cluster before they are used. The name of a
//! reservation is made of its address and creating it is atomic, so that no address is given twice, whoever leads.

mod choose;
mod status;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use quarterdeck_api::cloud::pool::{
    AddressPool, AddressReservation, AddressReservationSpec, HeldPort, Holder, reservation_name,
};
use quarterdeck_api::cloud::range::canonical;
use quarterdeck_cloud::model::{Owner, Protocol};
use quarterdeck_runtime::client::{DeletePrecondition, Propagation};
use quarterdeck_runtime::controller::{Cx, Error};
use quarterdeck_runtime::informer::{Index, Lister};
use quarterdeck_runtime::object::{Cached as _, Kind, ObjectKey};
use tokio::time::Instant;

use super::complaint::Complaint;
use super::wish::Wish;
use choose::{Ask, Choice, PoolView, World, choose};

/// Index of reservations by the uid of each holder.
const BY_HOLDER: &str = "holder";
/// How long an address that this process reached for counts as taken, whether the cache shows it or not.
const REACHED_FOR: Duration = Duration::from_secs(30);
/// How many addresses may be lost to others before the Service is left for later.
const TRIES: usize = 64;

/// What came of asking for addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// These are reserved; none: the cloud chooses.
    Have(Vec<IpAddr>),
    /// What is asked for cannot be had: the Service goes on with these, which it has, and is looked at when that may
    /// have changed.
    Kept {
        /// What it has; none: the cloud chose.
        addresses: Vec<IpAddr>,
        /// Why it gets nothing else.
        why: Complaint,
    },
    /// There are none; the Service is looked at when that may have changed.
    Waiting {
        /// Why.
        why: Complaint,
    },
}

/// Pools and reservations.
pub(super) struct Addresses {
    pub(super) pools: Lister<AddressPool>,
    pub(super) reservations: Lister<AddressReservation>,
    pub(super) namespaces: Lister<Namespace>,
    /// Addresses that this process reached for, and when: the cache may not show them yet.
    reached: Mutex<HashMap<IpAddr, Instant>>,
    /// Services that wait for an address.
    waiting: Mutex<HashSet<ObjectKey>>,
}

impl Addresses {
    pub(super) fn new(
        pools: Lister<AddressPool>,
        reservations: Lister<AddressReservation>,
        namespaces: Lister<Namespace>,
    ) -> Self {
        reservations.add_index(Index {
            name: BY_HOLDER,
            keys: |reservation, visit| reservation.spec.holders.iter().for_each(|holder| visit(&holder.uid)),
        });
        Self { pools, reservations, namespaces, reached: Mutex::default(), waiting: Mutex::default() }
    }

    /// The Services that wait for an address.
    pub(super) fn waiting(&self) -> Vec<ObjectKey> {
        self.waiting.lock().iter().cloned().collect()
    }

    /// The Service waits for nothing any more.
    pub(super) fn stop_waiting(&self, key: &ObjectKey) {
        self.waiting.lock().remove(key);
    }

    /// The cache shows this address reserved, or free again.
    pub(super) fn seen(&self, address: IpAddr) {
        self.reached.lock().remove(&address);
    }

    /// The pools that an address is in.
    pub(super) fn pools_of(&self, address: IpAddr) -> Vec<ObjectKey> {
        let holds = |pool: &AddressPool| pool.spec.ranges().0.iter().any(|range| range.contains(address));
        self.pools.all().iter().filter(|pool| holds(pool)).map(|pool| pool.key()).collect()
    }

    /// Reserves what a Service asks for, or says that it has to go on with what it has, or to wait. `made`: there is a
    /// load balancer already.
    ///
    /// # Errors
    /// When the server does not answer, or what was read is no longer so.
    pub(super) async fn settle(
        &self,
        cx: &Cx,
        service: &Service,
        wish: &Wish,
        provider: &str,
        needed: bool,
        made: bool,
    ) -> Result<Settled, Error> {
        let key = service.key();
        let asked = wish.requested.as_deref();
        if !needed && asked == Ok(&[]) && wish.pool.is_none() {
            self.stop_waiting(&key);
            return Ok(Settled::Have(Vec::new()));
        }
        let ports = held_ports(wish);
        let shown: Vec<IpAddr> =
            super::status::shown_addresses(service).filter_map(|text| text.parse().ok().map(canonical)).collect();
        let mut acquired: Vec<IpAddr> = Vec::new();
        // Before the caches are read: what frees an address after that finds the Service waiting.
        self.waiting.lock().insert(key.clone());
        for _ in 0..TRIES {
            let ask = Ask {
                uid: &wish.spec.owner.uid,
                provider,
                needed,
                families: &wish.spec.ipv6,
                requested: asked.unwrap_or_default(),
                pool: wish.pool.as_deref(),
                sharing_key: wish.sharing_key.as_deref(),
                one_family_will_do: wish.one_family_will_do,
                ports: &ports,
                shown: &shown,
                acquired: &acquired,
            };
            let chosen = match asked {
                Ok(_) => self.choose(&ask, service),
                Err(bad) => Err(bad.complaint()),
            };
            let choices = match chosen {
                Ok(choices) => choices,
                Err(why) if made => return self.stay(cx, &ask, wish, why).await,
                Err(why) => return Ok(Settled::Waiting { why }),
            };
            let mut lost = false;
            for choice in &choices {
                match self.carry_out(cx, choice, wish, provider, &ports).await? {
                    true if matches!(choice, Choice::Take { .. } | Choice::Join { .. }) => {
                        acquired.push(choice.address());
                    }
                    true => {}
                    false => lost = true,
                }
            }
            if !lost {
                self.stop_waiting(&key);
                return Ok(Settled::Have(choices.iter().map(Choice::address).collect()));
            }
        }
        Err(Error::Stale(format!("{TRIES} addresses in a row were taken by others")))
    }

    /// Has a Service go on with what it has.
    async fn stay(&self, cx: &Cx, ask: &Ask<'_>, wish: &Wish, why: Complaint) -> Result<Settled, Error> {
        let reservations = self.reservations.all();
        let choices = match choose::stay(ask, &by_address(&reservations)) {
            Ok(choices) if choices.is_empty() && ask.needed => return Ok(Settled::Waiting { why }),
            Ok(choices) => choices,
            Err(why) => return Ok(Settled::Waiting { why }),
        };
        for choice in &choices {
            if !self.carry_out(cx, choice, wish, ask.provider, ask.ports).await? {
                return Err(Error::Stale(format!("the reservation of {} is gone", choice.address())));
            }
        }
        Ok(Settled::Kept { addresses: choices.iter().map(Choice::address).collect(), why })
    }

    /// Gives back what a Service has, but for these addresses. Only to be called once no load balancer has them.
    ///
    /// # Errors
    /// When something could not be given back.
    pub(super) async fn release(&self, cx: &Cx, uid: &str, keep: &[IpAddr]) -> Result<(), Error> {
        for reservation in self.reservations.indexed(BY_HOLDER, uid) {
            if reservation.spec.ip().is_some_and(|address| keep.contains(&address)) {
                continue;
            }
            self.drop_holder(cx, &reservation, uid).await?;
        }
        Ok(())
    }

    /// Takes a holder out of a reservation, and the reservation away with the last one.
    ///
    /// # Errors
    /// When that could not be written, or the reservation has changed.
    pub(super) async fn drop_holder(&self, cx: &Cx, reservation: &AddressReservation, uid: &str) -> Result<(), Error> {
        let mut rest = reservation.clone();
        rest.spec.holders.retain(|holder| holder.uid != uid);
        let done = if rest.spec.holders.is_empty() {
            let precondition = DeletePrecondition {
                uid: reservation.uid().to_owned(),
                resource_version: Some(reservation.resource_version().to_owned()),
            };
            let kind = Kind::of::<AddressReservation>();
            cx.api.delete(&kind, &reservation.key(), &precondition, Propagation::Background).await
        } else {
            cx.api.replace(&rest).await.map(drop)
        };
        match done {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Chooses, and notes what is reached for.
    fn choose(&self, ask: &Ask<'_>, service: &Service) -> Result<Vec<Choice>, Complaint> {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let of_namespace = self.namespaces.get(&ObjectKey::cluster(namespace));
        let label_of_namespace =
            |key: &str| of_namespace.as_ref()?.metadata.labels.as_ref()?.get(key).map(String::as_str);
        let label_of_service = |key: &str| service.metadata.labels.as_ref()?.get(key).map(String::as_str);
        let mut pools: Vec<PoolView> = self
            .pools
            .all()
            .iter()
            .filter(|pool| !pool.is_deleting())
            .map(|pool| PoolView {
                name: pool.key().name().to_owned(),
                ranges: pool.spec.ranges().0,
                serves: pool.spec.serves(namespace, &label_of_namespace, &label_of_service),
                auto: pool.spec.auto_assign,
            })
            .collect();
        pools.sort_by(|a, b| a.name.cmp(&b.name));
        let reservations = self.reservations.all();
        let reserved = by_address(&reservations);
        let now = Instant::now();
        let mut reached = self.reached.lock();
        reached.retain(|_, since| now.duration_since(*since) < REACHED_FOR);
        let taken: HashSet<IpAddr> = reached.keys().copied().collect();
        let choices = choose(ask, &World { pools: &pools, reserved: &reserved, taken: &taken })?;
        for choice in &choices {
            if let Choice::Take { address, .. } = choice {
                reached.insert(*address, now);
            }
        }
        Ok(choices)
    }

    /// Writes what was chosen; `false` if somebody else was faster.
    async fn carry_out(
        &self,
        cx: &Cx,
        choice: &Choice,
        wish: &Wish,
        provider: &str,
        ports: &[HeldPort],
    ) -> Result<bool, Error> {
        let owner = &wish.spec.owner;
        let sharing_key = wish.sharing_key.clone().unwrap_or_default();
        match choice {
            Choice::Have { .. } => Ok(true),
            Choice::Take { address, pool } => {
                let reservation = AddressReservation {
                    metadata: ObjectMeta { name: Some(reservation_name(*address)), ..ObjectMeta::default() },
                    spec: AddressReservationSpec {
                        address: address.to_string(),
                        pool: pool.clone(),
                        provider: provider.to_owned(),
                        sharing_key,
                        holders: vec![holder(owner, ports)],
                    },
                    status: None,
                };
                match cx.api.create(&reservation).await {
                    Ok(_) => Ok(true),
                    Err(error) if error.is_already_exists() => Ok(false),
                    Err(error) => Err(error.into()),
                }
            }
            Choice::Join { address } | Choice::Rewrite { address } => {
                let key = ObjectKey::cluster(reservation_name(*address));
                let Some(found) = self.reservations.get(&key) else { return Ok(false) };
                let mut reservation = (*found).clone();
                let holders = &mut reservation.spec.holders;
                holders.retain(|holder| holder.uid != owner.uid);
                holders.push(holder(owner, ports));
                if holders.len() == 1 {
                    reservation.spec.sharing_key = sharing_key;
                    provider.clone_into(&mut reservation.spec.provider);
                }
                cx.api.replace(&reservation).await?;
                Ok(true)
            }
        }
    }
}

fn by_address(reservations: &[Arc<AddressReservation>]) -> BTreeMap<IpAddr, &Arc<AddressReservation>> {
    reservations.iter().filter_map(|reservation| Some((reservation.spec.ip()?, reservation))).collect()
}

/// The ports of a load balancer, in order.
fn held_ports(wish: &Wish) -> Vec<HeldPort> {
    let protocol = |protocol: Protocol| match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    let ports = wish.spec.ports.iter();
    let mut all: Vec<HeldPort> =
        ports.map(|port| HeldPort { protocol: protocol(port.protocol).to_owned(), port: port.port }).collect();
    all.sort_unstable();
    all
}

fn holder(owner: &Owner, ports: &[HeldPort]) -> Holder {
    Holder {
        namespace: owner.namespace.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        ports: ports.to_vec(),
    }
}
