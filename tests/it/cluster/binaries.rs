//! `hack/cluster bin`: the cache of built programs, with a stand-in for `go`
//! that builds at once and writes down what it was asked for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::ensure;
use quarterdeck_it::{eventually, repository};

use super::LONG;

/// Writes "program" to the path after `-o`, after what `$GO_SCRIPT` says.
const FAKE_GO: &str = r#"#!/bin/bash
if [ "$1" = list ]; then echo "$GO_MODULE"; exit; fi
while [ "$1" != -o ]; do shift; done
echo "$3" >>"$GO_CALLS"
echo half >"$2"
eval "$GO_SCRIPT"
echo program >"$2"
chmod +x "$2"
"#;

struct Cache {
    folder: tempfile::TempDir,
}

impl Cache {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let go = folder.path().join("path/go");
        fs::create_dir(folder.path().join("path")).unwrap();
        fs::write(&go, FAKE_GO).unwrap();
        fs::set_permissions(&go, fs::Permissions::from_mode(0o755)).unwrap();
        for part in ["node/fast", "node/heartbeat-with-lease", "pod/fast"] {
            let stages = folder.path().join("module/kustomize/stage").join(part);
            fs::create_dir_all(&stages).unwrap();
            fs::write(stages.join("stage.yaml"), format!("kind: {part}\n")).unwrap();
        }
        Self { folder }
    }

    fn command(&self, script: &str, args: &[&str]) -> Command {
        let mut command = Command::new(repository().join("hack/cluster"));
        let path = std::env::var("PATH").unwrap();
        let own = self.folder.path().join("path");
        command.arg("bin").args(args);
        command.env("PATH", format!("{}:{path}", own.display()));
        command.env("XDG_CACHE_HOME", self.folder.path().join("cache"));
        command.env("GO_CALLS", self.folder.path().join("calls"));
        command.env("GO_MODULE", self.folder.path().join("module"));
        command.env("GO_SCRIPT", script);
        command.env_remove("QUARTERDECK_BIN_DIR");
        command
    }

    fn bin(&self, script: &str, args: &[&str]) -> Output {
        self.command(script, args).output().unwrap()
    }

    /// Packages that were built, in order.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }
}

/// The folder that is printed last.
fn printed(output: &Output) -> PathBuf {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    PathBuf::from(text.lines().last().unwrap())
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn what_is_missing_is_built_once_and_kept() {
    let cache = Cache::new();
    let folder = printed(&cache.bin("", &[]));
    let built = ["go.etcd.io/etcd/server/v3", "k8s.io/kubernetes/cmd/kube-apiserver"];
    assert_eq!(cache.calls()[..2], built);
    assert_eq!(cache.calls().len(), 3);
    assert_eq!(printed(&cache.bin("", &[])), folder);
    assert_eq!(cache.calls().len(), 3);

    assert_eq!(printed(&cache.bin("", &["--with", "kcm,kwok"])), folder);
    let more = ["k8s.io/kubernetes/cmd/kube-controller-manager", "sigs.k8s.io/kwok/cmd/kwok"];
    assert_eq!(cache.calls()[3..], more);
    let stages = text(&folder.join("kwok-stages.yaml"));
    assert_eq!(stages.matches("---\n").count(), 3, "{stages}");
}

#[test]
fn a_half_built_cache_heals() {
    let cache = Cache::new();
    // The build is killed half-way: nothing has the program's name.
    let killed = cache.bin("kill -9 $PPID; kill -9 $$", &[]);
    assert!(!killed.status.success());
    assert_eq!(cache.calls().len(), 1);
    let folder = printed(&cache.bin("", &[]));
    assert_eq!(text(&folder.join("etcd")), "program\n");

    // Damaged afterwards: built anew, and only that.
    let before = cache.calls().len();
    fs::write(folder.join("etcd"), "pro").unwrap();
    fs::remove_file(folder.join("kubectl.size")).unwrap();
    printed(&cache.bin("", &[]));
    assert_eq!(text(&folder.join("etcd")), "program\n");
    assert_eq!(cache.calls().len(), before + 2);
    let left = fs::read_dir(&folder).unwrap().flatten();
    let left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(".tmp"));
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn two_callers_build_once() {
    let cache = Cache::new();
    let (go_on, errors) = (cache.folder.path().join("go-on"), cache.folder.path().join("errors"));
    let script = format!("until [ -e {} ]; do sleep 0.02; done", go_on.display());
    let first = cache.command(&script, &[]).stdout(Stdio::piped()).spawn().unwrap();
    eventually("the first one's build", LONG, async || {
        ensure!(cache.calls().len() == 1, "{:?}", cache.calls());
        Ok(())
    })
    .await
    .unwrap();
    let mut second = cache.command(&script, &[]);
    second.stdout(Stdio::piped()).stderr(fs::File::create(&errors).unwrap());
    let second = second.spawn().unwrap();
    eventually("the second one's waiting", LONG, async || {
        ensure!(text(&errors).contains("another build is running"), "{}", text(&errors));
        Ok(())
    })
    .await
    .unwrap();
    fs::write(go_on, "").unwrap();
    let first = first.wait_with_output().unwrap();
    let second = second.wait_with_output().unwrap();
    assert_eq!(printed(&first), printed(&second));
    assert_eq!(cache.calls().len(), 3);
}

#[test]
fn failures_are_one_clear_line() {
    let cache = Cache::new();
    let failed = cache.bin("echo no such package >&2; exit 1", &[]);
    let errors = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success());
    assert!(errors.contains("no such package"), "{errors}");
    assert!(errors.contains("building etcd ended in an error"), "{errors}");

    let unknown = cache.bin("", &["--with", "kcm,oars"]);
    let errors = String::from_utf8_lossy(&unknown.stderr).into_owned();
    let known = "kcm, scheduler, kwok, node, masters, cloud-shim, cloud-template, cloud-peer and helm";
    assert_eq!(errors, format!("cluster: --with oars: known are {known}\n"));

    // Everything but go.
    let path = cache.folder.path().join("no-go");
    fs::create_dir(&path).unwrap();
    for tool in ["bash", "env", "basename", "dirname", "cat", "sha256sum", "cut", "uname", "stat"] {
        let real = std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|folder| folder.join(tool))
            .find(|file| file.is_file())
            .unwrap();
        std::os::unix::fs::symlink(real, path.join(tool)).unwrap();
    }
    let missing = cache.command("", &[]).env("PATH", &path).output().unwrap();
    let errors = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert_eq!(errors, "cluster: go is missing: install Go 1.26 or later (https://go.dev/dl)\n");

    let empty = cache.folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let ready = cache.command("", &[]).env("QUARTERDECK_BIN_DIR", &empty).output().unwrap();
    let errors = String::from_utf8_lossy(&ready.stderr).into_owned();
    assert!(errors.ends_with("holds no etcd\n"), "{errors}");
}
