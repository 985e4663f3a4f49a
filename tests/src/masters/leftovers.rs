//! What a site might leave on this machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::wait::eventually;

/// The kernel drops namespaces and what is in them in its own time.
const SETTLED: Duration = Duration::from_secs(60);
/// Depth to which cgroups are looked at: below that of this process.
const DEPTH: usize = 5;

/// Links, mounts and cgroups of this machine at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftovers {
    links: BTreeSet<String>,
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
    rules: BTreeSet<String>,
}

impl Leftovers {
    /// How the machine is now.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn look() -> Result<Self> {
        let names = |folder: &str| -> BTreeSet<String> {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        // The place of a mount is its fifth field.
        let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect();
        let mut cgroups = BTreeSet::new();
        below(Path::new("/sys/fs/cgroup"), DEPTH, &mut cgroups);
        let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        let rules = routes.lines().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect();
        Ok(Self { links: names("/sys/class/net"), mounts, cgroups, rules })
    }

    /// Waits until nothing is left of a site that has ended: of links, mounts, routes and cgroups those that were there
    /// before, and no process that knows its folder.
    ///
    /// # Errors
    /// With what is left.
    pub async fn until_none(&self, folder: &Path) -> Result<()> {
        eventually("nothing is left of the masters", SETTLED, || async {
            let left = self.left(&Self::look()?, folder);
            if left.is_empty() { Ok(()) } else { bail!("left behind: {}", left.join(", ")) }
        })
        .await
    }

    /// What is there now and was not before.
    fn left(&self, now: &Self, folder: &Path) -> Vec<String> {
        let mut all = Vec::new();
        all.extend(now.links.difference(&self.links).map(|name| format!("link {name}")));
        all.extend(now.mounts.difference(&self.mounts).map(|name| format!("mount {name}")));
        // Nodes of other tests come and go with their turn; a site's are called by its name. What lies below is not told.
        let group = |path: &PathBuf| {
            let mut names = path.iter().map(|name| name.to_string_lossy());
            names.find(|name| name.starts_with("quarterdeck-node-")).map(std::borrow::Cow::into_owned)
        };
        let groups: BTreeSet<String> = now.cgroups.difference(&self.cgroups).filter_map(group).collect();
        all.extend(groups.into_iter().map(|name| format!("cgroup {name}")));
        all.extend(now.rules.difference(&self.rules).map(|route| format!("route {route}")));
        all.extend(knowing(folder));
        all
    }
}

/// Processes that were told of a folder, or have it among their mounts.
fn knowing(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    // On a file system of its own a folder's mounts begin at that one's root.
    let short: PathBuf = Path::new(&folder).components().rev().take(2).collect::<Vec<_>>().into_iter().rev().collect();
    let short = short.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == std::process::id() {
            continue;
        }
        let read = |name: &str| {
            String::from_utf8_lossy(&std::fs::read(entry.path().join(name)).unwrap_or_default()).into_owned()
        };
        let line = read("cmdline").replace('\0', " ");
        if line.contains(&folder) || read("mountinfo").contains(&short) {
            found.push(format!("process {pid} ({line})"));
        }
    }
    found
}

fn below(folder: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() && found.insert(path.clone()) && depth > 0 {
            below(&path, depth - 1, found);
        }
    }
}
