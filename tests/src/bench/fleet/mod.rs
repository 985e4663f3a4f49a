//! Three hundred addons of ten objects, a hundred from each source: from nothing to applied beside
//! kubectl, then, among thirty thousand objects, memory, a restart, a minute of rest, and drift.

mod objects;
mod place;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use quarterdeck_it::audit::Event;
use quarterdeck_it::{Launch, eventually};
use serde_json::{Value, json};

use crate::api::{Change, Seen, Watch, seconds};
use crate::audit::{Requests, is_object_write};
use crate::contestant::{Crew, LONG, Side, mebibytes};
use crate::report::{Collector, Goal, Report};
use crate::yard::Yard;
use objects::{EACH, KINDS, LABEL};
use place::{Place, put};

/// Addons in all.
const ADDONS: usize = 300;
/// Objects of others, of the same kinds.
const STRANGERS: usize = 27_000;
/// Harms of each sort and source.
const TURNS: usize = 50;
/// Service account of the Addon objects' templates.
const INSTALLER: &str = "installer";
const REST: Duration = Duration::from_secs(15);
const MINUTE: Duration = Duration::from_secs(60);
/// Longest that kubectl gets for everything.
const KUBECTL: Duration = Duration::from_secs(600);

/// Where an addon comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// A file of the directory.
    Directory,
    /// An Addon object.
    Object,
    /// An entry of a channel.
    Channel,
}

impl Source {
    const ALL: [Self; 3] = [Self::Directory, Self::Object, Self::Channel];

    /// Its addons' numbers.
    fn addons(self) -> Range<usize> {
        let each = ADDONS / Self::ALL.len();
        let first = self as usize * each;
        first..first + each
    }

    /// Namespace of its addons' objects.
    fn namespace(self) -> &'static str {
        match self {
            Self::Directory => "fleet-directory",
            Self::Object => "fleet-object",
            Self::Channel => "fleet-channel",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Object => "Addon",
            Self::Channel => "channel",
        }
    }
}

/// Measures all of it.
pub(crate) async fn run(report: &mut Report) -> Result<()> {
    let named = |how| format!("fleet: {} objects from nothing to applied (peer: kubectl apply{how})", ADDONS * EACH);
    let mut applied = Collector::new(named(""), "s", Goal::Ratio(1.0));
    let mut server_side = Collector::new(named(" --server-side"), "s", Goal::None);
    for round in 0..report.rounds(3) {
        for side in Side::both(round) {
            match side {
                Side::Ours => {
                    let (_yard, _place, crew, took) = set_up().await?;
                    crew.stop().await?;
                    applied.add(side, took);
                    server_side.add(side, took);
                }
                Side::Go => {
                    applied.add(side, kubectl(&["apply"]).await?);
                    server_side.add(side, kubectl(&["apply", "--server-side"]).await?);
                }
            }
        }
    }
    report.take("fleet", [applied, server_side]);

    let (yard, place, crew, _) = set_up().await?;
    crew.stop().await?;
    let each = |http: crate::api::Http, index| async move {
        let (path, object) = objects::stranger(index);
        http.create(path, &object).await
    };
    yard.http.for_each(0..STRANGERS, 32, each).await?;
    let crew = among_strangers(&yard, &place, report).await?;
    drifts(&yard, &place, report).await?;
    crew.stop().await
}

/// A fresh server with the whole fleet applied, and how many seconds that took.
async fn set_up() -> Result<(Yard, Place, Crew, f64)> {
    let yard = Yard::open(None).await?;
    let place = Place::prepare(&yard.control_plane, &yard.http).await?;
    let crew = start(&yard, &place, "addon-controller").await?;
    let paths = KINDS.map(|kind| format!("{kind}?labelSelector={LABEL}%3Dfleet"));
    let watches = try_join_all(paths.iter().map(|path| yard.http.watch(path))).await?;
    let begun = Instant::now();
    let (_, last) = tokio::try_join!(place.bring_all(), all_seen(watches))?;
    let took = seconds(begun, last);
    settled(&yard).await?;
    Ok((yard, place, crew, took))
}

async fn start(yard: &Yard, place: &Place, controllers: &str) -> Result<Crew> {
    let flags = place.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Crew::start(&yard.control_plane, &yard.http, Side::Ours, &[controllers], 1, &flags).await
}

/// When the last object of the fleet was seen.
async fn all_seen(watches: Vec<Watch>) -> Result<Instant> {
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let readers: Vec<_> = watches
        .into_iter()
        .map(|mut watch| {
            let sender = sender.clone();
            tokio::spawn(async move {
                while let Ok(event) = watch.next().await {
                    if event.change == Change::Added && sender.send(event.at).is_err() {
                        return;
                    }
                }
            })
        })
        .collect();
    drop(sender);
    let mut last = None;
    for number in 0..ADDONS * EACH {
        last = Some(seen.recv().await.ok_or_else(|| anyhow::anyhow!("only {number} objects were made"))?);
    }
    for reader in readers {
        reader.abort();
    }
    last.ok_or_else(|| anyhow::anyhow!("there is nothing to wait for"))
}

/// Waits until the list of addons shows all of them as ready.
async fn settled(yard: &Yard) -> Result<()> {
    eventually("every addon is ready", LONG, async || {
        let list = yard.http.get("/apis/addonmgr.keikoproj.io/v1alpha1/addons").await?;
        let all = list["items"].as_array().map_or(&[][..], Vec::as_slice);
        let ready = all.iter().filter(|addon| addon["status"]["health"] == "Ready").count();
        ensure!(ready >= ADDONS, "{ready} are");
        Ok(())
    })
    .await
}

/// How long kubectl takes for the same objects, on a fresh server.
async fn kubectl(verb: &[&str]) -> Result<f64> {
    let yard = Yard::open(None).await?;
    Place::prepare(&yard.control_plane, &yard.http).await?;
    let folder = yard.control_plane.folder().join("manifests");
    std::fs::create_dir_all(&folder)?;
    for source in Source::ALL {
        for number in source.addons() {
            let file = format!("{}.yaml", objects::name(number));
            put(&folder, &file, &objects::manifest(source, number, "first"))?;
        }
    }
    let launch = Launch::new("kubectl", yard.control_plane.program("kubectl"))
        .args(verb.iter().copied())
        .arg("-f")
        .arg(folder.display().to_string())
        .env("KUBECONFIG", yard.control_plane.admin_kubeconfig()?.display().to_string())
        .log(Path::new(&folder).with_extension("log"));
    let begun = Instant::now();
    let process = launch.spawn()?;
    let exit = process.wait(KUBECTL).await?;
    let took = begun.elapsed().as_secs_f64();
    ensure!(exit.success(), "kubectl {verb:?}: {}", process.log_text());
    Ok(took)
}

/// Starts the whole manager over the fleet and the strangers: what it asks, and what it takes.
async fn among_strangers(yard: &Yard, place: &Place, report: &mut Report) -> Result<Crew> {
    let mut repeated =
        Collector::new("fleet: lists or WatchLists of a kind at a restart, at most", "lists", Goal::AtMost(1.0));
    let mut writes = Collector::new("fleet: writes of addons' objects at a restart", "writes", Goal::AtMost(0.0));
    let mut reads = Collector::new("fleet: objects read one by one at a restart", "requests", Goal::AtMost(0.0));
    let mut resident =
        Collector::new("fleet: RSS of the whole manager, 3,000 objects managed of 30,000", "MiB", Goal::AtMost(60.0));
    let mut peak = Collector::new("fleet: highest RSS since its start", "MiB", Goal::None);
    let mut at_rest = Collector::new("fleet: requests for addons in 60 s at rest", "requests", Goal::AtMost(0.0));
    let audit = yard.control_plane.audit_from_now()?;
    let crew = start(yard, place, "*").await?;
    settled(yard).await?;
    tokio::time::sleep(REST).await;
    let asked = Requests::since(&yard.control_plane, audit, Side::Ours).await?;
    let lists = lists(&asked);
    repeated.add(Side::Ours, lists.values().copied().max().unwrap_or(0).into());
    let more: BTreeSet<_> = lists.iter().filter(|(_, number)| **number > 1).map(|(what, _)| what.clone()).collect();
    if !more.is_empty() {
        report.note(format!("Listed more than once at the restart: {more:?}."));
    }
    // The endpoint controllers write for the fleet's Services when they first run.
    let is_endpoint = |event: &Event| event.resource().starts_with("endpoint");
    writes.add(Side::Ours, asked.count(|event| is_object_write(event) && is_fleets(event) && !is_endpoint(event)));
    reads.add(Side::Ours, asked.count(|event| event.verb == "get" && is_fleets(event)));
    report.note(format!("At the restart over unchanged addons the whole manager sent: {}.", asked.summary()));
    let usage = crew.leader().usage()?;
    resident.add(Side::Ours, mebibytes(usage.resident));
    peak.add(Side::Ours, mebibytes(usage.peak_resident));
    let audit = yard.control_plane.audit_from_now()?;
    tokio::time::sleep(MINUTE).await;
    let asked = Requests::since(&yard.control_plane, audit, Side::Ours).await?;
    let own = |event: &Event| is_object_write(event) || ["get", "list"].contains(&&*event.verb) && !is_upkeep(event);
    at_rest.add(Side::Ours, asked.count(own));
    report.note(format!("In a minute of rest over unchanged addons it sent: {}.", asked.summary()));
    report.take("fleet", [repeated, reads, writes, resident, peak, at_rest]);
    Ok(crew)
}

/// Lists and WatchLists by resource and by who asked.
fn lists(asked: &Requests) -> BTreeMap<String, u32> {
    let mut numbers = BTreeMap::new();
    asked.each(|event| {
        let begins = event.verb == "list" || event.request_uri.contains("sendInitialEvents=true");
        let space = event.object_ref.as_ref().map_or("", |about| &about.namespace);
        let who = event.impersonated_user.as_ref().map_or("", |actor| &actor.username);
        // Of one object, or of a page that continues.
        let part = event.request_uri.contains("fieldSelector=") || event.request_uri.contains("continue=");
        if begins && !part {
            *numbers.entry(format!("{} {space} {who}", event.resource())).or_insert(0) += 1;
        }
    });
    numbers
}

/// Is it about an object of the fleet?
fn is_fleets(event: &Event) -> bool {
    let about = event.object_ref.as_ref();
    about.is_some_and(|about| Source::ALL.iter().any(|source| about.namespace == source.namespace()))
}

/// Leases, and the settings of authentication, are read whatever there is to do.
fn is_upkeep(event: &Event) -> bool {
    let resource = event.resource();
    resource.starts_with("leases.") || event.request_uri.contains("extension-apiserver-authentication")
}

/// Harms objects of every source, and changes what the sources say.
async fn drifts(yard: &Yard, place: &Place, report: &mut Report) -> Result<()> {
    let goal = Goal::MedianAndP99AtMost(0.2, 1.0);
    let mut figures = Vec::new();
    for source in [Source::Directory, Source::Object] {
        let mut edited = Collector::new(format!("fleet: {} object edited → repaired", source.title()), "s", goal);
        let mut deleted = Collector::new(format!("fleet: {} object deleted → made again", source.title()), "s", goal);
        let what = format!("fleet: {} changed → applied", if source == Source::Object { "Addon" } else { "file" });
        let mut changed = Collector::new(what, "s", Goal::P99AtMost(1.0));
        let mut watch = yard.http.watch(&maps_of(source)).await?;
        for turn in 0..report.rounds(TURNS) {
            let index = source.addons().start + turn;
            let path = objects::path(source, index);
            yard.http.merge(&format!("{path}?fieldManager=kubectl-edit"), &drift()).await?;
            let begun = Instant::now();
            edited.add(Side::Ours, seconds(begun, repaired(&mut watch, index).await?));
            yard.http.delete(&path).await?;
            let begun = Instant::now();
            deleted.add(Side::Ours, seconds(begun, repaired(&mut watch, index).await?));
            let value = format!("turn-{turn}");
            let begun = match source {
                Source::Object => {
                    place.change(index, &value).await?;
                    Instant::now()
                }
                _ => {
                    place.write(index, &value)?;
                    Instant::now()
                }
            };
            changed.add(Side::Ours, seconds(begun, until(&mut watch, index, &value).await?));
        }
        figures.extend([edited, deleted, changed]);
    }
    let mut edited = Collector::new("fleet: channel object edited → reported", "s", goal);
    let mut deleted = Collector::new("fleet: channel object deleted → reported", "s", goal);
    let mut mirrors = yard.http.watch("/apis/addonmgr.keikoproj.io/v1alpha1/namespaces/kube-system/addons").await?;
    let both = 2 * report.rounds(TURNS);
    for (turn, index) in Source::Channel.addons().take(both).enumerate() {
        let path = objects::path(Source::Channel, index);
        if turn.is_multiple_of(2) {
            yard.http.merge(&format!("{path}?fieldManager=kubectl-edit"), &drift()).await?;
        } else {
            yard.http.delete(&path).await?;
        }
        let begun = Instant::now();
        let package = objects::name(index);
        let told = mirrors.until("the drift is told", |seen| {
            seen.object["spec"]["pkgName"] == *package && !seen.object["status"]["progress"]["drifted"].is_null()
        });
        let took = seconds(begun, told.await?.at);
        if turn.is_multiple_of(2) { edited.add(Side::Ours, took) } else { deleted.add(Side::Ours, took) }
    }
    figures.extend([edited, deleted]);
    report.take("fleet", figures);
    Ok(())
}

fn maps_of(source: Source) -> String {
    format!("/api/v1/namespaces/{}/configmaps", source.namespace())
}

fn drift() -> Value {
    json!({ "data": { "rules": "none" } })
}

fn is_of(seen: &Seen, index: usize) -> bool {
    seen.object["metadata"]["name"] == format!("{}-0", objects::name(index))
}

/// When the addon's first ConfigMap was seen with this value, and unharmed.
async fn until(watch: &mut Watch, index: usize, value: &str) -> Result<Instant> {
    let seen = watch.until("the addon is as its source says", |seen| {
        let data = &seen.object["data"];
        seen.change != Change::Deleted && is_of(seen, index) && data["value"] == value && data["rules"] != "none"
    });
    Ok(seen.await?.at)
}

/// [`until`] it is as at first, after it was seen to be harmed, or gone.
async fn repaired(watch: &mut Watch, index: usize) -> Result<Instant> {
    let harmed = watch.until("the addon's object is harmed", |seen| {
        is_of(seen, index) && (seen.change == Change::Deleted || seen.object["data"]["rules"] == "none")
    });
    harmed.await?;
    until(watch, index, "first").await
}
