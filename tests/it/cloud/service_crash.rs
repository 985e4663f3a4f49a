//! A leader that is killed after every single write of a Service's life, and at every call to its cloud: one load
//! balancer, one reservation, the same address, and in the end nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use quarterdeck_it::cloud::{Fault, Moment, Rule};
use quarterdeck_it::deck::USER;
use quarterdeck_it::{CloudSim, ControlPlane, Turnstile, eventually};
use serde_json::{Value, json};

use super::service_witness::Witness;
use super::service_yard::{NAMESPACE, PATIENCE, Yard, path, shown};

const ENSURE: &str = "loadbalancers.ensure";
const DELETE: &str = "loadbalancers.ensure_deleted";
const RESERVATIONS: &str = "/apis/cloud.quarterdeck.dev/v1alpha1/addressreservations";
/// Lane of the requests that create reservations: their paths name no address.
const CREATION: usize = 90;
/// Services, by the last part of their address.
const CASES: [usize; 6] = [1, 2, 3, 4, 5, 6];

/// Where the leader of a case is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Point {
    /// When so many writes have reached the server, and the next one has not.
    Writes(usize),
    /// When this call was asked for, and nothing done.
    Before(&'static str),
    /// When this call was carried out, and nobody told.
    After(&'static str),
    /// When its reservation is to be created.
    Reservation,
    /// Nowhere.
    Never,
}

fn name(case: usize) -> String {
    format!("s-{case}")
}

fn address(case: usize) -> String {
    format!("10.200.0.{case}")
}

/// The lane of a write: the Service it is about.
fn lane_of(uri: &str, stops_creation: &AtomicBool) -> Option<usize> {
    let path = uri.split('?').next().unwrap_or_default();
    if path.ends_with("/addressreservations") {
        return stops_creation.load(Ordering::Relaxed).then_some(CREATION);
    }
    let parts: Vec<&str> = path.split('/').collect();
    let last = |after: &str| parts.iter().position(|part| *part == after).and_then(|at| parts.get(at + 1).copied());
    let service = last("services").and_then(|name| name.strip_prefix("s-"));
    let reservation = last("addressreservations").and_then(|name| name.rsplit('.').next());
    service.or(reservation)?.parse().ok()
}

struct Scene {
    yard: Yard,
    turnstile: Turnstile,
    stops_creation: Arc<AtomicBool>,
    witness: Witness,
    uids: BTreeMap<usize, String>,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn start() -> Result<Self> {
        let cloud = CloudSim::builder().args(["--needs-addresses", "--provision-ms=200"]).start().await?;
        let stops_creation = Arc::new(AtomicBool::new(false));
        let stops = Arc::clone(&stops_creation);
        let turnstile = Turnstile::start(move |uri| lane_of(uri, &stops)).await?;
        let folder = tempfile::tempdir()?;
        let control_plane = ControlPlane::builder()
            .audit(Turnstile::policy(USER))
            .apiserver_args(turnstile.apiserver_args(folder.path())?)
            .start()
            .await?;
        let yard = Yard::open(control_plane, cloud, 2).await?;
        let pool = json!({
            "apiVersion": "cloud.quarterdeck.dev/v1alpha1", "kind": "AddressPool",
            "metadata": { "name": "all" }, "spec": { "addresses": ["10.200.0.0/24"] },
        });
        yard.send("POST", "/apis/cloud.quarterdeck.dev/v1alpha1/addresspools", pool).await?;
        yard.deck.leader(PATIENCE).await?;
        let witness = Witness::start(&yard);
        Ok(Self { yard, turnstile, stops_creation, witness, uids: BTreeMap::new(), _folder: folder })
    }

    /// Has the leader stand at these points. `act` is done to each Service; to the one whose reservation is stopped last,
    /// when all others stand.
    async fn halt(&mut self, what: &str, points: &[(usize, Point)], act: Act) -> Result<()> {
        let mut limits = BTreeMap::from([(CREATION, 0)]);
        let mut held = BTreeSet::new();
        let mut standing = BTreeSet::new();
        for (case, point) in points {
            let mut hold = async |method: &'static str, at| -> Result<()> {
                self.yard.cloud.fault(Rule::new(method, Fault::Hold { at }).about(&name(*case))).await?;
                held.insert((method, name(*case)));
                Ok(())
            };
            match point {
                Point::Writes(writes) => {
                    limits.insert(*case, *writes);
                    standing.insert(*case);
                }
                Point::Before(method) => hold(method, Moment::Before).await?,
                Point::After(method) => hold(method, Moment::After).await?,
                Point::Reservation | Point::Never => {}
            }
        }
        self.turnstile.limit(limits);
        let (last, first): (Vec<_>, Vec<_>) = points.iter().partition(|(_, point)| *point == Point::Reservation);
        for (case, _) in first {
            self.act(case, act).await?;
        }
        self.stand(what, &standing, &held).await?;
        for (case, _) in last {
            self.stops_creation.store(true, Ordering::Relaxed);
            self.act(case, act).await?;
            standing.insert(CREATION);
        }
        self.stand(what, &standing, &held).await
    }

    /// Kills the leader where it stands, and has another one lead.
    async fn kill(&self) -> Result<()> {
        let leader = self.yard.deck.leader(PATIENCE).await?;
        self.yard.deck.replica(leader).process().kill().await?;
        self.stops_creation.store(false, Ordering::Relaxed);
        self.turnstile.open();
        self.yard.cloud.heal().await?;
        let next = self.yard.deck.leader(PATIENCE).await?;
        ensure!(next != leader, "quarterdeck-{leader} is dead, and leads");
        self.yard.deck.replica(leader).restart()
    }

    /// Waits until each stands where it should.
    async fn stand(&self, what: &str, lanes: &BTreeSet<usize>, calls: &BTreeSet<(&str, String)>) -> Result<()> {
        eventually(&format!("{what}: all stand still"), PATIENCE, async || {
            let standing = self.turnstile.standing();
            ensure!(standing.is_superset(lanes), "{standing:?} of {lanes:?}");
            let held = self.yard.cloud.dump().await?.held;
            let stands = |(method, subject): &(&str, String)| {
                held.iter().any(|call| call.method == *method && call.subject == format!("{NAMESPACE}/{subject}"))
            };
            ensure!(calls.iter().all(stands), "{held:?} of {calls:?}");
            Ok(())
        })
        .await
    }

    async fn act(&mut self, case: usize, act: Act) -> Result<()> {
        match act {
            Act::Create => {
                let wanted = json!({ "quarterdeck.dev/load-balancer-ips": address(case) });
                let uid = self.yard.create(&name(case), wanted, json!({})).await?;
                self.uids.insert(case, uid);
                Ok(())
            }
            Act::Change => {
                let ports = json!({ "spec": { "ports": [{ "name": "main", "port": 81 }] } });
                self.yard.patch(&name(case), ports).await.map(drop)
            }
            Act::Delete => self.yard.delete(&name(case)).await,
        }
    }

    /// Waits until each Service has its load balancer with this port, its address and its reservation, and nobody else
    /// has anything.
    async fn serves(&self, what: &str, port: u16) -> Result<()> {
        eventually(&format!("{what}: all serve at port {port}"), PATIENCE * 2, async || {
            for (case, uid) in &self.uids {
                let service = self.yard.service(&name(*case)).await?;
                ensure!(shown(&service) == [address(*case)], "{case}: {service}");
                let all = self.yard.cloud.balancers_of(uid).await?;
                let [one] = &all[..] else { bail!("{case}: {all:?}") };
                ensure!(one.ports.iter().map(|port| port.port).eq([port]), "{case}: {:?}", one.ports);
                let record = service["metadata"]["annotations"]["quarterdeck.dev/load-balancer"].as_str();
                let record: Value = serde_json::from_str(record.context("no record")?)?;
                ensure!(record["handle"] == *one.id, "{case}: {record} {}", one.id);
            }
            let mut held = BTreeMap::new();
            for reservation in self.reservations().await? {
                let holders = reservation["spec"]["holders"].as_array().context("holders")?;
                ensure!(holders.len() == 1 && holders[0]["ports"][0]["port"] == port, "{reservation}");
                let address = reservation["spec"]["address"].as_str().unwrap_or_default().to_owned();
                held.insert(address, holders[0]["uid"].as_str().unwrap_or_default().to_owned());
            }
            let wanted: BTreeMap<_, _> = self.uids.iter().map(|(case, uid)| (address(*case), uid.clone())).collect();
            ensure!(held == wanted, "{held:?} instead of {wanted:?}");
            Ok(())
        })
        .await?;
        let uids: Vec<&str> = self.uids.values().map(String::as_str).collect();
        self.yard.cloud.owned_by(&uids).await?;
        self.witness.verdict()
    }

    /// Whoever makes a load balancer after a crash says that it is the same operation, by what was written down before
    /// the first try: a cloud that can tell makes one.
    async fn each_was_one_operation(&self) -> Result<()> {
        let calls = self.yard.cloud.calls(ENSURE).await?;
        for case in CASES {
            let name = name(case);
            let about = calls.iter().filter(|call| call.subjects.contains(&name));
            let all: BTreeSet<&str> = about.map(|call| call.op_id.as_str()).collect();
            ensure!(all.len() == 1, "{name}: {all:?}");
        }
        Ok(())
    }

    async fn reservations(&self) -> Result<Vec<Value>> {
        let list = self.yard.send("GET", RESERVATIONS, Value::Null).await?;
        Ok(list["items"].as_array().context("a list")?.clone())
    }
}

/// What is done to a Service.
#[derive(Clone, Copy)]
enum Act {
    Create,
    Change,
    Delete,
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_are_killed_after_any_write_leave_nothing_half_done() -> Result<()> {
    let mut scene = Scene::start().await?;
    let points = [
        (1, Point::Writes(0)),
        (2, Point::Before(ENSURE)), // Finalizer and reservation are written, the cloud is not asked.
        (3, Point::After(ENSURE)),  // Made, and its handle not known.
        (4, Point::Writes(1)),      // Its handle is known, and not stored.
        (5, Point::Writes(2)),      // Its handle is stored, and no status written.
        (6, Point::Reservation),    // Claimed, and no address.
    ];
    scene.halt("create", &points, Act::Create).await?;
    scene.kill().await?;
    scene.serves("create", 80).await?;
    scene.each_was_one_operation().await?;

    let points = [
        (1, Point::Writes(0)), // No new ports in the reservation.
        (2, Point::Before(ENSURE)),
        (3, Point::After(ENSURE)),
        (4, Point::Writes(1)), // Changed in the cloud, and not written down.
        (5, Point::Never),
        (6, Point::Never),
    ];
    scene.halt("change", &points, Act::Change).await?;
    scene.kill().await?;
    scene.serves("change", 81).await?;

    let points = [
        (1, Point::Writes(0)), // Its status is there.
        (2, Point::Before(DELETE)),
        (3, Point::After(DELETE)), // Gone in the cloud, with its finalizer.
        (4, Point::Writes(1)),     // Gone in the cloud, with its reservation.
        (5, Point::Writes(2)),     // Without its reservation, with its finalizer.
        (6, Point::Never),
    ];
    scene.halt("delete", &points, Act::Delete).await?;
    // What 5 had is free: whoever gets it now has it alone, though 5 is still there.
    let wanted = json!({ "quarterdeck.dev/load-balancer-ips": address(5) });
    let heir = scene.yard.create("s-7", wanted, json!({})).await?;
    ensure!(scene.yard.addresses("s-7").await? == [address(5)]);
    scene.yard.service(&name(5)).await?;
    scene.kill().await?;
    for case in CASES {
        scene.yard.gone(&path(&name(case))).await?;
    }
    scene.yard.cloud.owned_by(&[&heir]).await?;
    let left = scene.reservations().await?;
    ensure!(left.len() == 1 && left[0]["spec"]["holders"][0]["uid"] == *heir, "{left:?}");
    scene.witness.verdict()?;
    ensure!(scene.witness.saw() == CASES.len() + 1, "it looked away from {NAMESPACE}");
    let changes = scene.yard.cloud.calls("*").await?;
    ensure!(
        changes.iter().filter(|call| call.changed).is_sorted_by_key(|call| call.epoch),
        "a dead leader changed something: {changes:#?}"
    );
    Ok(())
}
