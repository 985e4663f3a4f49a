//! Bad input: the message says where and what, nothing crashes, and nothing else stops.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{Api, Patch, PatchParams};
use quarterdeck_it::deck::{Demo, install, program};
use quarterdeck_it::{ControlPlane, Deck, Launch, ReservedPort, eventually};
use serde_json::json;
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the program says, and its exit code, when it should not get far.
async fn refused(args: &[&str]) -> Result<(Option<i32>, String)> {
    let run = Command::new(program()?)
        .args(args)
        .env_remove("KUBERNETES_SERVICE_HOST")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, run).await.with_context(|| format!("{args:?} keeps running"))??;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// The program ends with 1, says this in one line that begins with `Error:`, and does not panic.
async fn says(args: &[&str], expected: &str) -> Result<()> {
    let (code, said) = refused(args).await?;
    let line = said.lines().find(|line| line.starts_with("Error: ")).unwrap_or_default();
    ensure!(code == Some(1), "{args:?} ends with {code:?}: {said}");
    ensure!(line.contains(expected), "{args:?} says {line:?}, not {expected:?}:\n{said}");
    ensure!(!said.contains("panicked"), "{args:?}: {said}");
    Ok(())
}

#[tokio::test]
async fn wrong_flags_are_named() -> Result<()> {
    let cases: [(&[&str], &str); 20] = [
        (&["--leader-elct"], "unknown flag: --leader-elct (did you mean --leader-elect?)"),
        (&["-x"], "unknown shorthand flag: 'x' in -x"),
        (&["start"], "unexpected argument \"start\": this command takes flags only"),
        (&["install", "--dry-rum"], "unknown flag: --dry-rum (did you mean --dry-run?)"),
        (&["--kubeconfig"], "flag needs an argument: --kubeconfig"),
        (&["--secure-port=x"], "invalid argument \"x\" for \"--secure-port\" flag"),
        (&["--secure-port=70000"], "70000 is not in 0..=65535"),
        (&["--bind-address=here"], "invalid argument \"here\" for \"--bind-address\" flag"),
        (&["--leader-elect-lease-duration=15"], "duration \"15\" lacks a unit"),
        (&["--leader-elect-lease-duration=10s"], "must be greater than --leader-elect-renew-deadline"),
        (&["--fence=off"], "must be one of auto, required"),
        (
            &["--controllers=namespce"],
            "\"namespce\" is not in the list of known controllers (did you mean \"namespace\"?)",
        ),
        (&["--master=https://a"], "--master is not supported"),
        (&["--leader-elect-resource-name=kube-controller-manager"], "--allow-partial-takeover"),
        (&["--concurrent-namespace-syncs=0"], "namespace-controller: --concurrent-namespace-syncs: must be at least 1"),
        (&["--addon-path="], "for \"--addon-path\" flag: must not be empty"),
        (&["--addon-prune-protect=a/b"], "addon-controller: --addon-prune-protect: \"a/b\" is not a kind"),
        (&["--addon-override-managers=*"], "--addon-override-managers: \"*\" is not the name of a field manager"),
        (&["--tls-cert-file=/nowhere/a"], "--tls-cert-file and --tls-private-key-file: give both or neither"),
        (&[], "no kubeconfig is given"),
    ];
    for (args, expected) in cases {
        says(args, expected).await?;
    }
    // All mistakes at once, each on a line of its own.
    let (_, said) = refused(&["--leader-elct", "--secure-port=x", "--controllers=a,b"]).await?;
    for part in ["--leader-elct", "--secure-port"] {
        assert!(said.lines().any(|line| line.contains(part)), "{part}: {said}");
    }
    let timing =
        ["--leader-elect-lease-duration=3s", "--leader-elect-renew-deadline=2s", "--leader-elect-retry-period=1s"];
    let (_, said) = refused(&timing).await?;
    for flag in ["--leader-elect-lease-duration", "--leader-elect-renew-deadline", "--leader-elect-retry-period"] {
        assert!(said.contains(flag), "{flag}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_kubeconfig_or_certificate_is_named() -> Result<()> {
    let control_plane = quarterdeck_it::shared().await;
    let good = std::fs::read_to_string(control_plane.admin_kubeconfig()?)?;
    let secret = value(&good, "client-key-data").context("a key")?;
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &[u8]| -> Result<PathBuf> {
        let path = folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    };
    let with = |key: &str, new: &str| {
        good.replace(&format!("{key}: {}", value(&good, key).unwrap()), &format!("{key}: {new}")).into_bytes()
    };
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("empty", Vec::new(), "current context"),
        ("binary", vec![0xff, 0xfe, 0], "not UTF-8"),
        ("unclosed", b"a: [b\n".to_vec(), "not a kubeconfig in YAML: line "),
        ("list", b"- a\n".to_vec(), "not a kubeconfig in YAML"),
        ("context", with("current-context", "other"), "other"),
        ("address", with("server", "not an address"), "cluster url"),
        ("scheme", with("server", "ftp://127.0.0.1"), "neither https nor http"),
        ("base64", with("client-certificate-data", "%%%"), "line "),
        ("pem", with("client-certificate-data", "YWJj"), "certificate"),
    ];
    for (name, text, expected) in cases {
        let path = file(name, &text)?;
        let args = format!("--kubeconfig={}", path.display());
        says(&[&args], expected).await?;
        // Which file, and nothing of what is in it.
        let (_, said) = refused(&[&args]).await?;
        assert!(said.contains(name) || name == "scheme" || name == "pem", "{name}: {said}");
        assert!(!said.contains(&secret[..40]), "{name} shows the key: {said}");
    }
    let missing = folder.path().join("missing");
    says(&[&format!("--kubeconfig={}", missing.display())], "missing: No such file or directory").await?;
    says(&[&format!("--kubeconfig={}", folder.path().display())], "Is a directory").await?;
    let good = format!("--kubeconfig={}", control_plane.admin_kubeconfig()?.display());
    let nowhere = ["--tls-cert-file=/nowhere/c", "--tls-private-key-file=/nowhere/k"];
    says(&[&good, nowhere[0], nowhere[1]], "serving certificate: /nowhere/").await?;
    says(&[&good, "--client-ca-file=/nowhere/ca"], "--client-ca-file: /nowhere/ca: No such file").await?;
    // An address that belongs to nobody here.
    says(&[&good, "--bind-address=192.0.2.1"], "cannot listen on 192.0.2.1").await
}

/// The value of a key in a kubeconfig of ours.
fn value(kubeconfig: &str, key: &str) -> Option<String> {
    let start = format!("{key}: ");
    kubeconfig.lines().find_map(|line| line.trim_start_matches([' ', '-']).strip_prefix(&start).map(str::to_owned))
}

/// A server that cannot be believed may be so by mistake, and for a time: the replica stays, says
/// why, is not ready, and does no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_ca_is_said_and_outlived() -> Result<()> {
    let control_plane = quarterdeck_it::shared().await;
    let folder = tempfile::tempdir()?;
    let good = std::fs::read_to_string(control_plane.admin_kubeconfig()?)?;
    let other = value(&good, "client-certificate-data").context("a certificate")?;
    let wrong = good.replace(&value(&good, "certificate-authority-data").context("a CA")?, &other);
    let path = folder.path().join("wrong-ca.conf");
    std::fs::write(&path, wrong)?;
    let port = ReservedPort::take()?;
    let replica = Launch::new("wrong-ca", program()?)
        .args([
            format!("--kubeconfig={}", path.display()),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", port.port()),
            "--leader-elect-resource-name=wrong-ca".to_owned(),
        ])
        .log(folder.path().join("log"))
        .spawn()?;
    let number = port.port();
    let probe = |path: &'static str| async move {
        let url = format!("https://127.0.0.1:{number}{path}");
        let args = ["--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}", &url];
        Ok::<_, anyhow::Error>(String::from_utf8(Command::new("curl").args(args).output().await?.stdout)?)
    };
    eventually("it says what is wrong", PATIENCE, || async {
        let log = replica.log_text();
        let informers = log.lines().any(|line| line.contains("informer fails") && line.contains("UnknownIssuer"));
        if informers && log.contains("blocked") { Ok(()) } else { bail!("{log}") }
    })
    .await?;
    eventually("it serves", PATIENCE, || async {
        match probe("/livez").await?.as_str() {
            "200" => Ok(()),
            code => bail!("{code}"),
        }
    })
    .await?;
    assert_eq!(probe("/readyz").await?, "500");
    assert!(replica.is_running());
    assert!(!replica.log_text().contains("panicked"));
    replica.stop(PATIENCE).await.map(drop)
}

/// Rights that are missing block the controllers that need them, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn missing_rights_block_one_controller() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let (program, admin) = (program()?, control_plane.admin_kubeconfig()?);
    install(&program, &admin, &[]).await?;
    let client = control_plane.admin().await?;
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let mut rules = roles.get("quarterdeck:reader").await?.rules.context("rules")?;
    let count = rules.len();
    rules.retain(|rule| !rule.resources.iter().flatten().any(|resource| resource == "namespaces"));
    assert_eq!(rules.len(), count - 1);
    roles.patch("quarterdeck:reader", &PatchParams::default(), &Patch::Merge(json!({ "rules": rules }))).await?;

    let deck = Deck::builder(&control_plane).replicas(1).without_install().start().await?;
    deck.leader(PATIENCE).await?;
    let replica = deck.replica(0);
    let reason = eventually("the namespace controller is blocked, the others run", PATIENCE, || async {
        let status = replica.status().await?;
        let state = |name: &str| status.controller(name).unwrap_or_default().to_owned();
        let others = ["addon-controller", "endpoints-controller", "endpointslice-controller"].map(state);
        if state("namespace-controller") == "blocked" && others.iter().all(|state| state == "running") {
            return Ok(status.reason("namespace-controller").unwrap_or_default().to_owned());
        }
        bail!("{} {others:?}", state("namespace-controller"))
    })
    .await?;
    for part in ["cannot read namespaces", "quarterdeck-reader", "forbidden"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    let blocked = [("controller", "namespace-controller"), ("state", "blocked")];
    assert!(replica.metric("quarterdeck_controller_state", &blocked).await? > 0.0);
    // What is blocked keeps the replica from nothing.
    replica.ready(PATIENCE).await?;
    control_plane.namespace("load").await?;
    let demo = Demo::new(client.clone(), "load");
    demo.node("node-a", "a").await?;
    demo.service("web").await?;
    demo.pod("web-0", "web", "node-a", "10.1.0.1").await?;
    eventually("a slice is written", PATIENCE, || async {
        let seen = demo.endpoints("web").await?;
        if seen.len() == 1 { Ok(()) } else { bail!("{seen:?}") }
    })
    .await?;

    install(&program, &admin, &[]).await?;
    eventually("the namespace controller runs", PATIENCE, || async {
        match replica.status().await?.controller("namespace-controller") {
            Some("running") => Ok(()),
            state => bail!("{state:?}"),
        }
    })
    .await?;
    let value = replica.metric("quarterdeck_controller_state", &blocked).await?;
    assert!(value < 1.0, "{value}");
    assert!(!replica.process().log_text().contains("panicked"));
    Ok(())
}

/// Manifests of hostile or careless hands lie beside good ones.
#[tokio::test(flavor = "multi_thread")]
async fn bad_manifests_stop_no_good_ones() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let addons = control_plane.folder().join("addons");
    std::fs::create_dir_all(&addons)?;
    let bad = bad_manifests(&addons)?;
    for name in ["a-first", "z-last"] {
        std::fs::write(addons.join(format!("{name}.yaml")), map(name))?;
    }
    let args = [format!("--addon-path={}", addons.display())];
    let deck = Deck::builder(&control_plane).replicas(1).args(args).start().await?;
    deck.ready(PATIENCE).await?;
    let maps: Api<ConfigMap> = Api::namespaced(control_plane.admin().await?, "kube-system");
    let applied = |name: &'static str| {
        let maps = maps.clone();
        async move { eventually(name, PATIENCE, || async { Ok(maps.get(name).await.map(drop)?) }).await }
    };
    for name in ["a-first", "z-last", "beside-a-bad-one"] {
        applied(name).await?;
    }
    let replica = deck.replica(0);
    eventually("each bad file is named with what is wrong", PATIENCE, || async {
        let log = replica.process().log_text();
        let missing: Vec<_> = bad
            .iter()
            .filter(|(file, what)| !log.lines().any(|line| line.contains(file) && line.contains(what)))
            .collect();
        if missing.is_empty() { Ok(()) } else { bail!("{missing:?} in\n{log}") }
    })
    .await?;
    let problems = replica.metric("quarterdeck_addon_source_problems", &[]).await?;
    assert!(problems >= 5.0, "{problems}");
    // It goes on: a good file that comes later is applied, one that becomes good as well.
    std::fs::write(addons.join("later.yaml"), map("later"))?;
    std::fs::write(addons.join("unclosed.yaml"), map("mended"))?;
    applied("later").await?;
    applied("mended").await?;
    let status = replica.status().await?;
    for name in ["addon-controller", "namespace-controller", "endpointslice-controller"] {
        assert_eq!(status.controller(name), Some("running"), "{name}");
    }
    assert!(!replica.process().log_text().contains("panicked"));
    Ok(())
}

fn map(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: kube-system\n  \
         labels: {{ addonmanager.kubernetes.io/mode: Reconcile }}\n"
    )
}

/// Writes them; each with a part of what is said of it.
fn bad_manifests(folder: &Path) -> Result<Vec<(&'static str, &'static str)>> {
    let mut bombs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let last = level - 1;
        bombs += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{last}"); 10].join(", "));
    }
    let deep = format!("{}{}\n", "[".repeat(20_000), "]".repeat(20_000));
    let half = format!("{}---\nkind: ConfigMap\nmetadata: {{ name: no-version }}\n", map("beside-a-bad-one"));
    let files: [(&str, Vec<u8>, &str); 7] = [
        ("unclosed.yaml", b"kind: [\n".to_vec(), "line 1, field kind[0]: unclosed bracket"),
        ("bombs.yaml", bombs.into_bytes(), "budget breached"),
        ("deep.yaml", deep.into_bytes(), "recursion limit"),
        ("binary.yaml", vec![0, 159, 146, 150], "line 1: not UTF-8 at byte 1"),
        ("half.yaml", half.into_bytes(), "document 2, line 8, ConfigMap no-version, field apiVersion: missing"),
        ("scalar.yaml", b"just words\n".to_vec(), "not an object"),
        (
            "unknown.yaml",
            map("x").replace("v1\nkind: ConfigMap", "example.com/v1\nkind: Nothing").into_bytes(),
            "the server has no such kind",
        ),
    ];
    let mut said = Vec::new();
    for (name, text, what) in files {
        std::fs::write(folder.join(name), text)?;
        said.push((name, what));
    }
    Ok(said)
}
