//! `create` on a server: the addon is made, or brought up to date.

use kube::api::PostParams;
use quarterdeck_api::addon::Addon;

use crate::output::print;
use crate::server::{MANAGER, Server, explain};

pub(super) async fn run(server: &Server, addon: &Addon) -> anyhow::Result<()> {
    let name = addon.name();
    let what = format!("addon {name}");
    let api = server.api::<Addon>(Some(addon.namespace()));
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let live = api.get_opt(name).await.map_err(|error| explain(error, &what))?;
    let done = match live {
        None => {
            api.create(&params, addon).await.map_err(|error| explain(error, &what))?;
            "created"
        }
        Some(live) => {
            anyhow::ensure!(
                !live.is_mirror(),
                "{what} shows an addon of another source; change it there, or choose another name"
            );
            anyhow::ensure!(
                live.spec.pkg_name == addon.spec.pkg_name,
                "{what} exists and is the package {:?}, not {:?}; delete it first, or choose another name",
                live.spec.pkg_name,
                addon.spec.pkg_name
            );
            if live.spec == addon.spec {
                "unchanged"
            } else {
                // With the version that was read: what somebody else changes meanwhile is not lost.
                let wanted = Addon { spec: addon.spec.clone(), status: None, ..live };
                api.replace(name, &params, &wanted).await.map_err(|error| explain(error, &what))?;
                "configured"
            }
        }
    };
    print(&format!("addon.addonmgr.keikoproj.io/{name} {done}\n"))
}
