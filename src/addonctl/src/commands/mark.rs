//! `pause`, `resume`, `adopt`: an annotation on the Addon.

use kube::api::{Patch, PatchParams};
use quarterdeck_api::addon::{Addon, names};
use serde_json::{Value, json};

use crate::cli::NameArgs;
use crate::output::print;
use crate::server::{MANAGER, Server, explain};

/// What is said about an addon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nothing is to be done about it.
    Pause,
    /// Things are to be done again.
    Resume,
    /// What is there is its installation.
    Adopt,
}

pub(super) async fn run(server: &Server, args: &NameArgs, mark: Mark) -> anyhow::Result<()> {
    let addon = server.find(args).await?;
    let (key, value, done, already) = match mark {
        Mark::Pause => (names::PAUSED_ANNOTATION, Some("true"), "paused", "is paused already"),
        Mark::Resume => (names::PAUSED_ANNOTATION, None, "resumed", "is not paused"),
        Mark::Adopt => (names::ADOPT_ANNOTATION, Some("true"), "to be adopted", "is to be adopted already"),
    };
    anyhow::ensure!(
        mark != Mark::Adopt || !addon.is_mirror(),
        "addon {} shows an addon of another source, which adopts by itself what it names",
        addon.name()
    );
    if addon.annotation(key) == value {
        return print(&format!("addon {} {already}\n", addon.name()));
    }
    annotate(server, &addon, key, value).await?;
    print(&format!("addon {} {done}\n", addon.name()))
}

/// Sets an annotation on the object that was read, or takes it away.
pub(super) async fn annotate(server: &Server, addon: &Addon, key: &str, value: Option<&str>) -> anyhow::Result<()> {
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    // With its uid: an addon that was deleted and made anew meanwhile is another one.
    let patch = json!({"metadata": {
        "uid": addon.metadata.uid,
        "annotations": {key: value.map_or(Value::Null, Value::from)},
    }});
    let api = server.api::<Addon>(Some(addon.namespace()));
    let answer = api.patch(addon.name(), &params, &Patch::Merge(&patch)).await;
    answer.map_err(|error| explain(error, &format!("addon {}", addon.name())))?;
    Ok(())
}
