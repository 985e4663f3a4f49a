//! The CA and issuer of an addon with `needsPKI` (kops:channels/pkg/channels/addon.go). What is there is
//! left as it is.

use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
pub(super) use quarterdeck_controllers::addon::pki::NAMESPACE;
use quarterdeck_controllers::addon::pki::{Authority, issuer};

use super::read::issuers;
use crate::server::{MANAGER, Server, explain};

/// Version of cert-manager's kinds.
pub(super) const ISSUERS: &str = "v1";

/// Makes what is missing.
pub(super) async fn make(server: &Server, addon: &str) -> anyhow::Result<()> {
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let secret = Authority::new(addon)?.into_secret(addon);
    let made = server.api::<Secret>(Some(NAMESPACE)).create(&params, &secret).await.map(drop);
    unless_there(made, "its CA")?;
    let issuer = issuer(addon, ISSUERS);
    let made = issuers(server).create(&params, &serde_json::from_value(issuer)?).await.map(drop);
    unless_there(made, "its issuer (of cert-manager)")
}

fn unless_there(made: Result<(), kube::Error>, what: &str) -> anyhow::Result<()> {
    match made {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        made => made.map_err(|error| explain(error, what)),
    }
}
