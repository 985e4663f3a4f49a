//! The example of a manager of one's own, run as its user would run it.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use quarterdeck_it::{ControlPlane, Launch, deck, eventually, repository};
use serde_json::json;
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_account_becomes_a_namespace_with_its_rights_and_limits() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let (program, admin) = (deck::program_named("account-manager")?, control_plane.admin_kubeconfig()?);
    let crd = repository().join("examples/account-manager/crd.yaml");
    let kubectl = Command::new(control_plane.program("kubectl"))
        .args(["apply", "-f"])
        .arg(&crd)
        .arg(format!("--kubeconfig={}", admin.display()))
        .output()
        .await?;
    ensure!(kubectl.status.success(), "{}", String::from_utf8_lossy(&kubectl.stderr));
    deck::install(&program, &admin, &[]).await?;
    let kubeconfig = control_plane.kubeconfig(deck::USER, &[])?;
    let log = control_plane.folder().join("account-manager.log");
    let flags = [format!("--kubeconfig={}", kubeconfig.display()), "--secure-port=0".to_owned()];
    let process = Launch::new("account-manager", &program).args(flags).log(&log).spawn()?;

    let client = control_plane.admin().await?;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("accounts.example.com", "v1", "Account"));
    let accounts: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    let account = |members: &[&str]| {
        Patch::Apply(json!({
            "apiVersion": "accounts.example.com/v1", "kind": "Account", "metadata": { "name": "ship" },
            "spec": { "members": members, "quota": { "pods": "3" } },
        }))
    };
    let mine = PatchParams::apply("test").force();
    eventually("the kind is served", PATIENCE, || async {
        Ok(accounts.patch("ship", &mine, &account(&["ann"])).await.map(drop)?)
    })
    .await?;
    let ready = || async {
        let live = accounts.get("ship").await?;
        if live.data["status"]["ready"] == true { Ok(()) } else { bail!("{}", live.data["status"]) }
    };
    eventually("the account is ready", PATIENCE, ready).await.map_err(|e| e.context(process.log_text()))?;
    Api::<Namespace>::all(client.clone()).get("ship").await?;
    let quota = Api::<ResourceQuota>::namespaced(client.clone(), "ship").get("account").await?;
    assert_eq!(quota.spec.and_then(|spec| spec.hard).map(|hard| hard["pods"].0.clone()).as_deref(), Some("3"));

    accounts.patch("ship", &mine, &account(&["ann", "bob"])).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(client, "ship");
    eventually("the new member has rights", PATIENCE, || async {
        let names: Vec<_> = bindings.get("account").await?.subjects.into_iter().flatten().map(|s| s.name).collect();
        if names == ["ann", "bob"] { Ok(()) } else { bail!("{names:?}") }
    })
    .await
}
