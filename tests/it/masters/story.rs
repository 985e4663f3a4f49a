//! The chapters of the core.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use quarterdeck_it::eventually;
use quarterdeck_it::masters::{ADDONS, Holder, Requests, addon, page};
use serde_json::Value;

use super::LONG;
use super::world::{World, once};

/// User and group of the pods.
const USER: u32 = 65532;
/// A custom resource whose definition is not there.
const SHIP: &str = "\
apiVersion: harbour.example/v1
kind: Ship
metadata:
  name: belle
  namespace: default
  labels: {addonmanager.kubernetes.io/mode: Reconcile}
";
/// Its definition.
const SHIPS: &str = "\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: ships.harbour.example
  labels: {addonmanager.kubernetes.io/mode: Reconcile}
spec:
  group: harbour.example
  scope: Namespaced
  names: {kind: Ship, plural: ships, singular: ship}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
";
/// The definition of Addon objects.
const ADDON_OBJECTS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/addons.addonmgr.keikoproj.io";

/// `quarterdeck install` on each master, twice; then a static pod on each, of which one leads, all by the word of the
/// kubelets' probes.
pub(super) async fn installed_and_started(world: &World) -> Result<()> {
    let masters = &world.masters;
    let planned = masters.install(1, &["--dry-run"]).await?;
    ensure!(planned.contains("clusterrole/quarterdeck:manager created (dry run)"), "{planned}");
    ensure!(!masters.master(1).config_dir().join("quarterdeck.conf").exists(), "a dry run wrote");
    for number in 1..=3 {
        let first = masters.install(number, &[]).await?;
        let word = if number == 1 { "created" } else { "unchanged" };
        ensure!(first.contains(&format!("clusterrole/quarterdeck:manager {word}")), "{first}");
        let again = masters.install(number, &[]).await?;
        ensure!(again.lines().all(|line| line.ends_with("unchanged")), "{again}");
        let master = masters.master(number);
        is_as(&master.config_dir(), 0o750, None)?;
        is_as(&master.config_dir().join("quarterdeck.conf"), 0o640, None)?;
        is_as(&master.state_dir(), 0o750, Some(USER))?;
    }
    // Without this kind directories go on all the same; only Addon objects wait.
    world.delete(1, ADDON_OBJECTS).await?;
    masters.addon("ship.yaml", Some(SHIP))?;
    for name in ADDONS {
        masters.addon(name, Some(&addon(name)?))?;
    }
    for number in 1..=3 {
        masters.deploy(number, Some(&world.manifest))?;
    }
    for number in 1..=3 {
        masters.until_serving(number, LONG).await?;
        let restarts = masters.until_mirror_ready(number, number, LONG).await?;
        ensure!(restarts == 0, "master {number}: {restarts} restarts\n{}", masters.master(number).logs());
    }
    let holder = world.leader(1, None).await?;
    for number in masters.others(holder.master) {
        ensure!(!masters.master(number).status().await?.leads(), "masters {number} and {} lead", holder.master);
    }
    Ok(())
}

/// What runs is what the image and the manifest say: no shell, nobody's rights, nothing of the master but three folders.
pub(super) async fn image_is_closed(world: &World) -> Result<()> {
    let (masters, number) = (&world.masters, 2);
    let pod = masters.mirror(number);
    let exec = |args: &'static [&'static str]| {
        let mut all = vec!["-n", "kube-system", "exec", &pod, "--"];
        all.extend(args);
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        async move {
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            masters.kubectl(number, &all).await
        }
    };
    let help = exec(&["quarterdeck", "-h"]).await?;
    ensure!(help.contains("--leader-elect"), "{help}");
    let shell = exec(&["sh", "-c", "true"]).await.err().context("there is a shell")?.to_string();
    ensure!(shell.contains("not found"), "{shell}");

    let pids = masters.master(number).quarterdeck_pids()?;
    let [pid] = pids[..] else { bail!("processes: {pids:?}") };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    let user = USER.to_string();
    ensure!(field("Uid:").split_whitespace().all(|id| id == user), "{status}");
    ensure!(field("Gid:").split_whitespace().all(|id| id == user), "{status}");
    ensure!(field("CapEff:") == "0000000000000000" && field("CapBnd:") == "0000000000000000", "{status}");
    ensure!(field("NoNewPrivs:") == "1" && field("Seccomp:") == "2", "{status}");
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let mount = |place: &str| -> Option<String> {
        let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        lines.find(|fields| fields.get(4) == Some(&place)).and_then(|fields| Some((*fields.get(5)?).to_owned()))
    };
    let is =
        |place: &str, how: &str| mount(place).is_some_and(|options| options.split(',').any(|option| option == how));
    for place in ["/", "/etc/kubernetes/quarterdeck", "/etc/kubernetes/addons"] {
        ensure!(is(place, "ro"), "{place} can be written to: {mounts}");
    }
    ensure!(is("/var/lib/quarterdeck", "rw"), "{mounts}");
    let there = std::fs::read_dir(format!("/proc/{pid}/root/etc/kubernetes"))?.flatten();
    let mut there: Vec<_> = there.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    there.sort();
    ensure!(there == ["addons", "quarterdeck"], "of /etc/kubernetes it sees {there:?}");
    Ok(())
}

/// From nothing to a network and names: both come out of a directory, beside an addon that has to wait.
pub(super) async fn addons_bring_network_and_names(world: &World) -> Result<()> {
    let (masters, asked) = (&world.masters, 1);
    world.nodes_ready(asked).await?;
    for file in ADDONS {
        world.addon_state(asked, file, "ready").await?;
    }
    let data = world.addon_state(asked, "ship.yaml", "degraded").await?;
    ensure!(data["errors"].as_str().is_some_and(|errors| errors.contains("no such kind")), "{data}");

    // A real pod asks for a name.
    let address = world.service(asked, "beacon", "beacon").await?;
    let name = "beacon.default.svc.cluster.local";
    // The name may be younger than what CoreDNS has heard of.
    let script = format!("until nslookup -type=a {name} | grep {}; do sleep 1; done", address.ip());
    world.make(asked, "/api/v1/namespaces/default/pods", &once("asks", &masters.master(asked).name(), &script)).await?;
    eventually("a pod has an answer", LONG, || async {
        let pod = world.get(asked, "/api/v1/namespaces/default/pods/asks").await?.context("no pod")?;
        ensure!(pod["status"]["phase"] == "Succeeded", "{}", pod["status"]);
        Ok(())
    })
    .await?;
    let heard = masters.kubectl(asked, &["logs", "asks"]).await?;
    ensure!(heard.contains(&address.ip().to_string()), "{heard}");

    // What waited goes on as soon as it can.
    masters.addon("ships.yaml", Some(SHIPS))?;
    world.addon_state(asked, "ship.yaml", "ready").await?;
    // And so do Addon objects: they show what directories hold.
    masters.install(asked, &[]).await?;
    eventually("mirrors of the addons", LONG, || async {
        let path = "/apis/addonmgr.keikoproj.io/v1alpha1/namespaces/kube-system/addons";
        let all = world.get(asked, path).await?.context("the kind is not served")?;
        let names = |addon: &Value| addon["spec"]["pkgName"].as_str().unwrap_or_default().to_owned();
        let names: Vec<String> = all["items"].as_array().into_iter().flatten().map(names).collect();
        ensure!(names.iter().any(|name| name == "coredns.yaml"), "{names:?}");
        Ok(())
    })
    .await?;
    Ok(())
}

/// A Service answers all the while: its leader's pod is taken away, the next leader's master is killed, the next one's is
/// cut off, and both come back.
///
/// Backends and callers are on a master to which nothing happens: what a dead machine takes with it, no manager can
/// save. Whatever else is lost is ours.
pub(super) async fn service_outlives_masters(world: &World) -> Result<()> {
    let masters = &world.masters;
    let first = world.leader(1, None).await?;
    let safe = first.master;
    world.backends(safe, "web", &["web-a", "web-b"]).await?;
    let web = world.service(safe, "web", "web").await?;
    answers(world, safe, web).await?;
    let network = masters.master(safe).network()?;
    let requests = Requests::start(&network, web)?;

    // Its pod goes: the deck is handed over.
    let second = relieve(world, safe, &first).await?;
    has_new_endpoints(world, safe, "after-removal").await?;
    requests.check()?;

    // Its machine dies.
    masters.kill(second.master).await?;
    let third = world.leader(safe, Some(&second)).await?;
    ensure!(third.master != second.master, "the dead lead: {third:?}");
    has_new_endpoints(world, safe, "after-death").await?;
    masters.heal(second.master).await?;
    masters.until_serving(second.master, LONG).await?;
    masters.until_mirror_ready(second.master, safe, LONG).await?;
    requests.check()?;

    // It is cut off; if that is the safe one, somebody else takes its place before.
    let leader = if third.master == safe { relieve(world, safe, &third).await? } else { third };
    masters.cut(leader.master).await?;
    let last = world.leader(safe, Some(&leader)).await?;
    ensure!(last.master != leader.master, "who is cut off leads: {last:?}");
    has_new_endpoints(world, safe, "after-the-cut").await?;
    masters.heal(leader.master).await?;
    masters.until_serving(leader.master, LONG).await?;
    masters.until_mirror_ready(leader.master, safe, LONG).await?;
    ensure!(!masters.master(leader.master).status().await?.leads(), "who came back leads beside {last:?}");

    let answered = requests.finish()?;
    ensure!(answered > 0, "nobody asked");
    // First, second, third and last; perhaps one between.
    world.judge(4)
}

/// Takes the leader's static pod away, waits for another leader, and puts it back.
async fn relieve(world: &World, asked: usize, leader: &Holder) -> Result<Holder> {
    let (masters, begun) = (&world.masters, Timestamp::now());
    masters.deploy(leader.master, None)?;
    let next = world.leader(asked, Some(leader)).await?;
    ensure!(next.master != leader.master, "the pod is gone and leads: {next:?}");
    masters.until_no_mirror(leader.master, asked, LONG).await?;
    masters.deploy(leader.master, Some(&world.manifest))?;
    masters.until_mirror_ready(leader.master, asked, LONG).await?;
    eprintln!("master {} relieved master {} within {:#}", next.master, leader.master, Timestamp::now() - begun);
    Ok(next)
}

/// A Service that is made now is reached: somebody writes its endpoints, and kube-proxy hears of them.
pub(super) async fn has_new_endpoints(world: &World, asked: usize, name: &str) -> Result<()> {
    let address = world.service(asked, name, "web").await?;
    answers(world, asked, address).await
}

pub(super) async fn answers(world: &World, from: usize, address: std::net::SocketAddr) -> Result<()> {
    let network = world.masters.master(from).network()?;
    eventually(&format!("{address} answers"), LONG, || async {
        let name = tokio::task::block_in_place(|| page(&network, address))?;
        ensure!(name.starts_with("web-"), "{name:?} answered");
        Ok(())
    })
    .await
    .with_context(|| world.masters.master(from).logs())
}

fn is_as(path: &Path, mode: u32, user: Option<u32>) -> Result<()> {
    let found = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    ensure!(found.mode() & 0o7777 == mode, "{}: {:o}", path.display(), found.mode());
    ensure!(found.gid() == USER, "{}: group {}", path.display(), found.gid());
    ensure!(user.is_none_or(|user| found.uid() == user), "{}: user {}", path.display(), found.uid());
    Ok(())
}
