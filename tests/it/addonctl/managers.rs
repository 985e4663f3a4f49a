//! `status` and `top` on three real replicas.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use quarterdeck_it::{ControlPlane, Deck, Node, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::{LONG, Ran, alone};

/// Runs addonctl with a kubeconfig.
pub(super) async fn run_as(kubeconfig: &std::path::Path, args: &[&str]) -> Ran {
    let home = tempfile::tempdir().unwrap();
    let kubeconfig = kubeconfig.display().to_string();
    alone(home.path(), &[args, &["--kubeconfig", &kubeconfig]].concat()).await
}

/// Runs addonctl until it ends with this code.
async fn until(kubeconfig: &std::path::Path, args: &[&str], code: i32) -> Result<Ran> {
    eventually(&format!("addonctl {args:?} ends with {code}"), LONG, || async {
        let ran = run_as(kubeconfig, args).await;
        ensure!(ran.code == code, "{ran:?}");
        Ok(ran)
    })
    .await
}

/// Has `top` run on a terminal, and presses each key once its text is shown. Gives what was shown, if it ended well.
async fn on_a_terminal(kubeconfig: &std::path::Path, keys: &[(&str, &str)]) -> Result<String> {
    let program = quarterdeck_it::deck::program_named("addonctl")?;
    // A terminal without a user has no size.
    let run = format!(
        "stty rows 40 cols 120; exec {} top --interval=200ms --kubeconfig={}",
        program.display(),
        kubeconfig.display()
    );
    let mut script = Command::new("script");
    script.args(["--quiet", "--flush", "--return", "--command", &run, "/dev/null"]).env("SHELL", "/bin/sh");
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let mut child = script.spawn().context("script, of util-linux or bsdutils")?;
    let (mut typed, mut out) = (child.stdin.take().context("its input")?, child.stdout.take().context("its output")?);
    let mut shown = String::new();
    let watched = async {
        let mut keys = keys.iter();
        let mut awaited = keys.next();
        let mut bytes = vec![0; 4096];
        loop {
            let read = out.read(&mut bytes).await?;
            if read == 0 {
                return anyhow::Ok(());
            }
            shown.push_str(&String::from_utf8_lossy(&bytes[..read]));
            if let Some((_, key)) = awaited.filter(|(text, _)| shown.contains(text)) {
                typed.write_all(key.as_bytes()).await?;
                awaited = keys.next();
            }
        }
    };
    tokio::time::timeout(LONG, watched).await.context("it does not end")??;
    let ended = child.wait().await?;
    ensure!(ended.success(), "{ended}: {shown}");
    Ok(shown)
}

/// The first column of the table under a title.
fn names(text: &str, title: &str) -> Vec<String> {
    let after = text.split(&format!("\n{title}\n")).nth(1).unwrap_or_default();
    let rows = after.lines().skip(1).take_while(|line| !line.is_empty());
    rows.filter_map(|row| row.split_whitespace().next()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_what_is_wrong_and_ends_accordingly() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let home = tempfile::tempdir()?;
    let addons = format!("--addon-path={}", home.path().display());
    let deck = Deck::builder(&control_plane).args([addons]).start().await?;
    deck.ready(LONG).await?;
    let leader = format!("quarterdeck-{}", deck.leader(LONG).await?);
    let admin = control_plane.admin_kubeconfig()?;

    // All is well, once all replicas have heard of each other.
    let well = eventually("three masters are well", LONG, || async {
        let ran = run_as(&admin, &["status"]).await;
        let masters = names(&ran.out, "Masters");
        ensure!(ran.code == 0 && masters.len() == 3 && !ran.out.contains("silent"), "{ran:?}");
        Ok(ran)
    });
    let text = well.await?.fine();
    assert!(text.starts_with("healthy"), "{text}");
    assert!(text.contains(&format!("\nLeader:  {leader} for ")), "{text}");
    assert!(text.contains(&format!("\nTold by: replica {leader} at 127.0.0.1:")), "{text}");
    assert_eq!(names(&text, "Masters"), ["quarterdeck-0", "quarterdeck-1", "quarterdeck-2"]);
    assert!(names(&text, "Controllers").contains(&"namespace-controller".to_owned()), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours where no terminal is: {text}");

    // For scripts, as the manager tells it; and as another replica sees it.
    let whole: Value = serde_json::from_str(&run_as(&admin, &["status", "-o", "json"]).await.fine())?;
    assert_eq!((&whole["kind"], &whole["status"]["election"]["leading"]), (&json!("Statusz"), &json!(true)));
    let other = deck.replicas().len() - 1 - usize::from(leader == "quarterdeck-2");
    let other = format!("quarterdeck-{other}");
    let args = ["status", "-o", "json", "--replica", &other];
    let whole: Value = serde_json::from_str(&run_as(&admin, &args).await.fine())?;
    assert_eq!(whole["status"]["election"]["leading"], json!(false));
    let error = run_as(&admin, &["status", "--replica=none"]).await.failed(1);
    assert!(error.contains("there is no replica \"none\"; there are: quarterdeck-0, quarterdeck-1"), "{error}");

    // Where nobody watches, top prints once.
    let top = run_as(&admin, &["top", "--sort-by=name"]).await.fine();
    for heading in ["CONTROLLER  ", "CACHE  ", "leader: "] {
        assert!(top.lines().any(|line| line.starts_with(heading)), "{heading} in:\n{top}");
    }
    let whole: Value = serde_json::from_str(&run_as(&admin, &["top", "-o", "json"]).await.fine())?;
    assert_eq!(whole["kind"], "Statusz");
    let shown = on_a_terminal(&admin, &[("by keys that wait", "s"), ("by rate", "q")]).await?;
    assert!(shown.contains("CONTROLLER") && shown.contains("\u{1b}[?1049h"), "{shown}");
    assert!(shown.ends_with("\u{1b}[?1049l"), "the terminal is given back: {shown}");

    // Who may not ask the manager is told what it takes.
    let nobody = control_plane.kubeconfig("nobody", &[])?;
    let error = run_as(&nobody, &["status"]).await.failed(1);
    assert!(error.contains("it takes the right to list leases: kubectl create role"), "{error}");
    let rules = json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["list"]}]);
    control_plane.grant_in("quarterdeck-replicas", "nobody", &serde_json::from_value::<Vec<_>>(rules)?).await?;
    eventually("the manager refuses", LONG, || async {
        let ran = run_as(&nobody, &["status"]).await;
        let refused = ran.err.contains("cannot get path") && ran.err.contains("--non-resource-url=/statusz");
        ensure!(ran.code == 1 && refused, "{ran:?}");
        Ok(())
    })
    .await?;

    // An addon that cannot be: its kind does not exist.
    let broken = json!({
        "apiVersion": "example.com/v1", "kind": "Nothing",
        "metadata": {
            "name": "x", "namespace": "default", "labels": {"addonmanager.kubernetes.io/mode": "Reconcile"},
        },
    });
    std::fs::write(home.path().join("broken.yaml"), broken.to_string())?;
    let ran = until(&admin, &["status"], 5).await?;
    assert!(ran.out.starts_with("unhealthy: ") && ran.out.contains("addon broken.yaml"), "{}", ran.out);
    assert_eq!(run_as(&admin, &["top", "--once"]).await.code, 5);
    std::fs::remove_file(home.path().join("broken.yaml"))?;

    // Nobody is left to tell; the Leases do.
    for replica in deck.replicas() {
        replica.process().stop(LONG).await?;
    }
    let ran = until(&admin, &["status"], 5).await?;
    assert!(ran.out.starts_with("unhealthy: ") && ran.out.contains("no replica is heard of"), "{}", ran.out);
    assert!(ran.out.contains("\nLeader:  nobody") && ran.out.contains("Told by: the Leases alone"), "{}", ran.out);
    Ok(())
}

/// The program of this machine, in a pod of a real node: there is no image, but the machine's own files.
fn pod(program: &std::path::Path) -> Result<Value> {
    // Links in the machine's folders lead out of the place where the pod sees them.
    let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    let loader = loaders.iter().find_map(|loader| std::fs::canonicalize(loader).ok()).context("a loader")?;
    let libraries = loader.parent().context("a folder")?;
    let run = format!(
        "exec /host{} --library-path /host{} /host{} --state-dir=/state",
        loader.display(),
        libraries.display(),
        program.display()
    );
    Ok(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "quarterdeck-x", "labels": {"app.kubernetes.io/name": "quarterdeck"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "quarterdeck", "image": Node::SHELL_IMAGE, "command": ["sh", "-c", run],
                "volumeMounts": [
                    {"name": "host", "mountPath": "/host", "readOnly": true, "mountPropagation": "None"},
                    {"name": "state", "mountPath": "/state"},
                ],
            }],
            "volumes": [
                {"name": "host", "hostPath": {"path": "/"}}, {"name": "state", "emptyDir": {}},
            ],
        },
    }))
}

/// The way that needs nothing of the network but kube-apiserver: into the pod.
#[tokio::test(flavor = "multi_thread")]
async fn a_manager_in_a_pod_is_reached_through_kube_apiserver() -> Result<()> {
    if Node::is_left_out() {
        return Ok(());
    }
    let control_plane = ControlPlane::builder().node().start().await?;
    let program = quarterdeck_it::deck::program()?.canonicalize()?;
    let admin = control_plane.admin_kubeconfig()?;
    quarterdeck_it::deck::install(&program, &admin, &[]).await?;
    control_plane.bind("system:serviceaccount:kube-system:default", "cluster-admin").await?;
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
        kube::Api::namespaced(control_plane.admin().await?, "kube-system");
    pods.create(&Default::default(), &serde_json::from_value(pod(&program)?)?).await?;

    let ran = eventually("the manager in the pod tells how it is", LONG * 2, || async {
        let ran = run_as(&admin, &["status"]).await;
        if !ran.out.contains("Leader:  quarterdeck-x for") {
            let logs = pods.logs("quarterdeck-x", &Default::default()).await.unwrap_or_default();
            let end: Vec<&str> = logs.lines().rev().take(5).collect();
            let state = pods.get("quarterdeck-x").await?.status.and_then(|status| status.container_statuses);
            bail!("{ran:?}; its log ends: {end:#?}; {state:?}");
        }
        Ok(ran)
    })
    .await?;
    assert!(
        ran.out.contains("\nTold by: replica quarterdeck-x in pod kube-system/quarterdeck-x, version"),
        "{}",
        ran.out
    );

    // Who may see the pod but not go into it is told what it takes; its address is no way round that from here.
    let rules = json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["list"]}]);
    control_plane.grant_in("quarterdeck-replicas", "viewer", &serde_json::from_value::<Vec<_>>(rules)?).await?;
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]);
    control_plane.grant_in("kube-system", "viewer", &serde_json::from_value::<Vec<_>>(rules)?).await?;
    let viewer = control_plane.kubeconfig("viewer", &[])?;
    eventually("the way into the pod is shut", LONG, || async {
        let ran = run_as(&viewer, &["status"]).await;
        let told = ran.err.contains("a port-forward") && ran.err.contains("pods/portforward");
        // The address in the Lease may be in reach of this machine; the manager refuses there.
        ensure!(ran.code == 1 && (told || ran.err.contains("--non-resource-url=/statusz")), "{ran:?}");
        Ok(())
    })
    .await
}
