//! A real systemd in a room: Debian's, unpacked and not installed, in namespaces of its own, with no units but those that a page brings.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use quarterdeck_it::{Process, eventually, repository, skip};
use tokio::process::Command;

use super::room::Room;

/// Packages of its programs, and of libraries that not every machine has.
const PACKAGES: [&str; 6] = ["systemd", "libsystemd-shared", "libseccomp2", "libkmod2", "libapparmor1", "libip4tc2"];
/// Where each process is in a tree that systemd keeps its own account in (cgroups of version 1).
const TREE: &str = "/sys/fs/cgroup/systemd";

/// What a unit waits for by default; of this machine's own units none is started.
const TARGETS: [&str; 6] = ["sysinit", "basic", "network-online", "multi-user", "shutdown", "room"];

/// Has room for units, before any page brings one.
const CLEAR: &str =
    "mkdir -p /etc/systemd && mount -t tmpfs tmpfs /etc/systemd && mkdir -p /etc/systemd/system /etc/systemd/targets";

/// Becomes the first process of a new set of namespaces; `$1` is the cgroup, `$2` the program.
const BOOT: &str = r#"set -eu
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
mkdir /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd systemd /sys/fs/cgroup/systemd
# It would set up groups in every other hierarchy of the machine.
printf '#subsys_name\thierarchy\tnum_cgroups\tenabled\n' > /run/cgroups
mount --bind /run/cgroups /proc/cgroups
exec env -i container=room PATH=/usr/sbin:/usr/bin:/sbin:/bin LD_LIBRARY_PATH="$LD_LIBRARY_PATH" \
  SYSTEMD_UNIT_PATH=/etc/systemd/system:/etc/systemd/targets "$1" --system --unit=room.target --log-target=console --show-status=no --crash-reboot=no"#;

/// The program and its libraries.
struct Parts {
    folders: Vec<String>,
}

impl Parts {
    async fn gather() -> Result<Self> {
        let mut folders = Vec::new();
        for package in PACKAGES {
            let script = repository().join("hack/lib/debian.sh");
            let output = Command::new(&script).arg(package).output().await?;
            ensure!(output.status.success(), "{package}: {}", String::from_utf8_lossy(&output.stderr));
            folders.push(String::from_utf8(output.stdout)?.trim().to_owned());
        }
        Ok(Self { folders })
    }

    fn program(&self, name: &str) -> Result<String> {
        let places = ["bin", "usr/bin", "lib/systemd"];
        let mut programs =
            self.folders.iter().flat_map(|folder| places.map(|place| format!("{folder}/{place}/{name}")));
        programs.find(|path| Path::new(path).is_file()).with_context(|| format!("the package systemd has no {name}"))
    }

    fn libraries(&self) -> String {
        let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
        let places =
            self.folders.iter().flat_map(|folder| ["lib", "usr/lib"].map(|place| format!("{folder}/{place}/{triple}")));
        let places = places.flat_map(|place| [format!("{place}/systemd"), place]);
        places.filter(|place| Path::new(place).is_dir()).collect::<Vec<_>>().join(":")
    }

    /// The units of the package, for looking at only.
    fn units(&self) -> String {
        format!("{}/lib/systemd/system", self.folders[0])
    }
}

/// A running systemd. Dropping it ends everything of it.
pub(super) struct Systemd {
    process: Process,
    group: PathBuf,
}

impl Systemd {
    /// Whether this machine has what it takes, beside a room.
    pub(super) fn is_left_out() -> bool {
        let left_out = !Path::new(TREE).join("cgroup.procs").exists();
        if left_out {
            skip("a systemd in namespaces needs cgroups of version 1 (name=systemd)");
        }
        left_out
    }

    /// Starts one in the room, which finds `systemctl` and what else pages name.
    pub(super) async fn boot(room: &Room) -> Result<Self> {
        let parts = Parts::gather().await?;
        room.run(CLEAR).await?;
        for target in TARGETS {
            let unit = format!("[Unit]\nDescription={target}\nDefaultDependencies=no\n");
            room.run(&format!("printf '%s' '{unit}' > /etc/systemd/targets/{target}.target")).await?;
        }
        let libraries = parts.libraries();
        for name in ["systemd-sysusers", "systemd-tmpfiles", "systemd-analyze"] {
            let units = format!("SYSTEMD_UNIT_PATH=/etc/systemd/system:{}", parts.units());
            let text =
                format!("#!/bin/sh\nexec env LD_LIBRARY_PATH={libraries} {units} {} \"$@\"\n", parts.program(name)?);
            room.bring_script(name, &text)?;
        }
        let own = std::fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.split_once(":name=systemd:")).map_or("/", |(_, path)| path);
        let name = room.path("").file_name().map(|name| name.to_string_lossy().into_owned());
        let group = Path::new(TREE).join(own.trim_start_matches('/')).join(name.context("the room's name")?);
        std::fs::create_dir(&group).with_context(|| group.display().to_string())?;
        let enter = format!(
            "echo $$ > {}/cgroup.procs; exec unshare --mount --pid --ipc --uts --cgroup --fork --kill-child \
             --propagation private sh -c \"$1\" boot \"$2\"",
            group.display()
        );
        let command = ["sh", "-c", &enter, "enter", BOOT, &parts.program("systemd")?].map(str::to_owned);
        let process = room.launch("systemd", &command)?.env("LD_LIBRARY_PATH", &libraries).spawn()?;
        let systemd = Self { process, group };
        let first = eventually("systemd has begun", Duration::from_secs(60), || async {
            ensure!(systemd.process.is_running(), "{}", systemd.process.log_text());
            systemd.first_process().context("it has no process")
        })
        .await?;
        let text = format!(
            "#!/bin/sh\nexec nsenter --mount --pid --target={first} -- env LD_LIBRARY_PATH={libraries} {} \"$@\"\n",
            parts.program("systemctl")?
        );
        room.bring_script("systemctl", &text)?;
        eventually("systemd answers", Duration::from_secs(60), || async {
            ensure!(systemd.process.is_running(), "{}", systemd.process.log_text());
            room.run("systemctl is-active room.target").await.map(drop)
        })
        .await?;
        Ok(systemd)
    }

    /// Its process as this machine numbers it: the child of the one that made the namespaces.
    fn first_process(&self) -> Option<i32> {
        child_of(self.process.pid())
    }

    /// The processes of a service, as this machine numbers them.
    pub(super) fn processes(&self, service: &str) -> Result<Vec<i32>> {
        let file = self.group.join("system.slice").join(service).join("cgroup.procs");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // Its namespaces end with it, and everything in them.
        let _ = self.process.signal(quarterdeck_it::Signal::SIGKILL);
        let latest = Instant::now() + Duration::from_secs(20);
        while let Err(error) = remove(&self.group) {
            if Instant::now() > latest {
                eprintln!("{} is left: {error:#}", self.group.display());
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Removes a cgroup and those in it.
fn remove(group: &Path) -> Result<()> {
    for entry in std::fs::read_dir(group)? {
        let path = entry?.path();
        if path.is_dir() {
            remove(&path)?;
        }
    }
    std::fs::remove_dir(group).with_context(|| group.display().to_string())
}

/// The first child of a process.
fn child_of(parent: i32) -> Option<i32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    std::fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}

/// What the service may and may not, as the kernel has it.
pub(super) fn is_confined(process: i32) -> Result<()> {
    let proc = Path::new("/proc").join(process.to_string());
    let status = std::fs::read_to_string(proc.join("status"))?;
    let value = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).with_context(|| key.to_owned())
    };
    for (key, wanted) in [
        ("Uid", "65532 65532 65532 65532"),
        ("Gid", "65532 65532 65532 65532"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        let found = value(key)?;
        ensure!(found == wanted, "{key} is {found}, not {wanted}");
    }
    let mut seen: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(proc.join("root/etc/kubernetes"))? {
        seen.push(entry?.file_name().to_string_lossy().into_owned());
    }
    seen.sort();
    if seen.iter().any(|name| !["addons", "admission-controls", "quarterdeck"].contains(&name.as_str())) {
        bail!("it sees {seen:?} of /etc/kubernetes");
    }
    ensure!(seen.contains(&"quarterdeck".to_owned()), "it does not see its own folder: {seen:?}");
    Ok(())
}
