//! Instances: what the inventory says of nodes.

use async_trait::async_trait;

use super::Metal;
use super::inventory::{SCHEME, View};
use crate::error::{CloudError, Result};
use crate::model::{Answers, Lookup, NodeRef, Proof};
use crate::provider::{CallCtx, Instances};

#[async_trait]
impl Instances for Metal {
    async fn get_many(&self, _: &CallCtx, nodes: &[NodeRef]) -> Result<Answers> {
        let Some(inventory) = &self.shared.inventory else {
            return Err(CloudError::NotImplemented("instances without --cloud-config".to_owned()));
        };
        inventory.watch();
        let view = inventory.look().await?;
        let path = inventory.path().display().to_string();
        Ok(Answers {
            account: view.good.as_ref().map(|good| good.cluster.clone()).unwrap_or_default(),
            nodes: nodes.iter().map(|node| (node.clone(), answer(&view, &path, node))).collect(),
        })
    }
}

/// What is known of one node. A machine that the last good inventory lists is there; one that it lacks is absent only
/// while the file is good, and only if it was known by its id before.
fn answer(view: &View, path: &str, node: &NodeRef) -> Result<Lookup> {
    let id = match node.provider_id.as_deref().map(|id| (id, own_id(id))) {
        None => None,
        Some((_, Some(id))) => Some(id),
        Some((_, None)) => return Ok(Lookup::NotMine),
    };
    let Some(good) = &view.good else {
        let why = view.trouble.as_deref().unwrap_or("it has not been read yet");
        return Err(CloudError::Invalid(format!("there is no inventory: {why}")));
    };
    let found = id.map_or_else(|| good.by_name(&node.name), |id| good.by_id(id));
    match (found, id) {
        (Some(machine), _) => Ok(Lookup::Found(Box::new(machine.instance()))),
        (None, None) if view.is_certain() => Ok(Lookup::NotMine),
        (None, Some(id)) if view.is_certain() => {
            let evidence =
                format!("{path} ({}, cluster {}) lists no machine with the id {id}", good.digest, good.cluster);
            Ok(Lookup::Absent(Proof { evidence }))
        }
        (None, _) => {
            let why = view.trouble.as_deref().unwrap_or("it is just being changed");
            Err(CloudError::Invalid(format!(
                "the last good inventory does not list it, but it does not count now: {why}"
            )))
        }
    }
}

/// The id in a providerID of ours.
fn own_id(provider_id: &str) -> Option<&str> {
    let (scheme, id) = provider_id.split_once("://")?;
    (scheme == SCHEME && !id.is_empty() && !id.contains('/')).then_some(id)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::inventory::parse;
    use super::*;

    const FILE: &str =
        "cluster: rack\ninstances:\n- {name: one, id: i-1, addresses: [{InternalIP: 10.0.0.1}], shutdown: true}\n";

    fn node(name: &str, provider_id: Option<&str>) -> NodeRef {
        NodeRef { name: name.into(), provider_id: provider_id.map(Into::into) }
    }

    #[test]
    fn nodes_are_found_by_id_and_only_unknown_ones_by_name() {
        let view = View { good: Some(Arc::new(parse(FILE).expect("good"))), ..View::default() };
        let found = |name: &str, id: Option<&str>| match answer(&view, "/i.yaml", &node(name, id)) {
            Ok(Lookup::Found(instance)) => Some((instance.provider_id, instance.shutdown)),
            _ => None,
        };
        let one = Some(("metal://i-1".to_owned(), true));
        assert_eq!(found("one", Some("metal://i-1")), one);
        assert_eq!(found("renamed", Some("metal://i-1")), one);
        assert_eq!(found("one", None), one);
        assert_eq!(found("one", Some("metal://i-2")), None, "another machine under an old name");
        for foreign in ["aws:///a/i-1", "metal:i-1", "metal://", "metal://a/i-1", "i-1", ""] {
            assert_eq!(answer(&view, "/i.yaml", &node("one", Some(foreign))), Ok(Lookup::NotMine), "{foreign:?}");
        }
        // A machine that no inventory ever named cannot be missed.
        assert_eq!(answer(&view, "/i.yaml", &node("two", None)), Ok(Lookup::NotMine));
    }

    #[test]
    fn absence_names_the_file_and_its_hash_and_needs_a_good_one() {
        let good = Arc::new(parse(FILE).expect("good"));
        let (gone, there) = (node("two", Some("metal://i-2")), node("one", Some("metal://i-1")));
        let view = View { good: Some(Arc::clone(&good)), ..View::default() };
        let Ok(Lookup::Absent(proof)) = answer(&view, "/i.yaml", &gone) else { panic!("it is absent") };
        assert!(proof.evidence.starts_with(&format!("/i.yaml ({}, cluster rack)", good.digest)), "{}", proof.evidence);
        // azure#2880: a cache that could not be refreshed was read as absence.
        let troubled = View { trouble: Some("line 3: x".into()), ..view.clone() };
        let unsettled = View { unsettled: true, ..view };
        for view in [troubled, unsettled] {
            let error = answer(&view, "/i.yaml", &gone).expect_err("nothing is known");
            assert!(!error.is_providers_fault() && !error.maybe_applied(), "{error}");
            assert!(answer(&view, "/i.yaml", &node("two", None)).is_err());
            assert!(matches!(answer(&view, "/i.yaml", &there), Ok(Lookup::Found(_))));
        }
        let nothing = View { trouble: Some("no such file".into()), ..View::default() };
        assert!(answer(&nothing, "/i.yaml", &there).is_err_and(|error| error.to_string().contains("no such file")));
    }
}
