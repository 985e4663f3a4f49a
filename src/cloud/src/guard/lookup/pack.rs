//! Which nodes are asked for in one call.

use std::collections::HashSet;

use crate::model::NodeRef;

/// Calls of at most `max` nodes each. The nodes of one group, which one caller asked for, stay together where they fit.
pub(super) fn pack(groups: &[Vec<NodeRef>], max: usize) -> Vec<Vec<NodeRef>> {
    let max = max.max(1);
    let mut met = HashSet::new();
    let mut calls: Vec<Vec<NodeRef>> = Vec::new();
    for group in groups {
        let fresh: Vec<NodeRef> = group.iter().filter(|node| met.insert(*node)).cloned().collect();
        let fits = calls.iter_mut().find(|call| call.len() + fresh.len() <= max);
        match fits {
            Some(call) => call.extend(fresh),
            None => calls.extend(fresh.chunks(max).map(<[NodeRef]>::to_vec)),
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(names: &[&str]) -> Vec<NodeRef> {
        names.iter().map(|name| NodeRef { name: (*name).into(), provider_id: None }).collect()
    }

    #[test]
    fn a_callers_nodes_stay_together_where_they_fit() {
        let packed = |groups: &[&[&str]], max| {
            let groups: Vec<_> = groups.iter().map(|names| group(names)).collect();
            let calls = pack(&groups, max);
            calls.iter().map(|call| call.iter().map(|node| &*node.name).collect()).collect::<Vec<String>>()
        };
        assert_eq!(packed(&[&["a", "b"], &["c", "d"], &["e"]], 3), ["abe", "cd"]);
        assert_eq!(packed(&[&["a", "b", "c", "d", "e"], &["f"]], 2), ["ab", "cd", "ef"]);
        assert_eq!(packed(&[&["a", "a"], &["a", "b"]], 9), ["ab"]);
        assert_eq!(packed(&[&["a", "b"]], 0), ["a", "b"]);
        assert!(packed(&[], 2).is_empty());
    }
}
