//! The control: replicas that elect with the published crate `kube-leader-election` (`tests/control`). Without a pause, a
//! slow clock or a fault in any program, they write in each other's tenure, and the checker has to find it.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::Api;
use parking_lot::Mutex;
use quarterdeck_it::audit::Event;
use quarterdeck_it::checker::{History, Law, Violation, check};
use quarterdeck_it::deck::group;
use quarterdeck_it::proxy::{Faults, Flow};
use quarterdeck_it::{Credentials, Launch, Process, eventually, repository, target};
use tokio::process::Command;

use super::LONG;
use super::arena::{Arena, NAMESPACE, REPLICAS};

/// User of the candidates' kubeconfigs.
const USER: &str = "control";
/// How often a mishap may do no harm: who writes before it looks at the Lease again is not ours to say.
const TRIES: usize = 5;

/// The control's program: `QUARTERDECK_CONTROL_BIN`, else built now if `hack/test` has not.
async fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("QUARTERDECK_CONTROL_BIN") {
        return Ok(path.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let folder = target().join("control");
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--manifest-path"])
        .arg(repository().join("tests/control/Cargo.toml"))
        .arg("--target-dir")
        .arg(&folder)
        .current_dir(repository())
        .status()
        .await?;
    ensure!(built.success(), "building the control: {built}");
    Ok(folder.join("debug/quarterdeck_control"))
}

/// Processes of the control, each behind a network of its own, told apart in the audit log as quarterdeck's replicas are.
struct Candidates {
    processes: Vec<Mutex<Process>>,
    /// Their names in the Lease.
    identities: Vec<String>,
}

impl Candidates {
    /// Starts them, and waits until one works.
    async fn enter(arena: &Arena) -> Result<Self> {
        let program = program().await?;
        arena.control_plane.grant(USER, &rights()).await?;
        let mut audit = arena.control_plane.audit_from_now()?;
        let (mut processes, mut identities) = (Vec::new(), Vec::new());
        for (index, proxy) in arena.proxies.iter().enumerate() {
            let credentials = Credentials::user(USER, &[&group(index)]);
            let kubeconfig = arena.control_plane.kubeconfig_at(&proxy.url(), &credentials)?;
            let identity = format!("control-{index}");
            let launch = Launch::new(&identity, &program)
                .args([kubeconfig.display().to_string(), identity.clone(), NAMESPACE.to_owned()])
                .log(arena.control_plane.folder().join(format!("{identity}.log")));
            processes.push(Mutex::new(launch.spawn()?));
            identities.push(identity);
        }
        let candidates = Self { processes, identities };
        let leader = arena.leader_among(&candidates.identities).await?;
        arena.works(&mut audit, leader).await?;
        Ok(candidates)
    }

    fn process(&self, index: usize) -> Process {
        self.processes[index].lock().clone()
    }

    /// Starts one again that was killed.
    fn revive(&self, index: usize) -> Result<()> {
        let launch = self.process(index).launch().clone();
        *self.processes[index].lock() = launch.spawn()?;
        Ok(())
    }
}

/// What the crate and the work need.
fn rights() -> Vec<PolicyRule> {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(resources.iter().map(|&resource| resource.to_owned()).collect()),
        verbs: verbs.iter().map(|&verb| verb.to_owned()).collect(),
        ..PolicyRule::default()
    };
    vec![
        rule("coordination.k8s.io", &["leases"], &["get", "create", "patch"]),
        rule("discovery.k8s.io", &["endpointslices"], &["create", "patch"]),
        rule("", &["services", "pods"], &["list"]),
    ]
}

/// The writes that break a law since `before`.
fn new_violations(before: &History, after: &History, law: Law) -> Vec<Violation> {
    let (known, mut violations) = (check(before, law), check(after, law));
    violations.retain(|violation| !known.contains(violation));
    violations
}

/// The leader's network holds everything back, and delivers it when another leads: nothing told the leader to stop working.
async fn partition(arena: &Arena, candidates: &Candidates) -> Result<()> {
    let old = arena.leader_among(&candidates.identities).await?;
    arena.proxies[old].set(Faults::partition());
    arena.taken_over_among(&candidates.identities, old).await?;
    let mut audit = arena.control_plane.audit_from_now()?;
    arena.calm();
    // The first look was held back as well; the next one comes after all that it did until then.
    audit.wait_for_count("looks at the lease", 2, LONG, |event| asked_for_lease(event, "get", old)).await?;
    Ok(())
}

/// The leader dies; two read the Lease while it still was another's, hear of it when it has expired, and both take it.
async fn two_winners(arena: &Arena, candidates: &Candidates) -> Result<()> {
    let old = arena.leader_among(&candidates.identities).await?;
    let others: Vec<usize> = (0..REPLICAS).filter(|index| *index != old).collect();
    let mut audit = arena.control_plane.audit_from_now()?;
    for &other in &others {
        arena.proxies[other].set(Faults { to_client: Flow::Hold, ..Faults::none() });
    }
    let held = Timestamp::now();
    for &other in &others {
        let read = |event: &Event| asked_for_lease(event, "get", other) && event.request_received_timestamp > held;
        audit.wait_for("a read of the lease", LONG, read).await?;
    }
    candidates.process(old).kill().await?;
    expired(arena).await?;
    let mut audit = arena.control_plane.audit_from_now()?;
    arena.calm();
    for &other in &others {
        let taken = |event: &Event| asked_for_lease(event, "patch", other);
        let taken = audit.wait_for("both take the lease", LONG, taken).await?;
        // Until it looks again it believes that it leads.
        let looks = |event: &Event| {
            asked_for_lease(event, "get", other) && event.request_received_timestamp > taken.stage_timestamp
        };
        audit.wait_for("a look at the lease", LONG, looks).await?;
    }
    candidates.revive(old)
}

/// Did this candidate do this with the Lease?
fn asked_for_lease(event: &Event, verb: &str, candidate: usize) -> bool {
    event.verb == verb
        && event.resource() == "leases.coordination.k8s.io"
        && event.user.groups.contains(&group(candidate))
}

/// Returns when the Lease's time is over by the wall clock, which is what the crate goes by.
async fn expired(arena: &Arena) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(arena.control_plane.admin().await?, "kube-system");
    eventually("the lease expires", LONG, async || {
        let spec = leases.get("quarterdeck").await?.spec.context("no spec")?;
        let renewed = spec.renew_time.context("never renewed")?.0;
        let lasts = SignedDuration::from_secs(spec.lease_duration_seconds.context("no duration")?.into());
        let left = Timestamp::now().duration_until(renewed.checked_add(lasts)?);
        ensure!(left < SignedDuration::ZERO, "{left:?} left");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_election_without_preconditions_is_caught() {
    let arena = Arena::open().await.unwrap();
    let candidates = Candidates::enter(&arena).await.unwrap();
    let both = [Law::NothingLate, Law::NothingUndone];
    is_caught(&arena, &both, async || partition(&arena, &candidates).await).await.unwrap();
    is_caught(&arena, &both[..1], async || two_winners(&arena, &candidates).await).await.unwrap();
}

/// Fails unless the checker finds, in one of some tries, writes that break each of these laws.
async fn is_caught(arena: &Arena, laws: &[Law], mishap: impl AsyncFn() -> Result<()>) -> Result<()> {
    let mut before = arena.history().await?;
    for _ in 0..TRIES {
        mishap().await?;
        let after = arena.history().await?;
        if laws.iter().all(|law| !new_violations(&before, &after, *law).is_empty()) {
            return Ok(());
        }
        before = after;
    }
    bail!("nobody misses it: {laws:?}")
}
