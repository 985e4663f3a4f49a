//! SIGKILL of the manager after each of its writes.
//!
//! Many addons go through the same change at once; of the first, one write reaches the server, of the
//! second two, and so on ([`Turnstile`]). Then the manager is killed and started again. Each of them
//! ends as the one that nobody disturbed, and nothing is left that no inventory knows.

pub(super) mod picture;

use std::collections::{BTreeMap, BTreeSet};

use quarterdeck_it::deck::USER;
use quarterdeck_it::{AuditPolicy, Turnstile};

use super::objects::INSTALLER;
use super::*;
use picture::{Cluster, lane_of, word};

/// An addon of many objects that stays, so that no brake holds the removals of the others.
const FILLER: usize = 99;
/// Objects of the filler.
const WEIGHT: usize = 240;

/// A change that all addons go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Install,
    /// One object changes, one is new.
    Upgrade,
    /// One object leaves.
    Prune,
    Delete,
}

const CHANGES: [Change; 4] = [Change::Install, Change::Upgrade, Change::Prune, Change::Delete];

/// What the objects of [`names`] of an addon hold after a change; `None` where there is none.
fn objects(change: Change) -> [Option<&'static str>; 4] {
    match change {
        Change::Install => [Some("one"), Some("one"), None, Some("one")],
        Change::Upgrade => [Some("two"), Some("one"), Some("two"), Some("one")],
        Change::Prune => [Some("two"), None, Some("two"), Some("one")],
        Change::Delete => [None; 4],
    }
}

fn names() -> [&'static str; 4] {
    ["a", "b", "c", "d"]
}

/// Where addons come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Directory,
    Objects,
    Channel,
}

impl Origin {
    /// Namespace of the objects of an addon.
    fn namespace(self, case: usize) -> String {
        if self == Self::Objects { "addons".to_owned() } else { word(case) }
    }

    fn parent(self, case: usize) -> String {
        match self {
            Self::Directory => format!("{}.yaml", word(case)),
            Self::Channel => format!("{0}/{0}", word(case)),
            Self::Objects => word(case),
        }
    }
}

fn config_map(namespace: &str, name: &str, value: &str) -> String {
    map(name, "Reconcile", value).replace("  labels", &format!("  namespace: {namespace}\n  labels"))
}

/// The manifest of an addon after a change; empty when nothing of it is left.
fn manifest(origin: Origin, case: usize, change: Change) -> String {
    let values = names().into_iter().zip(objects(change));
    let documents = values.filter_map(|(name, value)| {
        Some(config_map(&origin.namespace(case), &format!("{}-{name}", word(case)), value?))
    });
    documents.collect::<Vec<_>>().join("---\n")
}

fn filler(namespace: &str) -> String {
    let documents = (0..WEIGHT).map(|index| config_map(namespace, &format!("{}-{index}", word(FILLER)), "v"));
    documents.collect::<Vec<_>>().join("---\n")
}

/// The same as an Addon object, with a step for each object, one that makes what stays the user's, and a
/// delete step that takes that away.
fn addon_object(case: usize, change: Change) -> String {
    let word = word(case);
    let version = CHANGES.iter().position(|one| *one == change).unwrap();
    let (mut steps, mut templates) = (String::new(), String::new());
    let mut step = |name: &str, action: &str, value: &str| {
        steps += &format!("            - - {{name: {name}, template: {name}}}\n");
        templates += &format!(
            r#"          - name: {name}
            resource:
              action: {action}
              manifest: |
                apiVersion: v1
                kind: ConfigMap
                metadata: {{name: {word}-{name}}}
                data: {{k: {value}}}
"#
        );
    };
    for (name, value) in names().into_iter().zip(objects(change)) {
        if let Some(value) = value {
            step(name, "apply", value);
        }
    }
    step("x", "create", "v");
    format!(
        r#"---
apiVersion: addonmgr.keikoproj.io/v1alpha1
kind: Addon
metadata: {{name: {word}, namespace: addons}}
spec:
  pkgName: team/{word}
  pkgVersion: 1.{version}.0
  pkgType: composite
  pkgDescription: ""
  params: {{namespace: addons}}
  lifecycle:
    install:
      template: |
        apiVersion: argoproj.io/v1alpha1
        kind: Workflow
        spec:
          entrypoint: entry
          serviceAccountName: {INSTALLER}
          templates:
          - name: entry
            steps:
{steps}{templates}    delete:
      template: |
        apiVersion: argoproj.io/v1alpha1
        kind: Workflow
        spec:
          entrypoint: entry
          serviceAccountName: {INSTALLER}
          templates:
          - name: entry
            resource:
              action: delete
              manifest: |
                apiVersion: v1
                kind: ConfigMap
                metadata: {{name: {word}-x}}
"#
    )
}

struct Scene {
    world: World,
    turnstile: Turnstile,
    origin: Origin,
    /// The addons; the first is never disturbed, and of number `n` so many writes pass.
    cases: usize,
    channel: tempfile::TempDir,
}

impl Scene {
    async fn start(origin: Origin, cases: usize) -> Self {
        let turnstile = Turnstile::start(lane_of).await.unwrap();
        let channel = tempfile::tempdir().unwrap();
        let policy: AuditPolicy = Turnstile::policy(USER);
        let builder =
            ControlPlane::builder().audit(policy).apiserver_args(turnstile.apiserver_args(channel.path()).unwrap());
        let control_plane = builder.start().await.unwrap();
        if origin != Origin::Objects {
            for case in (0..cases).chain([FILLER]) {
                control_plane.namespace(&word(case)).await.unwrap();
            }
        }
        let index = format!("--channel={}", channel.path().join("index.yaml").display());
        let mut args =
            vec!["--leader-elect=false", "--concurrent-addon-syncs=50", "--kube-api-qps=1000", "--kube-api-burst=1000"];
        if origin == Origin::Channel {
            args.push(&index);
        }
        let world = World::on(control_plane, &args).await;
        let scene = Self { world, turnstile, origin, cases, channel };
        match origin {
            Origin::Objects => scene.world.ready_for_addons().await,
            Origin::Directory => scene.world.write("c99.yaml", &filler("c99")),
            Origin::Channel => scene.offer(&BTreeMap::new()),
        }
        scene
    }

    /// Writes the channel with these addons, and the filler.
    fn offer(&self, manifests: &BTreeMap<usize, (Change, String)>) {
        let put = |name: &str, text: &str| {
            std::fs::write(self.channel.path().join(".new"), text).unwrap();
            std::fs::rename(self.channel.path().join(".new"), self.channel.path().join(name)).unwrap();
        };
        let mut index = "kind: Addons\nmetadata: {name: it}\nspec:\n  addons:\n".to_owned();
        let mut entry = |case: usize, version: usize, text: &str| {
            let word = word(case);
            let file = format!("{word}-{version}.yaml");
            put(&file, text);
            index += &format!(
                "  - {{name: {word}, namespace: {word}, version: 1.{version}.0, selector: {{k8s-addon: {word}}}, manifest: {file}}}\n"
            );
        };
        entry(FILLER, 0, &filler("c99"));
        for (case, (change, text)) in manifests {
            entry(*case, CHANGES.iter().position(|one| one == change).unwrap(), text);
        }
        put("index.yaml", &index);
    }

    /// Does to all addons at their source what the change asks for.
    async fn change(&self, change: Change) {
        let (world, cases) = (&self.world, 0..self.cases);
        match (self.origin, change) {
            (Origin::Directory, Change::Delete) => cases.for_each(|case| world.remove(&format!("{}.yaml", word(case)))),
            (Origin::Directory, _) => cases.for_each(|case| {
                world.write(&format!("{}.yaml", word(case)), &manifest(self.origin, case, change));
            }),
            (Origin::Channel, Change::Delete) => self.offer(&BTreeMap::new()),
            (Origin::Channel, _) => {
                self.offer(&cases.map(|case| (case, (change, manifest(self.origin, case, change)))).collect());
            }
            (Origin::Objects, Change::Delete) => {
                let names: Vec<String> = cases.map(word).collect();
                let mut args = vec!["-n", "addons", "delete", "addon", "--wait=false"];
                args.extend(names.iter().map(String::as_str));
                world.kubectl(&args).await;
            }
            (Origin::Objects, _) => {
                world.apply_text(&cases.map(|case| addon_object(case, change)).collect::<String>()).await;
            }
        }
    }

    /// Whether an addon is through with a change, by what stands in the cluster.
    fn is_through(&self, cluster: &Cluster, case: usize, change: Change) -> Result<()> {
        let namespace = self.origin.namespace(case);
        for (name, value) in names().into_iter().zip(objects(change)) {
            let live = cluster.config_map(&namespace, &format!("{}-{name}", word(case)));
            let live = live.map(|object| object["data"]["k"].as_str().unwrap_or_default());
            if live != value {
                bail!("{case}: {name} is {live:?}, not {value:?}");
            }
        }
        let parent = cluster.parent(self.origin == Origin::Objects, &self.origin.parent(case));
        let mirror = cluster.addon(&word(case));
        match (parent, change) {
            (None, Change::Delete) if mirror.is_none() => Ok(()),
            (Some(parent), Change::Install | Change::Upgrade | Change::Prune) => {
                let state =
                    if self.origin == Origin::Objects { &parent["status"]["health"] } else { &parent["data"]["state"] };
                let Some(mirror) = mirror else { bail!("{case}: no Addon shows it") };
                let status = &mirror["status"];
                let installed = status["lifecycle"]["installed"] == "Succeeded" && status["health"] == "Ready";
                let is_ready = state.as_str().is_some_and(|state| state.eq_ignore_ascii_case("ready"));
                if is_ready && installed { Ok(()) } else { bail!("{case}: {state}, {status}") }
            }
            (parent, _) => bail!("{case}: parent {parent:?}, mirror {mirror:?}"),
        }
    }

    async fn cluster(&self) -> Result<Cluster> {
        Cluster::read(&self.world).await
    }

    /// Puts all addons through a change, kills the manager in the midst of all but the first, and
    /// proves that they end alike.
    async fn go_through(&self, change: Change) {
        let (world, turnstile) = (&self.world, &self.turnstile);
        turnstile.limit((1..self.cases).map(|case| (case, case)).collect());
        self.change(change).await;
        // Each stands at the turnstile, or is through, and so is the one that nobody disturbs.
        let what = format!("{change:?}: all but one stand still");
        let through = eventually(&what, LONG, async || {
            let standing = turnstile.standing();
            let cluster = self.cluster().await?;
            let mut through = BTreeSet::new();
            for case in (0..self.cases).filter(|case| !standing.contains(case)) {
                self.is_through(&cluster, case, change)?;
                through.insert(case);
            }
            Ok(through)
        });
        let through = through.await.with_context(|| world.log()).unwrap();
        assert!(through.contains(&0), "{through:?}");
        let writes = turnstile.passed(0);
        assert!(
            through.len() >= 2 && through.len() < self.cases,
            "{change:?}: {} cases do not reach behind its last write; undisturbed it takes {}: {writes:#?}",
            self.cases,
            writes.len(),
        );
        for case in (1..self.cases).filter(|case| !through.contains(case)) {
            assert_eq!(turnstile.passed(case).len(), case, "{change:?}: so many writes reached the server");
        }
        world.deck.replica(0).process().kill().await.unwrap();
        turnstile.open();
        world.deck.replica(0).restart().unwrap();
        let what = format!("{change:?}: all end alike");
        let ended = eventually(&what, LONG, async || {
            let cluster = self.cluster().await?;
            let undisturbed = cluster.picture(0);
            for case in 0..self.cases {
                self.is_through(&cluster, case, change)?;
                let picture = cluster.picture(case);
                if picture != undisturbed {
                    let differences = picture::differences(&undisturbed, &picture);
                    bail!("case {case}, killed after {:?}:\n{differences}", turnstile.passed(case));
                }
            }
            let leaks = cluster.leaks();
            if leaks.is_empty() { Ok(()) } else { bail!("nobody knows of {leaks:#?}") }
        });
        ended.await.with_context(|| world.log()).unwrap();
        // What a channel said last is no addon's.
        let mut strays = turnstile.strays();
        strays.retain(|path| !path.contains("/namespaces/quarterdeck-replicas/secrets"));
        assert_eq!(strays, [""; 0], "every write names its addon");
    }

    async fn go_through_all(&self) {
        if self.origin != Origin::Objects {
            let filled = |cluster: &Cluster| cluster.named(FILLER) > WEIGHT;
            eventually("the filler is there", LONG, async || {
                if filled(&self.cluster().await?) { Ok(()) } else { bail!("not yet") }
            })
            .await
            .with_context(|| self.world.log())
            .unwrap();
        }
        for change in CHANGES {
            self.go_through(change).await;
        }
        let cluster = self.cluster().await.unwrap();
        for case in 0..self.cases {
            assert_eq!(
                cluster.named(case),
                usize::from(self.origin != Origin::Objects),
                "its namespace: {:#?}",
                cluster.picture(case)
            );
        }
    }
}

#[tokio::test]
async fn killed_after_each_write_of_a_directorys_addon() {
    Scene::start(Origin::Directory, 16).await.go_through_all().await;
}

#[tokio::test]
async fn killed_after_each_write_of_an_addon_object() {
    Scene::start(Origin::Objects, 20).await.go_through_all().await;
}

#[tokio::test]
async fn killed_after_each_write_of_a_channels_addon() {
    Scene::start(Origin::Channel, 16).await.go_through_all().await;
}
