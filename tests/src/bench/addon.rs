//! Addons of a directory: drift until it is repaired, a changed file until it is applied.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use quarterdeck_it::{deck, eventually};
use serde_json::{Value, json};

use crate::api::{Change, Watch, seconds};
use crate::contestant::{Crew, LONG, Side};
use crate::report::{Collector, Goal, Report};
use crate::yard::Yard;

const FILES: usize = 20;
const TURNS: usize = 20;
const ACCOUNT: &str = "system:serviceaccount:kube-system:quarterdeck-addons";
const OBJECTS: &str = "/api/v1/namespaces/kube-system/configmaps";

/// Measures repairs and applies; there is nothing to run beside it.
pub(crate) async fn run(yard: &mut Yard, report: &mut Report) -> Result<()> {
    if !built_in().await? {
        report.note("This build has no addon-controller: addons were not measured.");
        return Ok(());
    }
    let goal = Goal::P99AtMost(1.0);
    let mut label = Collector::new("addon: label changed → repaired", "s", goal);
    let mut object = Collector::new("addon: object deleted → made again", "s", goal);
    let mut file = Collector::new("addon: file changed → applied", "s", goal);
    yard.control_plane.bind(ACCOUNT, "cluster-admin").await?;
    let folder = yard.control_plane.folder().join("addons");
    std::fs::create_dir_all(&folder)?;
    for index in 0..FILES {
        write(&folder, index, "first")?;
    }
    let flag = format!("--addon-path={}", folder.display());
    let crew =
        Crew::start(&yard.control_plane, &yard.http, Side::Ours, &["addon-controller"], 1, &[flag.as_str()]).await?;
    let selected = format!("{OBJECTS}?labelSelector=bench");
    eventually("every addon is applied", LONG, async || {
        let list = yard.http.get(&selected).await?;
        let right = |index: &usize| {
            list["items"].as_array().is_some_and(|all| all.iter().any(|one| is_right(one, *index, "first")))
        };
        let applied = (0..FILES).filter(right).count();
        ensure!(applied == FILES, "{applied} are");
        Ok(())
    })
    .await?;
    let mut watch = yard.http.watch(&selected).await?;
    for turn in 0..report.rounds(TURNS) {
        let index = turn % FILES;
        let path = format!("{OBJECTS}/{}", name(index));

        let drift = json!({ "metadata": { "labels": { "bench": "drifted" } } });
        yard.http.merge(&format!("{path}?fieldManager=kubectl-label"), &drift).await?;
        let begun = Instant::now();
        label.add(Side::Ours, seconds(begun, repaired(&mut watch, index, "first").await?));

        yard.http.delete(&path).await?;
        let begun = Instant::now();
        object.add(Side::Ours, seconds(begun, repaired(&mut watch, index, "first").await?));

        let value = format!("turn-{turn}");
        write(&folder, index, &value)?;
        let begun = Instant::now();
        file.add(Side::Ours, seconds(begun, until(&mut watch, index, &value).await?));
        write(&folder, index, "first")?;
        until(&mut watch, index, "first").await?;
    }
    crew.stop().await?;
    report.note(
        "kube-addon-manager was not run: its loop applies every 60 s, so that each of these takes it up to 60 s, 30 s on \
         average.",
    );
    report.take("addon", [label, object, file]);
    Ok(())
}

/// Does the program know the controller?
async fn built_in() -> Result<bool> {
    let program = deck::program()?;
    let help = tokio::process::Command::new(&program).arg("--help").output().await.context("running quarterdeck")?;
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    Ok(text.lines().any(|line| line.contains("All controllers:") && line.contains("addon-controller")))
}

fn name(index: usize) -> String {
    format!("addon-{index:02}")
}

/// Writes a file of one addon as editors and configuration tools do: beside it, then renamed.
fn write(folder: &Path, index: usize, value: &str) -> Result<()> {
    let manifest = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name(index),
            "namespace": "kube-system",
            "labels": { "addonmanager.kubernetes.io/mode": "Reconcile", "bench": "right" },
        },
        "data": { "value": value },
    });
    let part = folder.join(format!(".{}.part", name(index)));
    std::fs::write(&part, manifest.to_string())?;
    std::fs::rename(&part, folder.join(format!("{}.json", name(index))))?;
    Ok(())
}

fn is_right(object: &Value, index: usize, value: &str) -> bool {
    object["metadata"]["name"] == name(index)
        && object["metadata"]["labels"]["bench"] == "right"
        && object["data"]["value"] == value
}

/// When the object was first seen with the label and value of the file.
async fn until(watch: &mut Watch, index: usize, value: &str) -> Result<Instant> {
    let seen = watch.until("the addon is as its file says", |seen| {
        seen.change != Change::Deleted && is_right(&seen.object, index, value)
    });
    Ok(seen.await?.at)
}

/// [`until`], after the object was seen to be wrong, or gone.
async fn repaired(watch: &mut Watch, index: usize, value: &str) -> Result<Instant> {
    let harmed = watch.until("the addon's object is harmed", |seen| {
        let object = &seen.object["metadata"];
        object["name"] == name(index) && (seen.change == Change::Deleted || object["labels"]["bench"] != "right")
    });
    harmed.await?;
    until(watch, index, value).await
}
