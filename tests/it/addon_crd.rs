//! The definition of the Addon on a real server: what it takes and refuses, how kubectl shows it, and
//! how it takes the place of upstream's.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use quarterdeck_api::addon::{
    Addon, AddonSpec, AddonStatus, Health, Held, LifecycleStep, ObservedResource, Phase, Revision, Source,
};
use quarterdeck_it::deck::{install, program, uninstall};
use quarterdeck_it::{ControlPlane, eventually, repository};
use quarterdeck_runtime::object::Kind;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Longest wait for anything.
const LONG: std::time::Duration = std::time::Duration::from_secs(60);
/// Namespace of the tests' Addons.
const NAMESPACE: &str = "addon-manager-system";

/// Runs kubectl as an administrator with a text on its standard input.
async fn kubectl(control_plane: &ControlPlane, args: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new(control_plane.program("kubectl"))
        .env("KUBECONFIG", control_plane.admin_kubeconfig()?)
        .env("HOME", control_plane.folder())
        .current_dir(repository())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("a standard input")?.write_all(input.as_bytes()).await?;
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn definitions(client: &kube::Client) -> Api<DynamicObject> {
    let kind = ApiResource {
        group: "apiextensions.k8s.io".into(),
        version: "v1".into(),
        api_version: "apiextensions.k8s.io/v1".into(),
        kind: "CustomResourceDefinition".into(),
        plural: "customresourcedefinitions".into(),
    };
    Api::all_with(client.clone(), &kind)
}

/// Waits until Addons are served with our schema, by the category that only ours has.
async fn served(client: &kube::Client) -> Result<()> {
    eventually("addons are served", LONG, || async {
        let list = client.list_api_group_resources("addonmgr.keikoproj.io/v1alpha1").await?;
        let own = list.resources.iter().find(|resource| resource.name == "addons").context("no addons")?;
        own.categories.as_ref().filter(|all| all.iter().any(|name| name == "quarterdeck")).context("not ours")?;
        Ok(())
    })
    .await?;
    // The schema is served by the time an object that only it takes is taken.
    let api: Api<Addon> = Api::namespaced(client.clone(), NAMESPACE);
    eventually("our schema is in force", LONG, || async {
        let mut addon = example("probe");
        addon["spec"]["params"]["data"] = json!({"on": true});
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        let made = api.create(&dry_run, &serde_json::from_value(addon)?).await?;
        anyhow::ensure!(!made.spec.params.data.is_empty(), "data was dropped");
        Ok(())
    })
    .await
}

/// What it is about, and how it differs from the example.
type Case<'a> = (&'a str, &'a dyn Fn(&mut Value));

/// A control plane with our definition and the namespace.
async fn world() -> Result<(ControlPlane, kube::Client)> {
    let control_plane = ControlPlane::start().await?;
    control_plane.namespace(NAMESPACE).await?;
    let client = control_plane.admin().await?;
    kubectl(&control_plane, &["apply", "-f", "deploy/crds"], "").await?;
    served(&client).await?;
    Ok((control_plane, client))
}

/// A right Addon.
fn example(name: &str) -> Value {
    json!({
        "apiVersion": "addonmgr.keikoproj.io/v1alpha1", "kind": "Addon",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "pkgName": "core/fluentd", "pkgVersion": "v0.0.1", "pkgType": "composite", "pkgDescription": "d",
            "params": {"namespace": "mynamespace"},
            "lifecycle": {"install": {"template": "kind: Workflow"}},
        },
    })
}

/// The document's example as people paste it, its templates shortened.
const DOCUMENT: &str = r#"
apiVersion: addonmgr.keikoproj.io/v1alpha1
kind: Addon
metadata:
  name: fluentd-addon
  namespace: addon-manager-system
spec:
  pkgName: core/fluentd
  pkgVersion: v0.0.1
  pkgType: composite
  pkgDescription: Fluentd for all.
  pkgDeps:
    argoproj/workflows: v2.2.1
  params:
    namespace: mynamespace
    clusterContext:
      clusterName: "my-test-cluster"
      clusterRegion: "us-west-2"
    data:
      hec_splunk_server: hec.splunk.example.com
  selector:
    matchLabels:
      app.kubernetes.io/name: fluentd
      app.kubernetes.io/version: "1.0.0"
  lifecycle:
    prereqs: &step
      template: |
        apiVersion: argoproj.io/v1alpha1
        kind: Workflow
    install: *step
    delete: *step
    validate: *step
"#;

/// An Addon without templates, as upstream registers Argo.
const WITHOUT_TEMPLATES: &str = r#"
apiVersion: addonmgr.keikoproj.io/v1alpha1
kind: Addon
metadata:
  name: argo-addon
  namespace: addon-manager-system
spec:
  pkgName: addon-argo-workflow
  pkgVersion: v2.11.5
  pkgType: composite
  pkgDescription: "Workflows."
  params:
    namespace: addon-manager-system
  selector:
    matchLabels:
      app.kubernetes.io/name: addon-manager-argo-addon
"#;

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_what_is_right_and_refuses_the_rest_by_field() -> Result<()> {
    let (control_plane, client) = world().await?;
    for text in [DOCUMENT, WITHOUT_TEMPLATES] {
        // Strict: nothing of it is unknown.
        kubectl(&control_plane, &["apply", "--validate=strict", "-f", "-"], text).await?;
    }
    let api: Api<Addon> = Api::namespaced(client.clone(), NAMESPACE);
    let document = api.get("fluentd-addon").await?;
    assert_eq!(document.spec.parameters()?["clusterRegion"], "us-west-2");
    assert_eq!(document.problems(), []);
    for step in LifecycleStep::ALL {
        assert!(document.spec.step(step).is_some(), "{step}");
    }

    let kind = Kind::of::<Addon>();
    assert_eq!(kind.path(Some("a")), "/apis/addonmgr.keikoproj.io/v1alpha1/namespaces/a/addons");
    let raw: Api<DynamicObject> = Api::namespaced_with(client, NAMESPACE, &ApiResource::erase::<Addon>(&()));
    let try_it = async |edit: &dyn Fn(&mut Value)| -> Result<()> {
        let mut addon = example("a");
        edit(&mut addon);
        let params = PostParams { dry_run: true, ..PostParams::default() };
        raw.create(&params, &serde_json::from_value(addon)?).await?;
        Ok(())
    };
    let right: &[Case<'_>] = &[
        ("as it is", &|_| {}),
        ("31 characters", &|addon| addon["metadata"]["name"] = json!("n".repeat(31))),
        ("a long mirror of a directory", &|addon| {
            addon["metadata"]["name"] = json!("n".repeat(60));
            addon["spec"]["pkgType"] = json!("directory");
            addon["spec"]["params"] = json!({});
        }),
        ("values that are no strings", &|addon| {
            addon["spec"]["params"]["data"] = json!({"on": true, "count": 3, "text": "x", "empty": ""});
            addon["spec"]["params"]["context"] = json!({"additionalConfigs": {"az": 2, "on": false}});
        }),
        ("both spellings that agree", &|addon| {
            addon["spec"]["params"]["context"] = json!({"clusterName": "c"});
            addon["spec"]["params"]["clusterContext"] = json!({"clusterName": "c", "clusterRegion": "r"});
        }),
        ("what a Go client writes for absent parts", &|addon| {
            addon["spec"]["params"]["context"] = json!({});
            addon["spec"]["selector"] = json!({});
            addon["spec"]["overrides"] = json!({"kustomize": {"overlay": {}}});
            addon["spec"]["lifecycle"]["delete"] = json!({"template": ""});
        }),
        ("overrides and secrets", &|addon| {
            addon["spec"]["overrides"] = json!({
                "kustomize": {
                    "labels": {"a": "b"}, "annotations": {"a": "b"}, "resources": ["Service"],
                    "overlay": {"template": {"x": "y"}},
                },
                "template": {"x": "y"},
            });
            addon["spec"]["secrets"] = json!([{"name": "s", "cmd": 1, "args": ["a"]}, {"name": "t"}]);
        }),
        ("a prefix of ten", &|addon| addon["spec"]["lifecycle"]["install"]["namePrefix"] = json!("1234567890")),
    ];
    for (what, edit) in right {
        try_it(edit).await.with_context(|| (*what).to_owned())?;
    }
    let wrong: &[Case<'_>] = &[
        ("metadata.name may have 31 characters", &|addon| addon["metadata"]["name"] = json!("n".repeat(32))),
        ("params.namespace must be set", &|addon| addon["spec"]["params"] = json!({"data": {}})),
        ("spec.params.namespace", &|addon| addon["spec"]["params"]["namespace"] = json!("")),
        ("spec.pkgName", &|addon| addon["spec"]["pkgName"] = json!("")),
        ("spec.pkgVersion: Required", &|addon| drop(addon["spec"].as_object_mut().unwrap().remove("pkgVersion"))),
        ("spec.pkgDeps: Invalid value: a package cannot depend on itself", &|addon| {
            addon["spec"]["pkgDeps"] = json!({"core/fluentd": "*"});
        }),
        ("spec.lifecycle.install.namePrefix", &|addon| {
            addon["spec"]["lifecycle"]["install"]["namePrefix"] = json!("12345678901");
        }),
        ("spec.lifecycle.validate.template: Required", &|addon| {
            addon["spec"]["lifecycle"]["validate"] = json!({"role": "r"});
        }),
        ("spec.secrets[0].cmd", &|addon| addon["spec"]["secrets"] = json!([{"name": "s", "cmd": 2}])),
        ("spec.secrets[0].name: Required", &|addon| addon["spec"]["secrets"] = json!([{"cmd": 1}])),
        ("spec.params.clusterContext: Invalid value: clusterRegion differs", &|addon| {
            addon["spec"]["params"]["context"] = json!({"clusterRegion": "a"});
            addon["spec"]["params"]["clusterContext"] = json!({"clusterRegion": "b"});
        }),
        ("spec.params.data.x", &|addon| addon["spec"]["params"]["data"] = json!({"x": {"a": 1}})),
        ("spec.params.data.x", &|addon| addon["spec"]["params"]["data"] = json!({"x": [1]})),
        ("spec.params.data.x", &|addon| addon["spec"]["params"]["data"] = json!({"x": 1.5})),
        ("spec.params.clusterContext.additionalConfigs.x", &|addon| {
            addon["spec"]["params"]["clusterContext"] = json!({"additionalConfigs": {"x": [1]}});
        }),
    ];
    for (reason, edit) in wrong {
        let error = try_it(edit).await.expect_err(reason).to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }

    is_listed(&control_plane).await?;
    holds_every_field(&api).await
}

/// kubectl finds Addons by their short name and category, and shows the columns.
async fn is_listed(control_plane: &ControlPlane) -> Result<()> {
    let columns = |text: &str| -> Vec<String> {
        text.lines().next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let all = kubectl(control_plane, &["get", "addons", "-A"], "").await?;
    assert_eq!(
        columns(&all),
        ["NAMESPACE", "NAME", "PACKAGE", "VERSION", "STATUS", "HEALTH", "REASON", "AGE"],
        "{all}"
    );
    assert!(all.contains("core/fluentd"), "{all}");
    let wide = kubectl(control_plane, &["get", "ad", "-n", NAMESPACE, "-o", "wide"], "").await?;
    let more = ["SOURCE", "APPLIED", "OBJECTS", "DRIFT"];
    assert!(columns(&wide).ends_with(&more.map(str::to_owned)), "{wide}");
    assert!(kubectl(control_plane, &["get", "quarterdeck", "-A"], "").await?.contains("argo-addon"));
    // Nobody else has the short name.
    let resources = kubectl(control_plane, &["api-resources", "--no-headers"], "").await?;
    let named = |line: &&str| line.split_whitespace().nth(1).is_some_and(|names| names.split(',').any(|n| n == "ad"));
    let holders: Vec<_> = resources.lines().filter(named).collect();
    assert_eq!(holders.len(), 1, "{holders:?}");
    let explained = kubectl(control_plane, &["explain", "addon.spec.lifecycle.validate"], "").await?;
    let words = explained.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("the addon has succeeded when this has"), "{explained}");
    Ok(())
}

/// Whatever the types can write, the server keeps.
async fn holds_every_field(api: &Api<Addon>) -> Result<()> {
    let time = serde_json::from_value(json!("2024-05-06T07:08:09Z"))?;
    let wanted = AddonStatus {
        checksum: "c".into(),
        lifecycle: serde_json::from_value(json!({"prereqs": "Succeeded", "installed": "Validation Failed"}))?,
        resources: vec![ObservedResource {
            link: "l".into(),
            name: "n".into(),
            namespace: "ns".into(),
            kind: "k".into(),
            group: "g".into(),
            status: "Ready".into(),
        }],
        reason: "r".into(),
        starttime: 1_700_000_000_000,
        observed_generation: Some(3),
        conditions: serde_json::from_value(json!([{
            "type": "Ready", "status": "True", "reason": "Fine", "message": "m", "observedGeneration": 3,
            "lastTransitionTime": "2024-05-06T07:08:09Z",
        }]))?,
        health: Some(Health::Held),
        version: "v1".into(),
        source: Some(Source::Addon),
        objects: Some(2),
        drift: Some(5),
        last_drift: Some(time),
        held: Some(Held { plan: "p".into(), reason: "r".into(), members: vec!["A/b/c".into()], release: "x".into() }),
        inventory: vec!["ConfigMap/a/b u".into()],
        revisions: vec![serde_json::from_value::<Revision>(json!({
            "hash": "h", "version": "v", "time": "2024-05-06T07:08:09Z", "state": "good",
        }))?],
        progress: Some(json!({"install": {"any": [{"thing": 1}]}})),
        errors: vec!["e".into()],
        not_managed: vec!["Pod/a/b".into()],
        resources_omitted: 3,
    };
    let body = json!({"apiVersion": "addonmgr.keikoproj.io/v1alpha1", "kind": "Addon", "status": wanted});
    let params = PatchParams { field_validation: Some(kube::api::ValidationDirective::Strict), ..Default::default() };
    let written = api.patch_status("argo-addon", &params, &Patch::Merge(&body)).await?;
    assert_eq!(written.status.as_ref(), Some(&wanted));
    assert_eq!(written.phase(), Phase::ValidationFailed);

    let full: AddonSpec = serde_json::from_value(json!({
        "pkgName": "n", "pkgVersion": "v", "pkgType": "composite", "pkgDescription": "d", "pkgChannel": "c",
        "pkgDeps": {"a": "*"},
        "params": {
            "namespace": "n", "context": {"clusterName": "c", "clusterRegion": "r", "additionalConfigs": {"a": "b"}},
            "clusterContext": {"clusterName": "c", "clusterRegion": "r", "additionalConfigs": {"a": "b"}},
            "data": {"a": 1},
        },
        "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
        "overrides": {
            "kustomize": {
                "labels": {"a": "b"}, "annotations": {"a": "b"}, "resources": ["a"],
                "overlay": {"template": {"a": "b"}},
            },
            "template": {"a": "b"},
        },
        "secrets": [{"name": "a", "cmd": 1, "args": ["a"]}],
        "lifecycle": {
            "prereqs": {"namePrefix": "a", "role": "b", "workflowRole": "c", "template": "d"},
            "install": {"template": "d"}, "delete": {"template": "d"}, "validate": {"template": "d"},
        },
    }))?;
    let addon = Addon {
        metadata: kube::api::ObjectMeta { name: Some("full".into()), ..Default::default() },
        spec: full,
        status: None,
    };
    assert_eq!(api.create(&PostParams::default(), &addon).await?.spec, addon.spec);
    Ok(())
}

/// A definition as upstream's: no rules of ours, values of parameters are strings, the status has
/// required fields.
fn upstreams() -> Value {
    let open = json!({"type": "object", "additionalProperties": {"type": "string"}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "addons.addonmgr.keikoproj.io", "annotations": {"theirs": "kept"}},
        "spec": {
            "group": "addonmgr.keikoproj.io", "scope": "Namespaced",
            "names": {"kind": "Addon", "listKind": "AddonList", "plural": "addons", "singular": "addon"},
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {
                        "type": "object", "required": ["pkgName", "pkgVersion", "pkgType", "pkgDescription"],
                        "properties": {
                            "pkgName": {"type": "string"}, "pkgVersion": {"type": "string"},
                            "pkgType": {"type": "string"}, "pkgDescription": {"type": "string"}, "pkgDeps": open,
                            "params": {"type": "object", "properties": {"namespace": {"type": "string"}, "data": open}},
                            "secrets": {"type": "array", "items": {"type": "object", "properties": {
                                "name": {"type": "string"}, "cmd": {"type": "integer"},
                            }}},
                        },
                    },
                    "status": {
                        "type": "object", "required": ["checksum", "reason"],
                        "properties": {"checksum": {"type": "string"}, "reason": {"type": "string"}},
                    },
                }}},
            }],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_the_place_of_upstreams_and_keeps_its_objects() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    control_plane.namespace(NAMESPACE).await?;
    let client = control_plane.admin().await?;
    let definitions = definitions(&client);
    definitions.create(&PostParams::default(), &serde_json::from_value(upstreams())?).await?;
    let api: Api<Addon> = Api::namespaced(client.clone(), NAMESPACE);
    eventually("upstream's addons are served", LONG, || async { Ok(api.list(&ListParams::default()).await?) }).await?;

    // Objects that our rules would refuse today.
    let old_name = "n".repeat(40);
    let mut long = example(&old_name);
    long["spec"] = json!({
        "pkgName": "a", "pkgVersion": "", "pkgType": "composite", "pkgDescription": "", "pkgDeps": {"a": "*"},
        "secrets": [{"cmd": 7}],
    });
    api.create(&PostParams::default(), &serde_json::from_value(long)?).await?;
    let status = json!({"status": {"checksum": "5d3c2a1f", "reason": ""}});
    api.patch_status(&old_name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    let uid = api.get(&old_name).await?.metadata.uid;

    let (program, admin) = (program()?, control_plane.admin_kubeconfig()?);
    let line = |output: &str| output.lines().find(|line| line.starts_with("customresource")).unwrap().to_owned();
    let label = "customresourcedefinition/addons.addonmgr.keikoproj.io";
    let dry_run = ["--dry-run".to_owned()];
    assert_eq!(line(&install(&program, &admin, &dry_run).await?), format!("{label} configured (dry run)"));
    assert_eq!(line(&install(&program, &admin, &[]).await?), format!("{label} configured"));
    served(&client).await?;
    assert_eq!(line(&install(&program, &admin, &[]).await?), format!("{label} unchanged"));
    assert_eq!(line(&install(&program, &admin, &dry_run).await?), format!("{label} unchanged (dry run)"));
    let definition = definitions.get("addons.addonmgr.keikoproj.io").await?;
    assert_eq!(definition.metadata.annotations.unwrap()["theirs"], "kept");
    let schema = &definition.data["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    assert!(schema["status"].get("required").is_none(), "a rule of upstream's is left");
    assert!(schema["spec"]["properties"]["params"]["properties"]["data"]["additionalProperties"].get("type").is_none());

    // Their labels, status and finalizers can still be written: what was wrong before is not asked again.
    let own = AddonStatus { health: Some(Health::Degraded), ..AddonStatus::default() };
    api.patch_status(&old_name, &PatchParams::default(), &Patch::Merge(json!({"status": own}))).await?;
    let edit = json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["delete.addonmgr.keikoproj.io"]}});
    api.patch(&old_name, &PatchParams::default(), &Patch::Merge(&edit)).await?;
    let edit = json!({"metadata": {"finalizers": []}});
    api.patch(&old_name, &PatchParams::default(), &Patch::Merge(&edit)).await?;
    // What is changed is.
    let edit = json!({"spec": {"pkgVersion": "1", "pkgDeps": {"a": "1"}}});
    let error = api.patch(&old_name, &PatchParams::default(), &Patch::Merge(&edit)).await.expect_err("a wrong change");
    assert!(error.to_string().contains("cannot depend on itself"), "{error}");

    let said = line(&uninstall(&program, &admin, &[]).await?);
    assert_eq!(said, format!("{label} kept (all its objects would be deleted with it)"));
    assert_eq!(api.get(&old_name).await?.metadata.uid, uid);
    Ok(())
}
