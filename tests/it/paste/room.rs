//! A place where the commands of a page may be pasted as they stand, as root of a master: their own view of `/etc`, `/opt`, `/var/lib`
//! and `/usr/local`, and a copy of the folders of this project that they change. What they write there is gone afterwards.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quarterdeck_it::deck::{program, program_named};
use quarterdeck_it::{ControlPlane, Credentials, Launch, Node, Process, eventually, repository, skip};
use tokio::process::Command;

use super::pasted_with;

/// How long a whole page may take.
const PAGE: Duration = Duration::from_secs(240);
/// Where an administrator's kubeconfig is on a master.
pub(super) const ADMIN: &str = "/etc/kubernetes/admin.conf";

/// Mounts for a shell; `$1` is the room's folder. Written to it: `ready`, when all is there.
const FURNISH: &str = r#"set -eu
for place in etc opt var/lib usr/local; do
  mkdir -p "$1/$place" "$1/work/$place"
  mount -t overlay overlay -o "lowerdir=/$place,upperdir=$1/$place,workdir=$1/work/$place" "/$place"
done
mkdir -p /etc/kubernetes
mount --bind "$1/kubernetes" /etc/kubernetes
touch "$1/ready"
exec sleep infinity"#;

/// The same where a node lives already, which has its own folders below `/var/lib`; `$2` is where its kubelet looks for manifests.
const FURNISH_NODE: &str = r#"set -eu
mkdir -p "$1/etc" "$1/work/etc" "$1/state"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work/etc" /etc
mkdir -p /etc/kubernetes
mount --bind "$1/kubernetes" /etc/kubernetes
mount --bind "$1/state" /var/lib/quarterdeck
rmdir "$1/kubernetes/manifests"
ln -s "$2" "$1/kubernetes/manifests""#;

/// What a node's room needs of the machine to be mounted on.
const STATE: &str = "/var/lib/quarterdeck";

/// The place.
pub(super) struct Room {
    folder: tempfile::TempDir,
    /// Has the room's view; the room is gone when it is.
    inside: i32,
    keeper: Option<Process>,
    /// This machine had no such folder.
    made: Option<&'static str>,
    kubeconfig: PathBuf,
    /// What stands in pages for what each machine has its own of.
    fillings: Vec<(String, String)>,
}

impl Room {
    /// Whether this machine has what a room takes.
    pub(super) fn is_left_out() -> bool {
        let left_out = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() != 0);
        if left_out {
            skip("pages are pasted as root, as on a master");
        }
        left_out
    }

    /// A room of a master of this cluster, with the programs that pages name.
    pub(super) async fn open(control_plane: &ControlPlane) -> Result<Self> {
        let mut room = Self::equip(control_plane, control_plane.apiserver(0).url())?;
        let keeper = Launch::new("room", "unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", FURNISH, "room"])
            .arg(room.folder.path().display().to_string())
            .log(room.path("room.log"))
            .spawn()?;
        eventually("the room is furnished", Duration::from_secs(60), || async {
            ensure!(room.path("ready").exists(), "{}", keeper.log_text());
            Ok(())
        })
        .await?;
        room.inside = keeper.pid();
        room.keeper = Some(keeper);
        Ok(room)
    }

    /// A room on the real node beside this control plane, whose kubelet runs what stands among the manifests.
    pub(super) async fn open_on_node(control_plane: &ControlPlane) -> Result<Self> {
        let node = control_plane.node();
        let url = format!("https://{}:{}", Node::HOST_ADDRESS, control_plane.apiserver(0).address().port());
        let mut room = Self::equip(control_plane, &url)?;
        room.inside = node.first_process().context("the node has no process")?;
        room.made = std::fs::create_dir(STATE).is_ok().then_some(STATE);
        let output = Command::new("nsenter")
            .args(room.enter())
            .args(["sh", "-c", FURNISH_NODE, "room"])
            .args([room.folder.path(), &node.manifests()])
            .output()
            .await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(room)
    }

    /// Everything of a room but the view; `url` is where the master's own server is.
    fn equip(control_plane: &ControlPlane, url: &str) -> Result<Self> {
        // Not below the target folder: that lies in what some of the places are made of.
        let folder = tempfile::Builder::new().prefix("quarterdeck-room-").tempdir()?;
        let at = |name: &str| folder.path().join(name);
        for name in ["bin", "kubernetes/manifests", "kubernetes/pki", "project"] {
            std::fs::create_dir_all(at(name))?;
        }
        // Services run as other users, who have to get in.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let kubeconfig = at("kubernetes/admin.conf");
        std::fs::copy(control_plane.admin_kubeconfig()?, &kubeconfig)?;
        let pki = control_plane.folder().join("pki");
        for (from, to) in [
            ("client-ca.crt", "ca.crt"),
            ("client-ca.key", "ca.key"),
            ("ca.crt", "server-ca.crt"),
            ("sa.key", "sa.key"),
        ] {
            std::fs::copy(pki.join(from), at("kubernetes/pki").join(to)).with_context(|| from.to_owned())?;
        }
        let manager = Credentials::user("system:kube-controller-manager", &[]);
        let manager = control_plane.kubeconfig_at(control_plane.apiserver(0).url(), &manager)?;
        std::fs::copy(manager, at("kubernetes/controller-manager.conf"))?;
        for name in ["deploy", "docs"] {
            copy(&repository().join(name), &at("project").join(name))?;
        }
        let kubectl = control_plane.program("kubectl");
        for (name, path) in
            [("kubectl", kubectl), ("quarterdeck", program()?), ("addonctl", program_named("addonctl")?)]
        {
            symlink(path.canonicalize()?, at("bin").join(name))?;
        }
        let fillings = vec![("https://127.0.0.1:6443".to_owned(), url.to_owned())];
        Ok(Self { folder, inside: 0, keeper: None, made: None, kubeconfig, fillings })
    }

    /// A file of the room's own folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Has pages find a further program.
    pub(super) fn bring(&self, name: &str, program: &Path) -> Result<()> {
        symlink(program, self.path("bin").join(name)).with_context(|| name.to_owned())
    }

    /// Has pages find a script under this name.
    pub(super) fn bring_script(&self, name: &str, text: &str) -> Result<()> {
        let file = self.path("bin").join(name);
        std::fs::write(&file, text)?;
        Ok(std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?)
    }

    /// Has `value` stand for `what` in everything that is pasted.
    pub(super) fn fill(&mut self, what: &str, value: &str) {
        self.fillings.push((what.to_owned(), value.to_owned()));
    }

    /// The command line that runs a program in the room.
    fn enter(&self) -> Vec<String> {
        let target = format!("--target={}", self.inside);
        ["--mount".to_owned(), target, "--".to_owned()].into()
    }

    fn search_path(&self) -> Result<String> {
        Ok(format!("{}:{}", self.path("bin").display(), std::env::var("PATH")?))
    }

    /// A program that is to be started in the room, and ends with it.
    pub(super) fn launch(&self, name: &str, command: &[String]) -> Result<Launch> {
        let launch = Launch::new(name, "nsenter").args(self.enter()).args(command);
        Ok(launch.env("PATH", self.search_path()?).env("KUBECONFIG", ADMIN).log(self.path(&format!("{name}.log"))))
    }

    /// Pastes a page, with those blocks that need no more than is at hand.
    pub(super) async fn paste(&self, page: &str, at_hand: &[&str]) -> Result<()> {
        self.paste_part(page, at_hand, str::to_owned).await
    }

    /// [`Room::paste`] with what `part` takes of the page.
    pub(super) async fn paste_part(&self, page: &str, at_hand: &[&str], part: impl Fn(&str) -> String) -> Result<()> {
        let text = std::fs::read_to_string(repository().join(page)).with_context(|| page.to_owned())?;
        let script = pasted_with(&part(&text), at_hand);
        ensure!(!script.is_empty(), "{page} has no commands");
        self.run(&script).await.with_context(|| page.to_owned()).map(drop)
    }

    /// Runs a script in the room; what it printed.
    pub(super) async fn run(&self, script: &str) -> Result<String> {
        let script = self.fillings.iter().fold(script.to_owned(), |text, (from, to)| text.replace(from, to));
        let mut bash = Command::new("nsenter");
        bash.args(self.enter()).args(["bash", "-euo", "pipefail", "-x", "-c"]);
        bash.arg(format!("cd {}\n{script}", self.path("project").display()));
        bash.env("PATH", self.search_path()?).env("KUBECONFIG", ADMIN).env("HOME", self.path("project"));
        bash.env("CARGO_TARGET_DIR", "target").kill_on_drop(true).stdin(std::process::Stdio::null());
        // Into a file: what was said so far is worth most when it does not end.
        let log = self.path("pasted.log");
        let file = std::fs::File::create(&log)?;
        bash.stdout(file.try_clone()?).stderr(file);
        let ended = tokio::time::timeout(PAGE, bash.status()).await;
        let said = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
        let logs = || self.logs();
        let status = ended.with_context(|| format!("no end within {PAGE:?}:\n{said}{}", logs()))??;
        ensure!(status.success(), "{status}:\n{said}{}", logs());
        Ok(said)
    }

    /// The ends of the logs of what was started here, for messages.
    fn logs(&self) -> String {
        let entries = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        let logs = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "log") && !path.ends_with("pasted.log"));
        logs.map(|path| {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            format!("\n{}:\n{}", path.display(), lines[lines.len().saturating_sub(30)..].join("\n"))
        })
        .collect()
    }

    /// An administrator's kubeconfig.
    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        drop(self.keeper.take());
        if let Some(folder) = self.made {
            // Nobody wrote into it: it was covered.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (path, target) = {
            let entry = entry?;
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            std::fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
