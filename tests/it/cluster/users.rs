//! Users, rights, namespaces.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, PodSpec};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::{Api, ListParams, ObjectMeta, PostParams};
use quarterdeck_it::{Credentials, Launch, eventually, shared};

use super::{LONG, refusal};

fn may_list_config_maps() -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec!["configmaps".to_owned()]),
        verbs: vec!["list".to_owned()],
        ..Default::default()
    }
}

#[tokio::test]
async fn a_user_may_do_what_was_granted_and_nothing_else() {
    let control_plane = shared().await;
    control_plane.namespace("users-a").await.unwrap();
    control_plane.namespace("users-b").await.unwrap();
    let client = control_plane.user("limited", &[]).await.unwrap();
    let list = async |namespace: &str| {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        api.list(&ListParams::default()).await
    };
    assert_eq!(refusal(list("users-a").await), 403);

    control_plane.grant_in("users-a", "limited", &[may_list_config_maps()]).await.unwrap();
    eventually("the right in one namespace", LONG, async || Ok(list("users-a").await?)).await.unwrap();
    assert_eq!(refusal(list("users-b").await), 403);

    control_plane.grant("limited", &[may_list_config_maps()]).await.unwrap();
    eventually("the right in all", LONG, async || Ok(list("users-b").await?)).await.unwrap();
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(client, "users-a");
    assert_eq!(refusal(secrets.list(&ListParams::default()).await), 403);
}

#[tokio::test]
async fn the_server_sees_names_groups_and_tokens() {
    let control_plane = shared().await;
    let who = async |credentials: Credentials| {
        let url = control_plane.apiserver(0).url();
        let client = control_plane.client(url, &credentials).await.unwrap();
        let api: Api<SelfSubjectReview> = Api::all(client);
        let review = SelfSubjectReview::default();
        let answer = api.create(&PostParams::default(), &review).await.unwrap();
        answer.status.unwrap().user_info.unwrap()
    };
    let user = who(Credentials::user("ann", &["crew", "officers"])).await;
    assert_eq!(user.username.as_deref(), Some("ann"));
    assert_eq!(user.groups.unwrap(), ["crew", "officers", "system:authenticated"]);

    control_plane.namespace("tokens").await.unwrap();
    let token = control_plane.token("tokens", "robot").await.unwrap();
    let robot = who(Credentials::Token(token)).await;
    assert_eq!(robot.username.as_deref(), Some("system:serviceaccount:tokens:robot"));

    let url = control_plane.apiserver(0).url();
    let nobody = control_plane.client(url, &Credentials::Anonymous).await.unwrap();
    let api: Api<ConfigMap> = Api::namespaced(nobody, "default");
    assert_eq!(refusal(api.list(&ListParams::default()).await), 403);
}

#[tokio::test]
async fn a_namespace_takes_pods() {
    let control_plane = shared().await;
    control_plane.labelled_namespace("pods", &[("team", "deck")]).await.unwrap();
    // A second time is no error.
    control_plane.namespace("pods").await.unwrap();
    let api: Api<Pod> = Api::namespaced(control_plane.admin().await.unwrap(), "pods");
    let container = Container { name: "main".to_owned(), image: Some("image".to_owned()), ..Default::default() };
    let pod = Pod {
        metadata: ObjectMeta { name: Some("pod".to_owned()), ..Default::default() },
        spec: Some(PodSpec { containers: vec![container], ..Default::default() }),
        ..Default::default()
    };
    api.create(&PostParams::default(), &pod).await.unwrap();
}

#[tokio::test]
async fn kubectl_takes_the_kubeconfig_and_sees_the_version() {
    let control_plane = shared().await;
    let kubeconfig = control_plane.kubeconfig("admin", &["system:masters"]).unwrap();
    let log = control_plane.folder().join("logs/kubectl.log");
    let kubectl = Launch::new("kubectl", control_plane.program("kubectl"))
        .arg("version")
        .env("KUBECONFIG", kubeconfig.display().to_string())
        .log(&log)
        .spawn()
        .unwrap();
    assert!(kubectl.wait(LONG).await.unwrap().success(), "{}", kubectl.log_text());
    let text = kubectl.log_text();
    assert!(text.contains("Server Version: v1.36.3"), "{text}");
    assert!(text.contains("Client Version: v1.36.3"), "{text}");
}
