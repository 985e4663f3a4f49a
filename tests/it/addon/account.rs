//! An account with fewer rights than its addons want: what is forbidden is told, the rest goes on.

use anyhow::bail;
use http::Method;
use k8s_openapi::api::rbac::v1::PolicyRule;
use quarterdeck_it::deck::Demo;
use quarterdeck_it::{ControlPlane, eventually};
use serde_json::json;

use super::{LONG, Terms, World, at, map};

const KEEPER: &str = "system:serviceaccount:harbour:keeper";
const OWN: &str = "system:serviceaccount:kube-system:quarterdeck-addons";
const ADMIN_BINDING: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/quarterdeck:quarterdeck-addons";
const BOTH: &str = "addon-controller,endpointslice-controller";

/// ConfigMaps and events, as the parents of addons need them.
fn maps() -> [PolicyRule; 2] {
    let rule = |resource: &str, verbs: &[&str]| PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec![resource.to_owned()]),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        ..PolicyRule::default()
    };
    [rule("configmaps", &["get", "list", "watch", "create", "patch", "delete"]), rule("events", &["create", "patch"])]
}

fn in_harbour(name: &str) -> String {
    format!("/api/v1/namespaces/harbour/configmaps/{name}")
}

fn map_in(namespace: &str, name: &str, value: &str) -> String {
    map(name, "Reconcile", value).replace("  labels", &format!("  namespace: {namespace}\n  labels"))
}

fn object(kind: &str, metadata: &str, rest: &str) -> String {
    format!("{kind}\nmetadata: {{{metadata}, labels: {{addonmanager.kubernetes.io/mode: Reconcile}}}}\n{rest}\n")
}

/// Waits until a controller of the first replica is in this state; returns the reason.
async fn state(world: &World, controller: &str, state: &str) -> String {
    eventually(&format!("{controller} is {state}"), LONG, async || {
        let status = world.deck.replica(0).status().await?;
        match status.controller(controller) {
            Some(now) if now == state => Ok(status.reason(controller).unwrap_or_default().to_owned()),
            other => bail!("{other:?}: {:?}", status.reason(controller)),
        }
    })
    .await
    .unwrap()
}

/// A service and its pod get their slice, whatever addons may not do.
async fn endpoints_work(world: &World) {
    let demo = Demo::new(world.client.clone(), "shop");
    demo.node("n", "z").await.unwrap();
    demo.service("web").await.unwrap();
    demo.pod("web-0", "web", "n", "10.0.0.1").await.unwrap();
    eventually("the pod is an endpoint", LONG, async || {
        let found = demo.endpoints("web").await?;
        if found == [("10.0.0.1".to_owned(), true)] { Ok(()) } else { bail!("{found:?}") }
    })
    .await
    .unwrap();
    demo.ready("web-0", false).await.unwrap();
    eventually("the pod is not ready", LONG, async || {
        let found = demo.endpoints("web").await?;
        if found == [("10.0.0.1".to_owned(), false)] { Ok(()) } else { bail!("{found:?}") }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_narrowed_account_does_what_it_may() {
    let control_plane = ControlPlane::start().await.unwrap();
    for namespace in ["harbour", "shop"] {
        control_plane.namespace(namespace).await.unwrap();
    }
    for namespace in ["kube-system", "harbour"] {
        control_plane.grant_in(namespace, KEEPER, &maps()).await.unwrap();
    }
    let flag = ["--addon-service-account=harbour/keeper"];
    let terms = Terms { controllers: BOTH, args: &flag, install: &flag, ..Terms::default() };
    let world = World::with(control_plane, terms).await;
    assert_eq!(world.get(ADMIN_BINDING).await.unwrap(), None, "an account that is named is no administrator");

    let documents = [
        map_in("harbour", "good", "v"),
        map_in("default", "refused", "v"),
        object("apiVersion: v1\nkind: Secret", "name: hidden, namespace: harbour", "stringData: {k: v}"),
        object(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole",
            "name: power",
            "rules: [{apiGroups: ['*'], resources: ['*'], verbs: ['*']}]",
        ),
        // Kinds that another controller reads, and writes.
        object("apiVersion: v1\nkind: Service", "name: web, namespace: shop", "spec: {ports: [{port: 80}]}"),
        object("apiVersion: v1\nkind: Pod", "name: bare, namespace: shop", "spec: {containers: [{name: c, image: i}]}"),
        object(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice",
            "name: manual, namespace: shop",
            "addressType: IPv4\nendpoints: []",
        ),
    ];
    world.write("mixed.yaml", &documents.join("---\n"));
    world.write("other.yaml", &map_in("harbour", "other", "v"));
    world.until_there(&in_harbour("good")).await;
    world.until_there(&in_harbour("other")).await;
    for words in [
        ["document 2", "ConfigMap/default/refused", "cannot get resource \"configmaps\""],
        ["document 3", "Secret/harbour/hidden", "cannot get resource \"secrets\""],
        ["document 4", "ClusterRole.rbac.authorization.k8s.io//power", "cannot get resource \"clusterroles\""],
        ["document 5", "Service/shop/web", "cannot get resource \"services\""],
        ["document 6", "Pod/shop/bare", "cannot get resource \"pods\""],
        ["document 7", "EndpointSlice.discovery.k8s.io/shop/manual", "cannot get resource \"endpointslices\""],
    ] {
        let errors = world.until_error("mixed.yaml", &words).await;
        assert!(!errors.contains("good"), "{errors}");
    }
    world.parent("other.yaml", "ready").await;

    // Changes are seen although the account may watch one namespace only.
    world
        .kubectl(&["-n", "harbour", "patch", "configmap", "good", "--type=merge", "-p", r#"{"data":{"k":"w"}}"#])
        .await;
    world.until(&in_harbour("good"), "it is put back", |object| object["data"] == json!({"k": "v"})).await;
    let uid = world.until_there(&in_harbour("other")).await["metadata"]["uid"].clone();
    world.kubectl(&["-n", "harbour", "delete", "configmap", "other"]).await;
    world.until(&in_harbour("other"), "it is made anew", |object| object["metadata"]["uid"] != uid).await;
    world.remove("other.yaml");
    world.until_gone(&in_harbour("other")).await;

    // Nobody else waits for what this account may not read.
    endpoints_work(&world).await;
    state(&world, "endpointslice-controller", "running").await;
    state(&world, "addon-controller", "running").await;
    world.control_plane.settle_audit().await.unwrap();
    let own = world.control_plane.audit().filter(|event| event.acting_user() == OWN).unwrap();
    assert!(own.is_empty(), "{own:#?}");
}

#[tokio::test]
async fn without_its_inventories_the_controller_is_blocked_and_says_why() {
    let control_plane = ControlPlane::start().await.unwrap();
    control_plane.namespace("shop").await.unwrap();
    let terms = Terms { controllers: BOTH, install: &["--addons-cluster-admin=false"], ..Terms::default() };
    let world = World::with(control_plane, terms).await;
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    let reason = state(&world, "addon-controller", "blocked").await;
    assert!(reason.contains("configmaps") && reason.contains("quarterdeck-addons"), "{reason}");
    endpoints_work(&world).await;
    assert_eq!(world.get(&at("x")).await.unwrap(), None);
    // With inventories that cannot be written nothing is applied, and the addon is known to fail.
    let [all, events] = maps();
    let read = PolicyRule { verbs: ["get", "list", "watch"].map(str::to_owned).to_vec(), ..all.clone() };
    world.control_plane.grant_in("kube-system", OWN, &[read, events]).await.unwrap();
    world.control_plane.grant_in("default", OWN, &[all]).await.unwrap();
    state(&world, "addon-controller", "running").await;
    eventually("the addon is degraded", LONG, async || {
        let labels = [("addon", "x.yaml"), ("state", "degraded")];
        world.deck.replica(0).metric("quarterdeck_addon_failing", &labels).await
    })
    .await
    .unwrap();
    assert_eq!(world.get(&at("x")).await.unwrap(), None);
    world.control_plane.bind(OWN, "cluster-admin").await.unwrap();
    world.until_there(&at("x")).await;
    world.parent("x.yaml", "ready").await;
}

#[tokio::test]
async fn rights_that_go_and_come_back() {
    let world = World::start(&[]).await;
    world.control_plane.grant_in("kube-system", OWN, &maps()).await.unwrap();
    world.write("x.yaml", &map("x", "Reconcile", "v"));
    world.write("lost.yaml", &map("lost", "Reconcile", "v"));
    world.write("beside.yaml", &map_in("kube-system", "beside", "v"));
    for file in ["x.yaml", "lost.yaml", "beside.yaml"] {
        world.parent(file, "ready").await;
    }

    world.kubectl(&["delete", "clusterrolebinding", "quarterdeck:quarterdeck-addons"]).await;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": OWN, "resourceAttributes": {"verb": "get", "resource": "configmaps", "namespace": "default"}},
    });
    eventually("the server knows that the rights are gone", LONG, async || {
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer = world.send(Method::POST, path, "application/json", &review).await?;
        if answer["status"]["allowed"] == false { Ok(()) } else { bail!("{}", answer["status"]) }
    })
    .await
    .unwrap();
    world.write("x.yaml", &map("x", "Reconcile", "w"));
    world.kubectl(&["delete", "configmap", "lost"]).await;
    world.until_error("x.yaml", &["ConfigMap/default/x", "cannot get resource \"configmaps\"", "code 403"]).await;
    world.until_error("lost.yaml", &["ConfigMap/default/lost", "cannot get resource \"configmaps\"", "code 403"]).await;
    assert_eq!(world.until_there(&at("x")).await["data"]["k"], "v");
    // What is still allowed goes on; what is not is not forgotten.
    world.write("beside.yaml", &map_in("kube-system", "beside", "w"));
    let beside = "/api/v1/namespaces/kube-system/configmaps/beside";
    world.until(beside, "it is applied", |object| object["data"]["k"] == "w").await;
    world.parent("beside.yaml", "ready").await;
    world.until_error("lost.yaml", &["ConfigMap/default/lost"]).await;
    let inventory = world.parent("lost.yaml", "degraded").await["data"]["inventory"].clone();
    assert!(inventory.as_str().unwrap().contains("ConfigMap/default/lost"), "{inventory}");
    state(&world, "addon-controller", "running").await;

    world.control_plane.bind(OWN, "cluster-admin").await.unwrap();
    world.until(&at("x"), "the file is applied", |object| object["data"]["k"] == "w").await;
    world.until_there(&at("lost")).await;
    for file in ["x.yaml", "lost.yaml", "beside.yaml"] {
        world.parent(file, "ready").await;
    }
}
