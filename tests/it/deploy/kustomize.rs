//! The overlays for kustomize: what they bring is what `quarterdeck install` would.

use std::collections::BTreeMap;

use anyhow::Result;
use quarterdeck_it::{Binaries, repository};
use serde_json::{Value, json};
use tokio::process::Command;

use super::rendered::{comparable, installed, objects};

/// What kubectl makes of an overlay; no server is asked.
async fn overlay(folder: &str) -> Result<Vec<Value>> {
    let kubectl = Binaries::ensure(&[]).await?.path("kubectl");
    let output = Command::new(kubectl).args(["kustomize", folder]).current_dir(repository()).output().await?;
    anyhow::ensure!(output.status.success(), "{folder}: {}", String::from_utf8_lossy(&output.stderr));
    objects(&String::from_utf8(output.stdout)?)
}

fn names(all: &BTreeMap<String, Value>) -> Vec<&str> {
    all.keys().map(String::as_str).collect()
}

#[tokio::test]
async fn the_overlay_brings_what_install_brings_for_its_account() -> Result<()> {
    let account = json!({ "kind": "ServiceAccount", "namespace": "kube-system", "name": "quarterdeck" });
    let user = "system:serviceaccount:kube-system:quarterdeck";
    let wanted = installed(&[]).await?;
    let mut found = comparable(overlay("deploy/kustomize").await?);
    let own = [
        "Deployment kube-system/quarterdeck",
        "PodDisruptionBudget kube-system/quarterdeck",
        "Service kube-system/quarterdeck-metrics",
        "ServiceAccount kube-system/quarterdeck",
    ];
    for name in own {
        assert!(found.remove(name).is_some(), "{name} in {:?}", names(&found));
    }
    assert_eq!(names(&found), names(&wanted));
    for (name, object) in &mut found {
        // An account is a user of that name: both ways to say it are the same.
        if object["subjects"][0] == account {
            object["subjects"][0] = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user });
        }
        if let Some(subject) = object.pointer_mut("/spec/rules/0/subjects/0")
            && subject["serviceAccount"]["name"] == "quarterdeck"
        {
            *subject = json!({ "kind": "User", "user": { "name": user } });
        }
        assert_eq!(object, &wanted[name], "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn the_component_adds_the_scraper_and_nothing_else() -> Result<()> {
    let scraper = comparable(overlay("deploy/prometheus").await?);
    let folder = tempfile::Builder::new().prefix("overlay-").tempdir_in(repository().join("deploy"))?;
    let text = "resources: [../kustomize]\ncomponents: [../kustomize/monitoring]\n";
    std::fs::write(folder.path().join("kustomization.yaml"), text)?;
    let plain = comparable(overlay("deploy/kustomize").await?);
    let mut all = comparable(overlay(&folder.path().display().to_string()).await?);
    all.retain(|name, _| !plain.contains_key(name));
    assert_eq!(all, scraper);
    Ok(())
}
