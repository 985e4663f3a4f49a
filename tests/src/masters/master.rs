//! One master: its folders, its network, its containers.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::Kubeconfig;

use super::asking;
use crate::deck::Status;
use crate::netns::Machine;
use crate::pki;

/// Port that quarterdeck serves on.
const PORT: u16 = 10267;

/// One master, which may be dead or cut off.
pub struct Master {
    number: usize,
    folder: PathBuf,
}

impl Master {
    pub(super) fn new(site: &Path, number: usize) -> Self {
        Self { number, folder: site.join(number.to_string()) }
    }

    /// Its number, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The name of its node.
    pub fn name(&self) -> String {
        format!("master-{}", self.number)
    }

    /// Its address on the bridge.
    pub fn address(&self) -> String {
        format!("172.29.0.1{}", self.number)
    }

    /// Folder of its state and logs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// An administrator's kubeconfig for its kube-apiserver.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.conf")
    }

    /// Audit log of its kube-apiserver.
    pub fn audit_log(&self) -> PathBuf {
        self.folder.join("audit.log")
    }

    /// What is `/etc/kubernetes/quarterdeck` there.
    pub fn config_dir(&self) -> PathBuf {
        self.folder.join("quarterdeck")
    }

    /// What is `/var/lib/quarterdeck` there.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Puts a file into its addon directory, in one step; removes it without a text.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn addon(&self, name: &str, text: Option<&str>) -> Result<()> {
        put(&self.folder.join("addons").join(name), text)
    }

    /// Puts a manifest among its static pods, in one step; removes it without a text.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn static_pod(&self, name: &str, text: Option<&str>) -> Result<()> {
        put(&self.folder.join("manifests").join(format!("{name}.yaml")), text)
    }

    /// Its first process, as this machine numbers it.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pid(&self) -> Result<i32> {
        let site = self.folder.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
        let told = format!("/init\0{site}\0{}\0", self.number);
        let first = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            // The programs around it were told the same; only this one is the first of its own.
            String::from_utf8_lossy(&line).ends_with(&told) && ids.split_whitespace().last() == Some("1")
        };
        processes()?.into_iter().find(first).with_context(|| format!("master {} does not run", self.number))
    }

    /// Its network, to send requests from.
    ///
    /// # Errors
    /// When it is not running.
    pub fn network(&self) -> Result<Machine> {
        Machine::attach(&self.name(), self.pid()?)
    }

    /// Socket of its containerd, as this machine sees it.
    pub(super) fn containerd(&self) -> Result<String> {
        Ok(format!("/proc/{}/root/run/containerd/containerd.sock", self.pid()?))
    }

    /// Puts a file into quarterdeck's folder there, in one step, as `quarterdeck install` would: readable by its group.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn config(&self, name: &str, text: &str) -> Result<()> {
        let (file, part) = (self.config_dir().join(name), self.config_dir().join(format!(".{name}")));
        pki::write(&part, text)?;
        let folder = std::fs::metadata(self.config_dir())?;
        std::os::unix::fs::chown(&part, None, Some(folder.gid()))?;
        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o640))?;
        std::fs::rename(&part, &file).with_context(|| file.display().to_string())
    }

    /// Runs a command inside: with its files, its network, its processes. Returns its output.
    ///
    /// # Errors
    /// With what it said, when it does not end well.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        let target = format!("--target={}", self.pid()?);
        let output = Command::new("nsenter").args([&target, "--all", "--"]).args(command).output()?;
        if !output.status.success() {
            bail!("{}: {command:?}: {}", self.name(), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The body of a path of its quarterdeck, asked as an administrator.
    ///
    /// # Errors
    /// When it does not answer, or not with success.
    pub async fn get(&self, path: &str) -> Result<String> {
        self.ask(path, None).await
    }

    /// The same if it serves with just this certificate, which has this name.
    ///
    /// # Errors
    /// When it does not answer, serves with another one, or does not answer with success.
    pub async fn get_trusting(&self, path: &str, certificate: &str, name: &str) -> Result<String> {
        self.ask(path, Some((certificate, name))).await
    }

    async fn ask(&self, path: &str, trusted: Option<(&str, &str)>) -> Result<String> {
        let mut kubeconfig = Kubeconfig::read_from(self.kubeconfig())?;
        let url = format!("https://{}:{PORT}", self.address());
        for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            cluster.server = Some(url.clone());
            cluster.certificate_authority = None;
            // Unless told otherwise it serves with a certificate that it made itself.
            cluster.insecure_skip_tls_verify = Some(trusted.is_none());
            cluster.certificate_authority_data = trusted.map(|(certificate, _)| STANDARD.encode(certificate));
            cluster.tls_server_name = trusted.map(|(_, name)| name.to_owned());
        }
        let request =
            http::Request::get(path).header(http::header::ACCEPT, "application/json, text/plain").body(Vec::new())?;
        let client = asking(kubeconfig).await?;
        client.request_text(request).await.with_context(|| format!("GET {url}{path}"))
    }

    /// What its quarterdeck says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self) -> Result<Status> {
        let page: serde_json::Value = serde_json::from_str(&self.get("/statusz").await?)?;
        Ok(Status(page["status"].clone()))
    }

    /// Processes of its quarterdeck, as this machine numbers them.
    ///
    /// # Errors
    /// When `/proc` cannot be read, or it is not running.
    pub fn quarterdeck_pids(&self) -> Result<Vec<i32>> {
        let own = self.pid()?;
        let network = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let here = network(own).context("its first process has ended")?;
        let mut found = Vec::new();
        for pid in processes()? {
            let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            // Static pods are on the master's network.
            if program.ends_with("usr/bin/quarterdeck") && network(pid).as_ref() == Some(&here) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    /// The ends of its logs, for messages.
    pub fn logs(&self) -> String {
        let mut text = format!("logs of master {}:", self.number);
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|end| end == "log") && !file.ends_with("audit.log"));
        files.sort();
        for file in files {
            let log = std::fs::read(&file).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(8)..].join("\n  ");
            text += &format!("\n{} ends with:\n  {last}", file.display());
        }
        text
    }
}

/// Every process of this machine.
fn processes() -> Result<Vec<i32>> {
    let entries = std::fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Writes a file beside its place and gives it its name when it is whole.
fn put(file: &Path, text: Option<&str>) -> Result<()> {
    let Some(text) = text else {
        return std::fs::remove_file(file).with_context(|| file.display().to_string());
    };
    let Some((folder, name)) = file.parent().zip(file.file_name()) else { bail!("{}: no file", file.display()) };
    // Names that begin with a dot are nobody's.
    let part = folder.join(format!(".{}", name.to_string_lossy()));
    pki::write(&part, text)?;
    std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o644))?;
    std::fs::rename(&part, file).with_context(|| file.display().to_string())
}
