//! `rollback`: back to a revision that is kept.

use anyhow::{Context as _, ensure};
use quarterdeck_api::addon::{Addon, Revision, names};

use super::mark::annotate;
use crate::cli::RollbackArgs;
use crate::output::print;
use crate::server::Server;

pub(super) async fn run(server: &Server, args: &RollbackArgs) -> anyhow::Result<()> {
    let addon = server.find(&args.addon).await?;
    let revision = choose(&addon, args.to.as_deref())?;
    annotate(server, &addon, names::ROLLBACK_ANNOTATION, Some(&revision.hash)).await?;
    let version = if revision.version.is_empty() { String::new() } else { format!(" ({})", revision.version) };
    print(&format!("addon {} to be rolled back to {}{version}\n", addon.name(), revision.hash))
}

/// The revision that is meant: by the beginning of its hash, or the newest before the present one that
/// was not bad.
fn choose<'a>(addon: &'a Addon, to: Option<&str>) -> anyhow::Result<&'a Revision> {
    let revisions = addon.status.as_ref().map_or(&[][..], |status| &status.revisions);
    ensure!(!revisions.is_empty(), "addon {} has no revisions to go back to", addon.name());
    let all = || revisions.iter().map(|revision| revision.hash.as_str()).collect::<Vec<_>>().join(", ");
    match to {
        Some(hash) => {
            let found: Vec<_> = revisions.iter().filter(|revision| revision.hash.starts_with(hash)).collect();
            match found[..] {
                [revision] if !hash.is_empty() => Ok(revision),
                _ => anyhow::bail!("--to={hash}: give one of {}", all()),
            }
        }
        None => {
            let earlier = revisions.iter().skip(1).find(|revision| revision.state != "bad");
            earlier.with_context(|| format!("addon {} has no good revision before the present one", addon.name()))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_good_one_before_is_taken_or_the_one_that_is_named() {
        let addon: Addon = serde_json::from_value(json!({"metadata": {"name": "a"}, "status": {"revisions": [
            {"hash": "c3", "state": "current"}, {"hash": "b2", "state": "bad"}, {"hash": "a1"}, {"hash": "a0"},
        ]}}))
        .expect("an Addon");
        let hash = |to| choose(&addon, to).map(|revision| revision.hash.clone()).ok();
        assert_eq!(hash(None).as_deref(), Some("a1"));
        assert_eq!(hash(Some("b")).as_deref(), Some("b2"));
        assert_eq!((hash(Some("a")), hash(Some("x")), hash(Some(""))), (None, None, None));
        assert!(choose(&Addon::default(), None).is_err());
    }
}
