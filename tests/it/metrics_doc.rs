//! docs/metrics.md names what is served, and the alerts use only what it names.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Service};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use quarterdeck_it::deck::Demo;
use quarterdeck_it::{ControlPlane, Deck, eventually, repository};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "metrics";

/// Type and labels of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
}

/// What the page says; the names of those that need not be there, apart.
fn documented() -> Result<(BTreeMap<String, Family>, BTreeSet<String>)> {
    let text = std::fs::read_to_string(repository().join("docs/metrics.md"))?;
    let (mut families, mut rare) = (BTreeMap::new(), BTreeSet::new());
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, meaning] = cells[..] else { bail!("four cells: {line}") };
        let (name, mark) = name.trim_start_matches('`').split_once('`').context("a name in backticks")?;
        if mark.trim() == "†" {
            rare.insert(name.to_owned());
        }
        let labels = labels.split(", ").filter(|label| *label != "–").map(|label| label.trim_matches('`').to_owned());
        let family = Family { kind: kind.to_owned(), labels: labels.collect() };
        assert!(!meaning.is_empty(), "{line}");
        assert!(families.insert(name.to_owned(), family).is_none(), "{name} stands twice");
    }
    Ok((families, rare))
}

/// Adds what a replica serves.
fn read(text: &str, families: &mut BTreeMap<String, Family>) -> Result<()> {
    let mut kinds = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').context("a type")?;
            kinds.insert(name.to_owned(), kind.to_owned());
        }
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').context("a value")?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
            name.strip_suffix(end).filter(|base| kinds.get(*base).is_some_and(|kind| kind == "histogram"))
        });
        let name = base.unwrap_or(name);
        let kind = kinds.get(name).with_context(|| format!("{name} has no type"))?.clone();
        // Label values of ours hold neither quotes nor commas followed by a name and =".
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|pair| pair.split_once("=\""));
        let labels = labels.map(|(label, _)| label.to_owned()).filter(|label| label != "le");
        let family = families.entry(name.to_owned()).or_insert(Family { kind, labels: BTreeSet::new() });
        family.labels.extend(labels);
    }
    Ok(())
}

/// A little of everything that the controllers do.
pub(crate) async fn work(control_plane: &ControlPlane) -> Result<()> {
    let client = control_plane.admin().await?;
    control_plane.namespace(NAMESPACE).await?;
    let demo = Demo::new(client.clone(), NAMESPACE);
    demo.node("node-a", "a").await?;
    demo.service("web").await?;
    demo.pod("web-0", "web", "node-a", "10.1.0.1").await?;
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let close = Patch::Merge(json!({ "spec": { "trafficDistribution": "PreferSameZone" } }));
    services.patch("web", &PatchParams::default(), &close).await?;
    // A service of somebody's own endpoints, to be mirrored.
    let params = PatchParams::apply("demo").force();
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "own" }, "spec": { "ports": [{ "port": 80 }] } });
    services.patch("own", &params, &Patch::Apply(service)).await?;
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": "own" },
        "subsets": [{ "addresses": [{ "ip": "10.2.0.1" }], "ports": [{ "port": 80 }] }],
    });
    Api::<Endpoints>::namespaced(client.clone(), NAMESPACE).patch("own", &params, &Patch::Apply(endpoints)).await?;
    eventually("slices are written", PATIENCE, || async {
        match (demo.endpoints("web").await?.len(), demo.endpoints("own").await?.len()) {
            (1, 1) => Ok(()),
            other => bail!("{other:?}"),
        }
    })
    .await?;
    // A namespace that goes.
    control_plane.namespace("brig").await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.delete("brig", &DeleteParams::default()).await?;
    eventually("the namespace is gone", PATIENCE, || async {
        match namespaces.get_opt("brig").await? {
            None => Ok(()),
            Some(_) => bail!("it is there"),
        }
    })
    .await
}

const ADDON: &str = "apiVersion: v1
kind: ConfigMap
metadata:
  name: NAME
  namespace: kube-system
  labels: { addonmanager.kubernetes.io/mode: Reconcile }
";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_is_documented() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let addons = control_plane.folder().join("addons");
    std::fs::create_dir_all(&addons)?;
    std::fs::write(addons.join("good.yaml"), ADDON.replace("NAME", "good"))?;
    std::fs::write(addons.join("gone.yaml"), ADDON.replace("NAME", "gone"))?;
    std::fs::write(addons.join("bad.yaml"), "kind: [\n")?;
    let deck =
        Deck::builder(&control_plane).replicas(2).args([format!("--addon-path={}", addons.display())]).start().await?;
    deck.ready(PATIENCE).await?;
    let leader = deck.leader(PATIENCE).await?;
    work(&control_plane).await?;
    // An addon that is applied and leaves again.
    let maps: Api<ConfigMap> = Api::namespaced(control_plane.admin().await?, "kube-system");
    let applied = |name: &'static str, wanted: bool| {
        let maps = maps.clone();
        async move {
            eventually(name, PATIENCE, || async {
                let there = maps.get_opt(name).await?.is_some();
                if there == wanted { Ok(()) } else { bail!("there: {there}") }
            })
            .await
        }
    };
    applied("good", true).await?;
    applied("gone", true).await?;
    std::fs::remove_file(addons.join("gone.yaml"))?;
    applied("gone", false).await?;

    let (documented, rare) = documented()?;
    let missing = eventually("everything documented is served", PATIENCE, || async {
        let mut served = BTreeMap::new();
        for replica in deck.replicas() {
            replica.get("/readyz").await?;
            read(&replica.get("/metrics").await?, &mut served)?;
            read(&replica.get("/metrics/slis").await?, &mut served)?;
        }
        let missing: Vec<_> =
            documented.keys().filter(|name| !served.contains_key(*name) && !rare.contains(*name)).collect();
        if missing.is_empty() { Ok(served) } else { bail!("documented, not served: {missing:?}") }
    })
    .await;
    let served = missing?;
    let mut wrong = Vec::new();
    for (name, family) in &served {
        match documented.get(name) {
            None => wrong.push(format!("{name} is not in docs/metrics.md: {family:?}")),
            Some(said) if said != family => wrong.push(format!("{name} is {family:?}; docs/metrics.md says {said:?}")),
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(deck.replica(leader).metric("quarterdeck_addon_source_problems", &[]).await? >= 1.0);
    Ok(())
}

#[test]
fn what_appears_seldom_exists_all_the_same() -> Result<()> {
    let mut source = String::new();
    for folder in ["src/runtime/src", "src/manager/src", "src/election/src", "src/cloud/src", "controllers"] {
        gather(&repository().join(folder), &mut source)?;
    }
    // The agent is another program, whose own test compares its metrics with the page.
    for name in documented()?.1.into_iter().filter(|name| !name.starts_with("quarterdeck_agent_")) {
        assert!(source.contains(&format!("\"{name}\"")), "nobody counts {name}");
    }
    Ok(())
}

fn gather(folder: &std::path::Path, text: &mut String) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            gather(&path, text)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

#[test]
fn alerts_use_what_is_documented() -> Result<()> {
    let rules = std::fs::read_to_string(repository().join("deploy/prometheus/rules.yaml"))?;
    let (documented, _) = documented()?;
    let mut used = 0;
    for word in rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        let ours = ["quarterdeck_", "workqueue_", "leader_election_", "rest_client_"];
        if !ours.iter().any(|start| word.starts_with(start)) {
            continue;
        }
        used += 1;
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
        assert!(
            documented.contains_key(word) || histogram.is_some_and(|base| documented.contains_key(base)),
            "rules.yaml uses {word}, which is not in docs/metrics.md"
        );
    }
    assert!(used > 10, "{used}");
    Ok(())
}

#[test]
fn reads_the_text_form() -> Result<()> {
    let text = "# TYPE a_seconds histogram\na_seconds_bucket{x=\"1\",le=\"2\"} 1\na_seconds_sum{x=\"1\"} 2\n\
                # TYPE b_count gauge\nb_count 1\n";
    let mut families = BTreeMap::new();
    read(text, &mut families)?;
    let labels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(families.len(), 2);
    assert_eq!(families["a_seconds"], Family { kind: "histogram".to_owned(), labels: labels(&["x"]) });
    assert_eq!(families["b_count"], Family { kind: "gauge".to_owned(), labels: labels(&[]) });
    Ok(())
}
