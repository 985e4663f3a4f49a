//! Whom a replica asks about those who ask it.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use k8s_openapi::api::rbac::v1::PolicyRule;
use quarterdeck_it::{ControlPlane, Deck, eventually};

use super::observe::code;

const PATIENCE: Duration = Duration::from_secs(60);

/// With kubeconfigs of their own for reviews, the replica works as one user and asks as another; until that one may read the
/// cluster's authentication settings, it is not ready and says why.
#[tokio::test(flavor = "multi_thread")]
async fn reviews_are_asked_of_whom_the_flags_name() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let reviewer = control_plane.kubeconfig("reviewer", &[])?;
    let flags = ["authentication", "authorization"].map(|part| format!("--{part}-kubeconfig={}", reviewer.display()));
    let deck = Deck::builder(&control_plane).replicas(1).args(flags).start().await?;
    let replica = deck.replica(0);
    eventually("it says why it is not ready", PATIENCE, || async {
        match replica.get("/readyz?verbose").await {
            Ok(page) => bail!("ready: {page}"),
            Err(error) => {
                let said = format!("{error:#}");
                ensure!(said.contains("[-]authentication") && said.contains("[+]informers"), "{said}");
                Ok(())
            }
        }
    })
    .await?;

    let mut audit = control_plane.audit_from_now()?;
    let settings = PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec!["configmaps".to_owned()]),
        resource_names: Some(vec!["extension-apiserver-authentication".to_owned()]),
        verbs: vec!["get".to_owned()],
        ..PolicyRule::default()
    };
    control_plane.grant_in("kube-system", "reviewer", &[settings]).await?;
    control_plane.bind("reviewer", "system:auth-delegator").await?;
    deck.ready(PATIENCE).await?;
    let token = control_plane.token("kube-system", "default").await?;
    eventually("an account without rights is known", PATIENCE, || async {
        let code = code(&format!("{}/metrics", replica.url()), Some(&token)).await?;
        ensure!(code == "403", "{code}");
        Ok(())
    })
    .await?;
    for resource in ["tokenreviews.", "subjectaccessreviews."] {
        let asked = audit.wait_for(resource, PATIENCE, |event| event.resource().starts_with(resource)).await?;
        assert_eq!(asked.acting_user(), "reviewer", "{resource}");
    }
    Ok(())
}
