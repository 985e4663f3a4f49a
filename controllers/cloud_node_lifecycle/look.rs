//! Which nodes are looked at, and what an answer about one asks for. Pure.

use std::sync::Arc;

use quarterdeck_cloud::CloudError;
use quarterdeck_cloud::model::Lookup;
use quarterdeck_cloud::nodes::scheme;
use quarterdeck_runtime::view::NodeView;

/// Some nodes.
pub(super) type Nodes = Vec<Arc<NodeView>>;

/// The nodes of a cloud with these schemes, by name: those that are Ready, and those that are not. Without a providerID
/// nothing says which instance is meant: such nodes are left out.
pub(super) fn parted(all: &[Arc<NodeView>], schemes: &[String]) -> (Nodes, Nodes) {
    let is_own = |node: &NodeView| {
        let scheme = node.provider_id.as_deref().map(scheme);
        scheme.is_some_and(|scheme| schemes.iter().any(|own| own == scheme))
    };
    let mut own: Nodes = all.iter().filter(|node| is_own(node) && !node.deleting).cloned().collect();
    own.sort_by(|a, b| a.key.cmp(&b.key));
    own.into_iter().partition(|node| node.ready)
}

/// What an answer about a node that is not Ready asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign<'a> {
    /// Its instance is shut down: the node gets the taint.
    Shut,
    /// Its instance seems to be gone: that is to be proven.
    Gone,
    /// Nothing.
    Nothing,
    /// The cloud could not say: as if it existed.
    Unknown(&'a CloudError),
}

/// What an answer about a node that is not Ready asks for.
pub(super) fn sign(lookup: &Result<Lookup, CloudError>) -> Sign<'_> {
    match lookup {
        Ok(Lookup::Found(instance)) if instance.shutdown => Sign::Shut,
        Ok(Lookup::Absent(_)) => Sign::Gone,
        Ok(Lookup::Found(_) | Lookup::NotMine) => Sign::Nothing,
        Err(error) => Sign::Unknown(error),
    }
}
