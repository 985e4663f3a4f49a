//! What our table should hold.

use std::collections::BTreeMap;

use crate::slots::hash;

/// All of our table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Sets and maps, by name. A name always means the same declaration.
    pub sets: BTreeMap<String, Set>,
    /// Chains, by name. A name always means the same hook.
    pub chains: BTreeMap<String, Chain>,
}

/// A set or a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// What stands between the braces before the elements, as nft reads it: `type ipv4_addr; flags interval;`.
    pub declaration: String,
    /// Whether it maps its elements to something.
    pub map: bool,
    /// Whether packets fill it: its elements are none of our business.
    pub dynamic: bool,
    /// Its elements in the form in which nft lists them; what they map to, empty in a set.
    pub elements: BTreeMap<String, String>,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where it is hooked in (`type nat hook prerouting priority -110;`); `None` if others lead to it.
    pub hook: Option<&'static str>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// A rule, as nft reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule(pub String);

impl Rule {
    /// By what it is known again: kept in its comment.
    #[must_use]
    pub fn mark(&self) -> String {
        format!("{:016x}", hash(self.0.as_bytes()))
    }
}

impl Ruleset {
    /// Adds an empty set or map.
    pub fn declare(&mut self, name: &str, map: bool, declaration: &str) -> &mut Set {
        let set = self.sets.entry(name.to_owned()).or_default();
        set.map = map;
        set.declaration.clear();
        set.declaration.push_str(declaration);
        set
    }

    /// Adds a rule to the end of a chain.
    pub fn rule(&mut self, chain: &str, rule: impl Into<String>) {
        self.chains.entry(chain.to_owned()).or_default().rules.push(Rule(rule.into()));
    }
}
