//! The manifests in `deploy/`, on a real server; what install brings, uninstall takes, and nothing else.

mod helm;
mod kustomize;
mod rendered;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::ApiResource;
use quarterdeck_it::deck::{install, program, uninstall};
use quarterdeck_it::{ControlPlane, repository};
use serde_json::{Value, json};
use tokio::process::Command;

/// Label on everything of ours.
const OURS: &str = "app.kubernetes.io/part-of=quarterdeck";

/// Runs kubectl as an administrator; its output if it ends well.
async fn kubectl(control_plane: &ControlPlane, args: &[&str]) -> Result<String> {
    let output = Command::new(control_plane.program("kubectl"))
        .env("KUBECONFIG", control_plane.admin_kubeconfig()?)
        .env("HOME", control_plane.folder())
        .current_dir(repository())
        .args(args)
        .output()
        .await
        .context("running kubectl")?;
    if !output.status.success() {
        bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The kinds that install brings and uninstall takes.
fn kinds() -> [ApiResource; 8] {
    let kind = |group: &str, kind: &str, plural: &str| ApiResource {
        group: group.to_owned(),
        version: "v1".to_owned(),
        api_version: if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") },
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    [
        kind("rbac.authorization.k8s.io", "ClusterRole", "clusterroles"),
        kind("rbac.authorization.k8s.io", "ClusterRoleBinding", "clusterrolebindings"),
        kind("rbac.authorization.k8s.io", "Role", "roles"),
        kind("rbac.authorization.k8s.io", "RoleBinding", "rolebindings"),
        kind("", "Namespace", "namespaces"),
        kind("flowcontrol.apiserver.k8s.io", "FlowSchema", "flowschemas"),
        kind("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
        kind("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
    ]
}

/// Every object of the kinds that install brings, by `kind namespace/name`, with its uid; those that are being deleted
/// left out.
async fn objects(client: &kube::Client, selector: &str) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for kind in kinds() {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        let mut all = api.list(&ListParams::default().labels(selector)).await?.items;
        all.retain(|object| object.metadata.deletion_timestamp.is_none());
        for object in all {
            let (namespace, name) = (object.metadata.namespace, object.metadata.name);
            let name = format!("{} {}/{}", kind.kind, namespace.unwrap_or_default(), name.unwrap_or_default());
            found.insert(name, object.metadata.uid.unwrap_or_default());
        }
    }
    Ok(found)
}

/// The lines of an installation without those of what stays for ever.
fn passing(output: &str) -> Vec<&str> {
    output.lines().filter(|line| !line.starts_with("customresourcedefinition/")).collect()
}

/// Lets a namespace that is being deleted go, as a namespace controller does when it is empty.
async fn finish(client: &kube::Client, name: &str) -> Result<()> {
    let path = format!("/api/v1/namespaces/{name}");
    let mut namespace: Value = client.request(http::Request::get(&path).body(Vec::new())?).await?;
    namespace["spec"]["finalizers"] = json!([]);
    let request = http::Request::put(format!("{path}/finalize")).header("content-type", "application/json");
    client.request::<Value>(request.body(namespace.to_string().into_bytes())?).await?;
    Ok(())
}

/// The lines of an installation, by what was done: all objects must say the same.
fn all_say(output: &str, what: &str, count: usize) {
    assert_eq!(passing(output).len(), count, "{output}");
    let others = passing(output);
    let others: Vec<_> = others.iter().filter(|line| !line.trim_end_matches(" (dry run)").ends_with(what)).collect();
    assert!(others.is_empty(), "expected all {what}: {others:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn install_and_uninstall_can_be_repeated_and_touch_nothing_else() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let (program, admin) = (program()?, control_plane.admin_kubeconfig()?);
    let client = control_plane.admin().await?;
    let dry_run = ["--dry-run".to_owned()];
    let roles: Api<DynamicObject> = Api::all_with(client.clone(), &kinds()[0]);
    // Somebody else's, under a name that looks like ours.
    let theirs = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": { "name": "quarterdeck:somebody" },
        "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }],
    });
    roles.patch("quarterdeck:somebody", &PatchParams::apply("somebody"), &Patch::Apply(theirs)).await?;
    let before = objects(&client, "").await?;

    let planned = install(&program, &admin, &dry_run).await?;
    let count = passing(&planned).len();
    assert!(planned.contains("clusterrole/quarterdeck:manager created (dry run)"), "{planned}");
    assert_eq!(objects(&client, "").await?, before, "a dry run changed something");

    let first = install(&program, &admin, &[]).await?;
    assert_eq!(planned.replace(" (dry run)", ""), first);
    let installed = objects(&client, OURS).await?;
    assert_eq!(installed.len(), count, "{installed:?}");
    all_say(&install(&program, &admin, &[]).await?, "unchanged", count);
    all_say(&install(&program, &admin, &dry_run).await?, "unchanged", count);
    assert_eq!(objects(&client, OURS).await?, installed);

    // What somebody changed is put back, and said.
    let emptied = Patch::Merge(json!({ "rules": [] }));
    roles.patch("quarterdeck:reader", &PatchParams::default(), &emptied).await?;
    let repaired = install(&program, &admin, &[]).await?;
    let mut configured = passing(&repaired);
    configured.retain(|line| !line.ends_with("unchanged"));
    assert_eq!(configured, ["clusterrole/quarterdeck:reader configured"]);

    all_say(&uninstall(&program, &admin, &dry_run).await?, "deleted", count);
    assert_eq!(objects(&client, OURS).await?, installed, "a dry run changed something");
    let mut audit = control_plane.audit_from_now()?;
    all_say(&uninstall(&program, &admin, &[]).await?, "deleted", count);
    all_say(&uninstall(&program, &admin, &[]).await?, "not found", count);
    assert_eq!(objects(&client, "").await?, before);

    // A binding that is gone while its policy is there leaves a dead informer in the server.
    control_plane.settle_audit().await?;
    let deletes = audit.filter(|event| event.verb == "delete" && event.resource().contains("validatingadmission"))?;
    let order: Vec<_> = deletes.iter().map(quarterdeck_it::audit::Event::resource).collect();
    let kinds =
        ["policies", "policybindings"].map(|kind| format!("validatingadmission{kind}.admissionregistration.k8s.io"));
    assert_eq!(order, kinds);

    // What no longer says that it is ours stays.
    finish(&client, "quarterdeck-replicas").await?;
    install(&program, &admin, &[]).await?;
    let disowned = Patch::Merge(json!({ "metadata": { "labels": { "app.kubernetes.io/part-of": null } } }));
    roles.patch("quarterdeck:reader", &PatchParams::default(), &disowned).await?;
    let output = uninstall(&program, &admin, &[]).await?;
    let mut kept = passing(&output);
    kept.retain(|line| !line.ends_with(" deleted"));
    assert_eq!(kept, ["clusterrole/quarterdeck:reader not found"]);
    roles.get("quarterdeck:reader").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_lease_and_user_get_their_own() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let (program, admin) = (program()?, control_plane.admin_kubeconfig()?);
    let client = control_plane.admin().await?;
    let args = ["--leader-elect-resource-name=second", "--user=somebody", "--addons-cluster-admin=false"];
    let output = install(&program, &admin, &args.map(str::to_owned)).await?;
    for line in ["role/quarterdeck:lease-second", "flowschema/quarterdeck-leader-election-second"] {
        assert!(output.contains(&format!("{line} created")), "{line}: {output}");
    }
    assert!(!output.contains("quarterdeck-addons"), "{output}");
    let bindings: Api<DynamicObject> = Api::all_with(client, &kinds()[1]);
    let binding = bindings.get("quarterdeck:manager").await?;
    assert_eq!(binding.data["subjects"][0]["name"], "somebody");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_gets_a_kubeconfig_of_its_own_and_a_removal_takes_it() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let (program, admin) = (program()?, control_plane.admin_kubeconfig()?);
    let master = tempfile::tempdir()?;
    let group = std::fs::metadata(master.path())?.gid();
    let pki = control_plane.folder().join("pki");
    let mut args = vec![
        format!("--config-dir={}", master.path().join("etc/quarterdeck").display()),
        format!("--state-dir={}", master.path().join("state").display()),
        format!("--config-owner={group}"),
        format!("--cluster-signing-cert-file={}", pki.join("client-ca.crt").display()),
        format!("--cluster-signing-key-file={}", pki.join("client-ca.key").display()),
    ];
    let file = master.path().join("etc/quarterdeck/quarterdeck.conf");
    let first = install(&program, &admin, &args).await?;
    assert!(first.contains(&format!("{} created", file.display())), "{first}");
    let output = Command::new(control_plane.program("kubectl"))
        .args(["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", "--kubeconfig"])
        .arg(&file)
        .output()
        .await?;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "quarterdeck", "{output:?}");
    assert_eq!(std::fs::metadata(&file)?.mode() & 0o777, 0o640);
    let again = install(&program, &admin, &args).await?;
    assert!(again.contains(&format!("{} unchanged", file.display())), "{again}");
    let removed = uninstall(&program, &admin, &args).await?;
    assert!(removed.contains(&format!("{} deleted", file.display())) && !file.exists(), "{removed}");
    // Nothing is brought to the server if this master cannot get what it was asked for.
    args.retain(|arg| !arg.starts_with("--cluster-signing-key-file"));
    args.push("--cluster-signing-key-file=/nowhere/ca.key".to_owned());
    let error = install(&program, &admin, &args).await.err().context("refused")?.to_string();
    assert!(error.contains("/nowhere/ca.key: "), "{error}");
    let left = objects(&control_plane.admin().await?, OURS).await?;
    assert!(!left.contains_key("ClusterRole /quarterdeck:manager"), "{left:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_takes_every_manifest() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    // For real where nothing has to run.
    for folder in ["deploy/base", "deploy/prometheus"] {
        kubectl(&control_plane, &["apply", "-k", folder]).await?;
    }
    let again = kubectl(&control_plane, &["apply", "-k", "deploy/base"]).await?;
    assert!(again.lines().all(|line| line.ends_with("unchanged")), "{again}");

    let pod = dry_run(&control_plane, "-f", "deploy/static-pod/quarterdeck.yaml").await?;
    let [pod] = &pod[..] else { bail!("one pod: {pod:?}") };
    assert_eq!(pod["metadata"]["namespace"], "kube-system");
    assert_eq!(pod["spec"]["hostNetwork"], true);
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    is_hardened(&pod["spec"]);
    starts_with_its_flags(&pod["spec"]).await?;

    let overlay = dry_run(&control_plane, "-k", "deploy/kustomize").await?;
    let find = |kind: &str| overlay.iter().find(|object| object["kind"] == kind).with_context(|| kind.to_owned());
    let deployment = find("Deployment")?;
    assert_eq!(deployment["spec"]["replicas"], 3);
    let template = &deployment["spec"]["template"];
    is_hardened(&template["spec"]);
    starts_with_its_flags(&template["spec"]).await?;
    // Whoever looks for its pods finds them.
    let labels = template["metadata"]["labels"].as_object().context("labels")?;
    let apart = &template["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
    for selector in [
        &deployment["spec"]["selector"]["matchLabels"],
        &find("PodDisruptionBudget")?["spec"]["selector"]["matchLabels"],
        &find("Service")?["spec"]["selector"],
        &apart["labelSelector"]["matchLabels"],
    ] {
        let selector = selector.as_object().context("a selector")?;
        assert!(selector.iter().all(|(key, value)| labels.get(key) == Some(value)), "{selector:?} in {labels:?}");
    }
    // In a cluster the replicas are an account: nothing is left for the kubeconfig's user.
    let account = json!({ "kind": "ServiceAccount", "namespace": "kube-system", "name": "quarterdeck" });
    let bound = overlay.iter().filter(|object| object["subjects"][0] == account).count();
    assert_eq!(bound, 4, "the manager's two bindings, the lease's, and that of the replicas' own");
    let text = serde_json::to_string(&overlay)?;
    assert!(!text.contains(r#""kind":"User""#), "{text}");
    Ok(())
}

/// The objects that the server would make of a file (`-f`) or overlay (`-k`).
async fn dry_run(control_plane: &ControlPlane, form: &str, what: &str) -> Result<Vec<Value>> {
    let args = ["apply", "--dry-run=server", "--validate=strict", "-o", "json", form, what];
    let mut answer: Value = serde_json::from_str(&kubectl(control_plane, &args).await?)?;
    Ok(match answer["items"].take() {
        Value::Array(items) => items,
        _ => vec![answer],
    })
}

/// Neither root nor anything that is not needed.
fn is_hardened(pod: &Value) {
    let own = &pod["securityContext"];
    assert_eq!((&own["runAsNonRoot"], &own["seccompProfile"]["type"]), (&json!(true), &json!("RuntimeDefault")));
    assert!(pod["priorityClassName"].as_str().is_some_and(|class| class.starts_with("system-")), "{pod}");
    let container = &pod["containers"][0];
    let context = &container["securityContext"];
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
    assert!(container["resources"]["requests"]["memory"].is_string());
    let mounts = container["volumeMounts"].as_array().into_iter().flatten();
    let writable: Vec<_> = mounts.filter(|mount| mount["readOnly"] != true).collect();
    assert!(writable.iter().all(|mount| mount["name"] == "state"), "{writable:?}");
    assert_eq!(container["ports"][0]["containerPort"], 10267);
    for (probe, path) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        let get = &container[probe]["httpGet"];
        assert_eq!(
            (&get["scheme"], &get["path"], &get["port"]),
            (&json!("HTTPS"), &json!(path), &json!("https")),
            "{probe}"
        );
    }
}

/// The program gets past its flags: what it lacks here is the cluster.
async fn starts_with_its_flags(pod: &Value) -> Result<()> {
    let mut args: Vec<String> = serde_json::from_value(pod["containers"][0]["command"].clone())?;
    assert_eq!(args.remove(0), "quarterdeck");
    args.retain(|arg| !arg.starts_with("--kubeconfig="));
    args.push("--kubeconfig=/nowhere/quarterdeck.conf".to_owned());
    let output = Command::new(program()?).args(args).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Error: kubeconfig /nowhere/quarterdeck.conf: "), "{said}");
    Ok(())
}

/// What hack/generate would write is what is checked in.
#[tokio::test]
async fn the_generated_files_are_fresh() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(program()?)
        .arg("install")
        .arg(format!("--output-dir={}", folder.path().display()))
        .output()
        .await?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let checked_in = repository().join("deploy/base");
    let names = |folder: &Path| -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    };
    let generated = names(folder.path())?;
    let mut expected = generated.clone();
    expected.push("kustomization.yaml".to_owned());
    expected.sort();
    assert_eq!(names(&checked_in)?, expected);
    for name in generated {
        let text = std::fs::read_to_string(folder.path().join(&name))?;
        assert_eq!(text, std::fs::read_to_string(checked_in.join(&name))?, "{name}: run hack/generate");
        let listed = std::fs::read_to_string(checked_in.join("kustomization.yaml"))?;
        assert!(listed.contains(&format!("- {name}")), "kustomization.yaml lacks {name}");
    }
    Ok(())
}
