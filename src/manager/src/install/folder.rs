//! The folder of a master: the kubeconfig of the replica there, and the folder of its state, readable by its group alone.
//!
//! Of `/etc/kubernetes` a pod gets this folder, and never the file of an administrator beside it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kube::config::{Cluster, Kubeconfig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use super::Change;
use super::authority::Authority;
use crate::serving::x509::subject;

/// Name of the kubeconfig in the folder.
const KUBECONFIG: &str = "quarterdeck.conf";
/// Modes of the folders and of the kubeconfig: owner and group, nobody else.
const FOLDER_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;

/// What a master is to have.
pub(crate) struct Folder {
    /// `/etc/kubernetes/quarterdeck`.
    pub(crate) config: PathBuf,
    /// `/var/lib/quarterdeck`.
    pub(crate) state: PathBuf,
    /// User and group of the process.
    pub(crate) owner: u32,
    /// The user that its certificate names.
    pub(crate) user: String,
    /// Its way to the server.
    pub(crate) cluster: Cluster,
}

impl Folder {
    /// Makes what is missing, and makes anew what is not as it should be; repeating it changes nothing.
    ///
    /// # Errors
    /// When a file cannot be written, or something else is where a folder belongs.
    pub(crate) fn install(&self, authority: &Authority, dry_run: bool) -> anyhow::Result<Vec<Change>> {
        let file = self.config.join(KUBECONFIG);
        let mut changes = vec![folder(&self.config, (None, self.owner), dry_run)?];
        changes.push(self.kubeconfig(&file, authority, dry_run)?);
        changes.push(folder(&self.state, (Some(self.owner), self.owner), dry_run)?);
        Ok(changes)
    }

    /// Removes the kubeconfig, and its folder if nothing else is in it. State stays: it is what a return would need.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub(crate) fn uninstall(&self, dry_run: bool) -> anyhow::Result<Vec<Change>> {
        let file = self.config.join(KUBECONFIG);
        let name = file.display().to_string();
        if !file.try_exists().with_context(|| name.clone())? {
            return Ok(vec![Change::Absent(name)]);
        }
        if !dry_run {
            fs::remove_file(&file).with_context(|| name.clone())?;
            // Fails while something of somebody else is in it.
            drop(fs::remove_dir(&self.config));
        }
        Ok(vec![Change::Deleted(name)])
    }

    fn kubeconfig(&self, file: &Path, authority: &Authority, dry_run: bool) -> anyhow::Result<Change> {
        let name = file.display().to_string();
        let there = file.try_exists().with_context(|| name.clone())?;
        if there && self.is_good(file, authority) && is_as(file, FILE_MODE, (None, self.owner)) {
            return Ok(Change::Unchanged(name));
        }
        if !dry_run {
            let text = self.render(authority)?;
            write(file, &text, self.owner).with_context(|| name.clone())?;
        }
        Ok(if there { Change::Configured(name) } else { Change::Created(name) })
    }

    /// Whether the file leads to the same server as the same user, for a good while yet.
    fn is_good(&self, file: &Path, authority: &Authority) -> bool {
        let Ok(found) = Kubeconfig::read_from(file) else { return false };
        let Some(cluster) = found.clusters.first().and_then(|named| named.cluster.as_ref()) else { return false };
        let cert = found.auth_infos.first().and_then(|named| named.auth_info.as_ref()?.client_certificate_data.clone());
        let Some(cert) = cert.and_then(|data| BASE64_STANDARD.decode(data).ok()) else { return false };
        let Ok(cert) = CertificateDer::from_pem_slice(&cert) else { return false };
        cluster.server == self.cluster.server
            && cluster.certificate_authority_data == self.cluster.certificate_authority_data
            && cluster.tls_server_name == self.cluster.tls_server_name
            && subject(&cert).is_some_and(|subject| subject.common_name == self.user)
            && authority.vouches_for(&cert, SystemTime::now())
    }

    fn render(&self, authority: &Authority) -> anyhow::Result<String> {
        let signed = authority.sign(&self.user, SystemTime::now())?;
        let value = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "quarterdeck",
            "clusters": [{ "name": "local", "cluster": self.cluster }],
            "contexts": [{ "name": "quarterdeck", "context": { "cluster": "local", "user": self.user } }],
            "users": [{ "name": self.user, "user": {
                "client-certificate-data": BASE64_STANDARD.encode(signed.cert),
                "client-key-data": BASE64_STANDARD.encode(signed.key),
            } }],
        });
        Ok(serde_saphyr::to_string(&value)?)
    }
}

/// The cluster of an administrator's kubeconfig, with its authority as data: the file it names may be out of a pod's reach.
///
/// # Errors
/// When the file cannot be read, or names no cluster.
pub(crate) fn cluster(kubeconfig: &Path, server: &str) -> anyhow::Result<Cluster> {
    let name = kubeconfig.display();
    let found = Kubeconfig::read_from(kubeconfig).with_context(|| name.to_string())?;
    let context = found.current_context.as_deref().unwrap_or_default();
    let context = found.contexts.iter().find(|named| named.name == context).and_then(|named| named.context.as_ref());
    let Some(context) = context else { bail!("{name}: it has no current context") };
    let cluster = found.clusters.into_iter().find(|named| named.name == context.cluster);
    let Some(mut cluster) = cluster.and_then(|named| named.cluster) else {
        bail!("{name}: there is no cluster {:?}", context.cluster)
    };
    if let (None, Some(path)) = (&cluster.certificate_authority_data, cluster.certificate_authority.take()) {
        let pem = fs::read(&path).with_context(|| format!("{name}: certificate-authority {path}"))?;
        cluster.certificate_authority_data = Some(BASE64_STANDARD.encode(pem));
    }
    if !server.is_empty() {
        cluster.server = Some(server.to_owned());
    }
    Ok(cluster)
}

/// Makes a folder, or gives it its mode and its user (whoever runs this, if it has no other) and group.
fn folder(path: &Path, owner: (Option<u32>, u32), dry_run: bool) -> anyhow::Result<Change> {
    let name = path.display().to_string();
    let there = path.try_exists().with_context(|| name.clone())?;
    if there && !path.is_dir() {
        bail!("{name}: this is no folder");
    }
    if there && is_as(path, FOLDER_MODE, owner) {
        return Ok(Change::Unchanged(name));
    }
    if !dry_run {
        fs::create_dir_all(path).with_context(|| format!("making {name}"))?;
        chown(path, owner.0, Some(owner.1)).with_context(|| format!("giving {name} to its user"))?;
        fs::set_permissions(path, fs::Permissions::from_mode(FOLDER_MODE)).with_context(|| name.clone())?;
    }
    Ok(if there { Change::Configured(name) } else { Change::Created(name) })
}

fn is_as(path: &Path, mode: u32, (user, group): (Option<u32>, u32)) -> bool {
    fs::metadata(path).is_ok_and(|found| {
        let owned = user.is_none_or(|user| found.uid() == user) && found.gid() == group;
        owned && found.mode() & 0o7777 == mode
    })
}

/// Writes a file that nobody else could ever read, and gives it its name when it is whole.
fn write(path: &Path, text: &str, group: u32) -> std::io::Result<()> {
    let part = path.with_extension("part");
    // Left by one that was killed.
    drop(fs::remove_file(&part));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    chown(&part, None, Some(group))?;
    fs::set_permissions(&part, fs::Permissions::from_mode(FILE_MODE))?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scene: an authority's files, an administrator's kubeconfig, and the folders of a master.
    struct Scene {
        root: tempfile::TempDir,
        group: u32,
    }

    impl Scene {
        fn set() -> Self {
            let root = tempfile::tempdir().expect("a folder");
            let group = fs::metadata(root.path()).expect("it is there").gid();
            Self { root, group }
        }

        fn folder(&self, server: &str) -> Folder {
            Folder {
                config: self.root.path().join("etc/quarterdeck"),
                state: self.root.path().join("var/quarterdeck"),
                owner: self.group,
                user: "deck".to_owned(),
                cluster: Cluster { server: Some(server.to_owned()), ..Cluster::default() },
            }
        }

        fn file(&self) -> PathBuf {
            self.root.path().join("etc/quarterdeck").join(KUBECONFIG)
        }
    }

    fn words(changes: &[Change]) -> Vec<String> {
        let last = |change: &Change| change.to_string().rsplit(' ').next().unwrap_or_default().to_owned();
        changes.iter().map(last).collect()
    }

    #[test]
    fn a_second_run_changes_nothing_and_a_wrong_file_is_made_anew() {
        let (scene, authority) = (Scene::set(), super::super::authority::tests::elliptic());
        let folder = scene.folder("https://127.0.0.1:6443");
        assert_eq!(words(&folder.install(&authority, true).unwrap()), ["created"; 3], "a dry run");
        assert!(!scene.file().exists(), "a dry run");
        assert_eq!(words(&folder.install(&authority, false).unwrap()), ["created"; 3]);
        let first = fs::read_to_string(scene.file()).unwrap();
        assert_eq!(words(&folder.install(&authority, false).unwrap()), ["unchanged"; 3]);
        assert_eq!(fs::read_to_string(scene.file()).unwrap(), first);

        fs::set_permissions(scene.file(), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(words(&folder.install(&authority, false).unwrap())[1], "configured", "everyone could read it");
        assert!(is_as(&scene.file(), 0o640, (None, scene.group)));
        fs::write(scene.file(), "neither YAML: nor: a kubeconfig").unwrap();
        assert_eq!(words(&folder.install(&authority, false).unwrap())[1], "configured", "it could not be read");
        let other = scene.folder("https://127.0.0.1:7443");
        assert_eq!(words(&other.install(&authority, false).unwrap())[1], "configured", "another server");
        let stranger = super::super::authority::tests::elliptic();
        assert_eq!(words(&other.install(&stranger, false).unwrap())[1], "configured", "another authority");
    }

    #[test]
    fn removal_takes_the_kubeconfig_and_leaves_what_others_put_there() {
        let (scene, authority) = (Scene::set(), super::super::authority::tests::elliptic());
        let folder = scene.folder("https://127.0.0.1:6443");
        folder.install(&authority, false).unwrap();
        fs::write(scene.root.path().join("etc/quarterdeck/notes"), "mine").unwrap();
        assert_eq!(words(&folder.uninstall(true).unwrap()), ["deleted"]);
        assert!(scene.file().exists(), "a dry run");
        assert_eq!(words(&folder.uninstall(false).unwrap()), ["deleted"]);
        assert!(scene.root.path().join("etc/quarterdeck/notes").exists());
        assert!(scene.root.path().join("var/quarterdeck").exists(), "state is kept");
        assert_eq!(words(&folder.uninstall(false).unwrap()), ["found"], "not found");
    }

    #[test]
    fn what_is_no_folder_is_named() {
        let (scene, authority) = (Scene::set(), super::super::authority::tests::elliptic());
        fs::write(scene.root.path().join("var"), "a file").unwrap();
        let error = scene.folder("https://127.0.0.1:6443").install(&authority, false).unwrap_err();
        assert!(format!("{error:#}").contains("var/quarterdeck"), "{error:#}");
    }
}
