//! Steps of lifecycle templates, carried out on a real kube-apiserver.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use quarterdeck_controllers::addon::kinds::Kinds;
use quarterdeck_controllers::addon::workflow::execute::{self, Observed};
use quarterdeck_controllers::addon::workflow::pod::{self, Attempt};
use quarterdeck_controllers::addon::workflow::program::KnownNodes;
use quarterdeck_controllers::addon::workflow::progress::State;
use quarterdeck_controllers::addon::workflow::{
    AddonFacts, Context, Limits, Node, Outcome, Parameters, Phase, Program, Progress, argo, compile, next, parameters,
};
use quarterdeck_election::{BootClock, Gate};
use quarterdeck_it::{ControlPlane, eventually, shared};
use quarterdeck_runtime::client::{Api, ClientOptions, Clients, Identity, Source};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(120);
const REVISION: &str = "0123456789abcdef";

struct World {
    client: kube::Client,
    api: Api,
    kinds: Kinds,
    addon: AddonFacts,
}

impl World {
    /// A namespace, an Addon in it (of which only the owner references tell), and calls that may do
    /// anything.
    async fn new(control_plane: &ControlPlane, namespace: &str) -> Self {
        control_plane.namespace(namespace).await.unwrap();
        let source = Source::kubeconfig(control_plane.admin_kubeconfig().unwrap());
        let gate = Gate::unelected(Arc::new(BootClock));
        let clients =
            Clients::connect(source, ClientOptions::default(), gate, &prometheus::Registry::new()).await.unwrap();
        let addon = AddonFacts {
            name: "router".into(),
            namespace: namespace.into(),
            uid: "0a1b2c3d-0000-0000-0000-000000000001".into(),
            pkg_name: "router".into(),
            pkg_version: "v1".into(),
            target_namespace: namespace.into(),
            ..AddonFacts::default()
        };
        let client = control_plane.admin().await.unwrap();
        Self { client, api: clients.api(&Identity::Manager), kinds: Kinds::default(), addon }
    }

    fn parameters(&self) -> Parameters {
        parameters(&self.addon).unwrap()
    }

    fn compiled(&self, spec: &str, known: &KnownNodes) -> Program {
        let template = format!("apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec:\n{spec}");
        let context = Context {
            addon: &self.addon,
            workflow_name: "router-install",
            role: None,
            known,
            status: None,
            limits: Limits::default(),
        };
        compile(&template, &self.parameters(), &context).unwrap()
    }

    /// A template that runs one step, given as the fields of a template.
    fn one(&self, step: &str) -> Program {
        self.compiled(&format!("  entrypoint: work\n  templates:\n  - name: work\n{step}"), &KnownNodes::new())
    }

    fn attempt<'a>(&'a self, program: &'a Program, node: &'a Node, number: u32) -> Attempt<'a> {
        Attempt {
            addon: &self.addon,
            phase: "install",
            revision: REVISION,
            node,
            number,
            account: program.account.as_deref(),
            deadline: program.deadline,
        }
    }

    async fn step(&self, program: &Program, marks: &BTreeMap<String, String>) -> Observed {
        let attempt = self.attempt(program, &program.nodes[0], 1);
        execute::step(&self.api, &self.kinds, &attempt, marks.clone()).await.unwrap().unwrap()
    }

    fn objects<K>(&self) -> kube::Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + DeserializeOwned,
    {
        kube::Api::namespaced(self.client.clone(), &self.addon.namespace)
    }

    async fn create<K>(&self, object: Value) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + DeserializeOwned
            + serde::Serialize
            + Clone
            + std::fmt::Debug,
    {
        let object = serde_json::from_value(object).unwrap();
        self.objects().create(&PostParams::default(), &object).await.unwrap()
    }

    /// A kubelet's word on a Pod.
    async fn pod_ends(&self, name: &str, phase: &str, code: i32, message: &str) {
        let terminated =
            json!({"exitCode": code, "reason": "Error", "message": message, "finishedAt": "2026-01-01T00:00:00Z"});
        let container = json!({"name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": terminated}});
        let status = json!({"status": {"phase": phase, "containerStatuses": [container]}});
        let pods = self.objects::<Pod>();
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }
}

fn is_done(observed: &Observed) -> bool {
    matches!(observed, Observed::Ended(Outcome::Succeeded { .. }))
}

fn failure(observed: &Observed) -> &str {
    match observed {
        Observed::Ended(Outcome::Failed { message }) => message,
        other => panic!("{other:?}"),
    }
}

const MAPS: &str = r#"    resource:
      action: delete
      manifest: |
        apiVersion: v1
        kind: ConfigMap
        metadata: {name: one}
        ---
        apiVersion: v1
        kind: ConfigMap
        metadata: {name: missing}
        ---
        apiVersion: novelties.example/v1
        kind: Novelty
        metadata: {name: "{{workflow.parameters.namespace}}"}
"#;

fn map(name: &str, finalizers: &[&str]) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "finalizers": finalizers}})
}

#[tokio::test]
async fn an_object_is_deleted_once_and_waited_for() {
    let world = World::new(shared().await, "workflow-delete").await;
    let program = world.one(MAPS);
    let maps = world.objects::<ConfigMap>();
    world.create::<ConfigMap>(map("one", &["workflow.example/held"])).await;
    let observed = world.step(&program, &BTreeMap::new()).await;
    let Observed::UnderWay { marks, message, .. } = observed else { panic!("{observed:?}") };
    assert_eq!(message, "waiting until they are gone: configmaps workflow-delete/one");
    assert!(maps.get("one").await.unwrap().metadata.deletion_timestamp.is_some());
    // Another process goes on where this one stopped.
    assert!(!is_done(&world.step(&program, &marks).await));
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("one", &PatchParams::default(), &release).await.unwrap();
    eventually("the step ends", LONG, async || match world.step(&program, &marks).await {
        observed if is_done(&observed) => Ok(()),
        other => bail!("{other:?}"),
    })
    .await
    .unwrap();
    // What somebody makes afterwards is another object.
    world.create::<ConfigMap>(map("one", &[])).await;
    assert!(is_done(&world.step(&program, &marks).await));
    assert!(maps.get("one").await.unwrap().metadata.deletion_timestamp.is_none());
    // A new revision knows nothing of that.
    let observed = world.step(&program, &BTreeMap::new()).await;
    assert!(matches!(observed, Observed::UnderWay { .. }), "{observed:?}");
    eventually("it is gone", LONG, async || match maps.get_opt("one").await? {
        Some(left) => bail!("{left:?}"),
        None => Ok(()),
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn fields_of_one_object_are_patched_by_either_strategy() {
    let world = World::new(shared().await, "workflow-patch").await;
    let container = json!({"name": "a", "image": "a", "env": [{"name": "A", "value": "1"}]});
    world
        .create::<Deployment>(json!({"metadata": {"name": "d", "annotations": {"x": "1"}}, "spec": {"paused": true,
            "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}}}}))
        .await;
    let patch = |strategy: &str, name: &str, patch: &str| {
        world.one(&format!("    resource:\n      action: patch\n      mergeStrategy: {strategy}\n      manifest: |\n        apiVersion: apps/v1\n        kind: Deployment\n        metadata: {{name: {name}}}\n        {patch}\n"))
    };
    let more = "spec: {template: {spec: {containers: [{name: a, env: [{name: B, value: '2'}]}]}}}";
    let strategic = patch("strategic", "d", more);
    for _ in 0..2 {
        assert!(is_done(&world.step(&strategic, &BTreeMap::new()).await));
    }
    let merge = patch("merge", "d", "spec: {paused: null}");
    assert!(is_done(&world.step(&merge, &BTreeMap::new()).await));
    let live = json!(world.objects::<Deployment>().get("d").await.unwrap());
    let names: Vec<&str> = live["spec"]["template"]["spec"]["containers"][0]["env"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|variable| variable["name"].as_str())
        .collect();
    assert_eq!((names.len(), names.contains(&"A"), &live["spec"]["paused"]), (2, true, &Value::Null));
    let missing = world.step(&patch("merge", "e", "spec: {paused: true}"), &BTreeMap::new()).await;
    assert_eq!(failure(&missing), "there is no deployments.apps workflow-patch/e to patch");
    let wrong = world.step(&patch("merge", "d", "spec: {replicas: -1}"), &BTreeMap::new()).await;
    assert!(failure(&wrong).contains("must be greater than or equal to 0"), "{wrong:?}");
}

const SCRIPT: &str = r#"    outputs: {parameters: [{name: side, valueFrom: {path: /tmp/side}}]}
    inputs:
      artifacts: [{name: doc, path: /tmp/doc, raw: {data: "for {{workflow.parameters.namespace}}"}}]
    script: {image: i, command: [sh], source: "cat /tmp/doc"}
"#;

#[tokio::test]
async fn a_container_runs_in_one_pod_however_often_it_is_asked_for() {
    let world = World::new(shared().await, "workflow-pod").await;
    let program = world.one(SCRIPT);
    let attempt = world.attempt(&program, &program.nodes[0], 1);
    let name = pod::name(&attempt);
    let none = BTreeMap::new();
    for _ in 0..3 {
        let observed = world.step(&program, &none).await;
        assert!(matches!(observed, Observed::UnderWay { .. }), "{observed:?}");
    }
    let made = world.objects::<Pod>().get(&name).await.unwrap();
    let files = world.objects::<Secret>().get(&name).await.unwrap();
    assert_eq!(files.data.unwrap()["f0"].0, b"for workflow-pod");
    for owners in [&made.metadata.owner_references, &files.metadata.owner_references] {
        assert_eq!(owners.as_ref().unwrap()[0].uid, world.addon.uid);
    }
    assert_eq!(made.spec.as_ref().unwrap().automount_service_account_token, Some(false));
    assert_eq!(world.objects::<Pod>().list(&Default::default()).await.unwrap().items.len(), 1);
    world.pod_ends(&name, "Succeeded", 0, "front\n").await;
    let Observed::Ended(Outcome::Succeeded { outputs, .. }) = world.step(&program, &none).await else { panic!() };
    assert_eq!(outputs, BTreeMap::from([("side".to_owned(), "front".to_owned())]));
    // A Pod that has ended stays when its attempt is given up, and goes when its outcome is recorded.
    execute::stop(&world.api, &attempt).await.unwrap();
    assert!(world.objects::<Pod>().get(&name).await.unwrap().metadata.deletion_timestamp.is_none());
    execute::remove(&world.api, &attempt).await.unwrap();
    eventually("its objects are gone", LONG, async || {
        let left = (world.objects::<Pod>().get_opt(&name).await?, world.objects::<Secret>().get_opt(&name).await?);
        if left.0.is_some() || left.1.is_some() { bail!("{left:?}") } else { Ok(()) }
    })
    .await
    .unwrap();
    execute::remove(&world.api, &attempt).await.unwrap();
}

#[tokio::test]
async fn a_container_that_fails_is_tried_again_in_another_pod() {
    let world = World::new(shared().await, "workflow-retry").await;
    let program = world.one("    container: {image: i, command: [x]}\n");
    let node = &program.nodes[0];
    let mut progress = Progress::new(REVISION);
    let now = jiff::Timestamp::now();
    let first = next(&program, &progress, now);
    progress = first.progress.clone();
    progress.begin(node, now);
    let attempt = world.attempt(&program, node, progress.attempt(node));
    let step = async |attempt: &Attempt<'_>| {
        execute::step(&world.api, &world.kinds, attempt, BTreeMap::new()).await.unwrap().unwrap()
    };
    assert!(matches!(step(&attempt).await, Observed::UnderWay { .. }));
    world.pod_ends(&pod::name(&attempt), "Failed", 3, "boom").await;
    let Observed::Ended(outcome) = step(&attempt).await else { panic!() };
    assert_eq!(outcome, Outcome::Failed { message: "Error (exit code 3): boom".into() });
    progress.end(node, outcome, now);
    let Phase::Failed { message, retry_at } = next(&program, &progress, now).phase else { panic!() };
    assert_eq!(message, "step work: Error (exit code 3): boom");
    let progress = next(&program, &progress, now).progress;
    let again = next(&program, &progress, retry_at);
    assert_eq!(again.start.len(), 1);
    let second = world.attempt(&program, node, again.progress.attempt(node));
    assert!(matches!(step(&second).await, Observed::UnderWay { .. }));
    assert_ne!(pod::name(&attempt), pod::name(&second));
    assert_eq!(world.objects::<Pod>().list(&Default::default()).await.unwrap().items.len(), 2);
    // Given up before it has ended: nothing is left running.
    execute::stop(&world.api, &second).await.unwrap();
    eventually("the Pod is gone", LONG, async || match world.objects::<Pod>().get_opt(&pod::name(&second)).await? {
        Some(left) => bail!("{left:?}"),
        None => Ok(()),
    })
    .await
    .unwrap();
    assert!(world.objects::<Pod>().get_opt(&pod::name(&attempt)).await.unwrap().is_some(), "its log is kept");
    assert_eq!(progress.nodes["work"].state, State::Failed);
}

#[tokio::test]
async fn what_a_pod_may_not_be_is_the_steps_failure() {
    let world = World::new(shared().await, "workflow-refused").await;
    let program = world.one("    serviceAccountName: nobody\n    container: {image: i, command: [x]}\n");
    let refused = world.step(&program, &BTreeMap::new()).await;
    assert!(failure(&refused).contains("service account") && failure(&refused).contains("nobody"), "{refused:?}");
    world.create::<ServiceAccount>(json!({"metadata": {"name": "nobody"}})).await;
    assert!(matches!(world.step(&program, &BTreeMap::new()).await, Observed::UnderWay { .. }));
    let name = pod::name(&world.attempt(&program, &program.nodes[0], 1));
    let pods = world.objects::<Pod>();
    let made = pods.get(&name).await.unwrap();
    assert_eq!(made.spec.unwrap().automount_service_account_token, Some(true));
    // A Pod of that name which another Addon made is left alone.
    let mut foreign = made.metadata.owner_references.unwrap();
    foreign[0].uid = "0a1b2c3d-0000-0000-0000-000000000002".into();
    let patch = json!({"metadata": {"ownerReferences": foreign}});
    pods.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert!(failure(&world.step(&program, &BTreeMap::new()).await).contains("belongs to something else"));
    let attempt = world.attempt(&program, &program.nodes[0], 1);
    execute::stop(&world.api, &attempt).await.unwrap();
    execute::remove(&world.api, &attempt).await.unwrap();
    assert!(pods.get(&name).await.unwrap().metadata.deletion_timestamp.is_none());
}

/// One turn of a program: compiled with what is known, and each step carried on.
async fn turn(world: &World, spec: &str, progress: &mut Progress) -> anyhow::Result<Phase> {
    let program = world.compiled(spec, &progress.known());
    let turn = next(&program, progress, jiff::Timestamp::now());
    *progress = turn.progress.clone();
    for node in turn.start.iter().chain(&turn.running) {
        progress.begin(node, jiff::Timestamp::now());
        let attempt = world.attempt(&program, node, progress.attempt(node));
        match execute::step(&world.api, &world.kinds, &attempt, progress.marks(node)).await? {
            Some(Observed::Ended(outcome)) => progress.end(node, outcome, jiff::Timestamp::now()),
            Some(Observed::UnderWay { message, marks, .. }) => progress.note(node, &message, marks),
            None => bail!("{node:?}"),
        }
    }
    Ok(turn.phase)
}

#[tokio::test]
async fn containers_really_run_read_their_files_and_hand_on_what_they_say() {
    let control_plane = ControlPlane::builder().node().start().await.unwrap();
    let world = World::new(&control_plane, "workflow-real").await;
    let spec = r#"  entrypoint: entry
  templates:
  - name: entry
    steps:
    - - name: flip
        template: flip
        arguments: {artifacts: [{name: doc, raw: {data: "in {{workflow.parameters.namespace}}"}}]}
    - - name: heads
        template: say
        when: "{{steps.flip.outputs.result}} == heads"
        arguments: {parameters: [{name: text, value: "{{steps.flip.outputs.parameters.side}}"}]}
      - {name: tails, template: say, when: "{{steps.flip.outputs.result}} == tails", arguments: {parameters: [{name: text, value: x}]}}
    - - {name: ill, template: ill}
  - name: flip
    inputs: {artifacts: [{name: doc, path: /tmp/doc}]}
    outputs: {parameters: [{name: side, valueFrom: {path: /tmp/side}}]}
    script:
      image: SHELL
      command: [sh, -e]
      source: |
        test "$(cat /tmp/doc)" = "in {{workflow.parameters.namespace}}"
        test ! -e /var/run/secrets/kubernetes.io/serviceaccount/token
        echo front > /tmp/side
        echo heads
  - name: say
    inputs: {parameters: [{name: text}]}
    container: {image: SHELL, command: [sh, -c], args: ["test {{inputs.parameters.text}} = front"]}
  - name: ill
    container: {image: SHELL, command: [sh, -c], args: ["echo first >&2; echo oh no >&2; exit 7"]}
"#;
    let spec = spec.replace("SHELL", quarterdeck_it::Node::SHELL_IMAGE);
    let progress = tokio::sync::Mutex::new(Progress::new(REVISION));
    let message = eventually("the last step fails", LONG, async || {
        let mut progress = progress.lock().await;
        match turn(&world, &spec, &mut progress).await? {
            Phase::Failed { message, .. } => Ok(message),
            phase => bail!("{phase:?}: {progress:?}"),
        }
    })
    .await
    .unwrap();
    assert_eq!(message, "step entry/ill: Error (exit code 7): first\noh no");
    let progress = progress.into_inner();
    let state = |name: &str| progress.nodes[name].state;
    assert_eq!(state("entry/flip"), State::Succeeded);
    assert_eq!(progress.nodes["entry/flip"].outputs["side"], "front");
    assert_eq!(progress.nodes["entry/flip"].result.as_deref(), Some("heads"));
    assert_eq!((state("entry/heads"), state("entry/tails")), (State::Succeeded, State::Skipped));
    assert_eq!(world.objects::<Pod>().list(&Default::default()).await.unwrap().items.len(), 3);
}

fn workflows() -> Value {
    json!({
        "metadata": {"name": "workflows.argoproj.io"},
        "spec": {"group": "argoproj.io", "scope": "Namespaced", "names": {"plural": "workflows", "singular": "workflow", "kind": "Workflow"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]},
    })
}

#[tokio::test]
async fn argo_is_given_one_workflow_and_asked_how_it_stands() {
    let control_plane = ControlPlane::start().await.unwrap();
    let world = World::new(&control_plane, "workflow-argo").await;
    let template = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {entrypoint: a, templates: [{name: a, suspend: {}}]}\n";
    let run = argo::Run { addon: &world.addon, phase: "install", name_prefix: "", revision: REVISION, role: Some("r") };
    let workflow = argo::workflow(template, &world.parameters(), &run).unwrap();
    execute::argo_forget_others(&world.api, &world.addon, REVISION).await.unwrap();
    let unserved = execute::argo(&world.api, &workflow).await.unwrap();
    assert!(failure(&unserved).contains("(code 404)"), "{unserved:?}");
    let crds: kube::Api<CustomResourceDefinition> = kube::Api::all(world.client.clone());
    crds.create(&PostParams::default(), &serde_json::from_value(workflows()).unwrap()).await.unwrap();
    let under_way = |observed: &Observed| matches!(observed, Observed::UnderWay { .. });
    eventually("the Workflow is made", LONG, async || match execute::argo(&world.api, &workflow).await? {
        observed if under_way(&observed) => Ok(()),
        other => bail!("{other:?}"),
    })
    .await
    .unwrap();
    let kind = kube::discovery::ApiResource {
        group: "argoproj.io".into(),
        version: "v1alpha1".into(),
        api_version: "argoproj.io/v1alpha1".into(),
        kind: "Workflow".into(),
        plural: "workflows".into(),
    };
    let all: kube::Api<DynamicObject> = kube::Api::namespaced_with(world.client.clone(), "workflow-argo", &kind);
    let name = argo::name(&run);
    let made = all.get(&name).await.unwrap();
    assert_eq!(made.data["spec"]["serviceAccountName"], "r");
    assert!(under_way(&execute::argo(&world.api, &workflow).await.unwrap()));
    assert_eq!(all.get(&name).await.unwrap().metadata.resource_version, made.metadata.resource_version);
    let ends = async |phase: &str| {
        let status = Patch::Merge(json!({"status": {"phase": phase, "message": "child failed"}}));
        all.patch(&name, &PatchParams::default(), &status).await.unwrap();
        execute::argo(&world.api, &workflow).await.unwrap()
    };
    assert!(under_way(&ends("Running").await));
    execute::argo_again(&world.api, &workflow).await.unwrap();
    assert!(all.get_opt(&name).await.unwrap().is_some(), "one that runs is left alone");
    assert_eq!(failure(&ends("Failed").await), "child failed");
    execute::argo_again(&world.api, &workflow).await.unwrap();
    assert!(under_way(&execute::argo(&world.api, &workflow).await.unwrap()));
    assert_ne!(all.get(&name).await.unwrap().metadata.uid, made.metadata.uid);
    assert!(is_done(&ends("Succeeded").await));
    // Another revision begins with nothing of this one; this one keeps what it has.
    execute::argo_forget_others(&world.api, &world.addon, REVISION).await.unwrap();
    assert!(all.get_opt(&name).await.unwrap().is_some());
    execute::argo_forget_others(&world.api, &world.addon, "fedcba98").await.unwrap();
    assert!(all.get_opt(&name).await.unwrap().is_none());
    assert!(under_way(&execute::argo(&world.api, &workflow).await.unwrap()));
    // The Workflow of an Addon that had the name before says nothing of this one.
    let addon = AddonFacts { uid: "0a1b2c3d-0000-0000-0000-000000000002".into(), ..world.addon.clone() };
    execute::argo_forget_others(&world.api, &addon, "fedcba98").await.unwrap();
    assert!(all.get_opt(&name).await.unwrap().is_some(), "it is not this one's");
    let later = argo::workflow(template, &world.parameters(), &argo::Run { addon: &addon, ..run }).unwrap();
    assert!(under_way(&execute::argo(&world.api, &later).await.unwrap()));
    all.delete(&name, &DeleteParams::default()).await.unwrap();
    assert!(under_way(&execute::argo(&world.api, &later).await.unwrap()));
    assert_eq!(all.get(&name).await.unwrap().metadata.owner_references.unwrap()[0].uid, addon.uid);
}
