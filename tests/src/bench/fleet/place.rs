//! Where the fleet's addons come from: a folder of files, a channel's folder, and the server.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use quarterdeck_it::{ControlPlane, deck};
use serde_json::json;

use super::objects::{addon, index, manifest, name};
use super::{INSTALLER, Source};
use crate::api::Http;

const ACCOUNT: &str = "system:serviceaccount:kube-system:quarterdeck-addons";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// The folders of the sources, and the server.
pub(crate) struct Place {
    http: Http,
    files: PathBuf,
    channel: PathBuf,
}

impl Place {
    /// Empty sources; namespaces, accounts and rights are there.
    pub(crate) async fn prepare(control_plane: &ControlPlane, http: &Http) -> Result<Self> {
        let place = Self {
            http: http.clone(),
            files: control_plane.folder().join("fleet/files"),
            channel: control_plane.folder().join("fleet/channel"),
        };
        for folder in [&place.files, &place.channel] {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        put(&place.channel, "index.yaml", &index(0..0).to_string())?;
        for source in Source::ALL {
            control_plane.namespace(source.namespace()).await?;
        }
        control_plane.namespace("others").await?;
        let namespace = Source::Object.namespace();
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        http.create(&accounts, &json!({ "metadata": { "name": INSTALLER } })).await?;
        let role = json!({
            "metadata": { "name": "act-as-installer" },
            "rules": [{
                "apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": [INSTALLER],
                "verbs": ["impersonate"],
            }],
        });
        http.create(&format!("{RBAC}/namespaces/{namespace}/roles"), &role).await?;
        let binding = json!({
            "metadata": { "name": "act-as-installer" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "act-as-installer" },
            "subjects": [{ "kind": "User", "name": deck::USER, "apiGroup": "rbac.authorization.k8s.io" }],
        });
        http.create(&format!("{RBAC}/namespaces/{namespace}/rolebindings"), &binding).await?;
        control_plane.bind(ACCOUNT, "cluster-admin").await?;
        let installer = format!("system:serviceaccount:{namespace}:{INSTALLER}");
        control_plane.bind(&installer, "cluster-admin").await?;
        Ok(place)
    }

    /// Flags of a manager that reads the folders.
    pub(crate) fn flags(&self) -> [String; 2] {
        let index = self.channel.join("index.yaml");
        [format!("--addon-path={}", self.files.display()), format!("--channel={}", index.display())]
    }

    /// Brings every addon of every source, each as it comes in practice.
    pub(crate) async fn bring_all(&self) -> Result<()> {
        for number in Source::Directory.addons() {
            self.write(number, "first")?;
        }
        for number in Source::Channel.addons() {
            put(&self.channel, &format!("{}.yaml", name(number)), &manifest(Source::Channel, number, "first"))?;
        }
        put(&self.channel, "index.yaml", &index(Source::Channel.addons()).to_string())?;
        let path = addons();
        let each = |http: Http, number| {
            let path = path.clone();
            async move { http.create(&path, &addon(number, "first")).await }
        };
        self.http.for_each(Source::Object.addons(), 8, each).await
    }

    /// Writes the file of an addon of the directory.
    pub(crate) fn write(&self, number: usize, value: &str) -> Result<()> {
        put(&self.files, &format!("{}.yaml", name(number)), &manifest(Source::Directory, number, value))
    }

    /// Changes an Addon object's parameter.
    pub(crate) async fn change(&self, number: usize, value: &str) -> Result<()> {
        let patch = json!({ "spec": { "params": { "data": { "value": value } } } });
        self.http.merge(&format!("{}/{}", addons(), name(number)), &patch).await.map(drop)
    }
}

/// Path of the fleet's Addon objects.
fn addons() -> String {
    format!("/apis/addonmgr.keikoproj.io/v1alpha1/namespaces/{}/addons", Source::Object.namespace())
}

/// Writes a file as editors and configuration tools do: beside it, then renamed.
pub(crate) fn put(folder: &Path, name: &str, text: &str) -> Result<()> {
    let part = folder.join(".part");
    std::fs::write(&part, text).with_context(|| part.display().to_string())?;
    std::fs::rename(&part, folder.join(name)).with_context(|| name.to_owned())
}
