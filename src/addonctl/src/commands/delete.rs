//! `delete`: the Addon object is deleted; what follows is the manager's.

use kube::api::{DeleteParams, Preconditions};
use quarterdeck_api::addon::{Addon, names};

use super::wait;
use crate::cli::{DeleteArgs, Goal};
use crate::output::print;
use crate::server::{Server, explain};

pub(super) async fn run(server: &Server, args: &DeleteArgs) -> anyhow::Result<()> {
    let addon = server.find(&args.addon).await?;
    let name = addon.name();
    if let Some(source) = addon.label(names::MIRROR_LABEL) {
        anyhow::bail!("addon {name} only shows an addon of a {source}; remove it there, and it will be uninstalled");
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: addon.metadata.uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    let answer = server.api::<Addon>(Some(addon.namespace())).delete(name, &params).await;
    let answer = answer.map_err(|error| explain(error, &format!("addon {name}")))?;
    let gone = answer.right().is_some();
    print(&format!("addon {name} {}\n", if gone { "deleted" } else { "is being deleted" }))?;
    if args.wait && !gone {
        wait::until(server, &[addon], Goal::Deleted, args.timeout).await?;
    }
    Ok(())
}
