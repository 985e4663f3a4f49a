//! Transactions, as text for `nft -f -`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Chain, ElementChange, ElementChanges, Observed, ObservedSet, Ruleset, Set, TABLE};

/// Puts the whole table in place of whatever is there under its name.
#[must_use]
pub fn full(wanted: &Ruleset) -> String {
    let mut text = removal();
    let _ = writeln!(text, "add table {TABLE}");
    text += &update(&Observed::default(), wanted);
    text
}

/// Removes the table, whether it is there or not.
#[must_use]
pub fn removal() -> String {
    // Adding first: deleting what is not there is an error.
    format!("add table {TABLE}\ndelete table {TABLE}\n")
}

/// Leads from what is there to what should be there; empty if that is the same.
#[must_use]
pub fn update(there: &Observed, wanted: &Ruleset) -> String {
    let mut text = String::new();
    // Declarations first: elements and rules may point to any of them.
    for (name, set) in wanted.sets.iter().filter(|(name, _)| !there.sets.contains_key(*name)) {
        let _ = writeln!(text, "add {} {TABLE} {name} {{ {} }}", word(set.map), set.declaration);
    }
    for (name, chain) in wanted.chains.iter().filter(|(name, _)| !there.chains.contains_key(*name)) {
        match chain.hook {
            Some(hook) => drop(writeln!(text, "add chain {TABLE} {name} {{ {hook} }}")),
            None => drop(writeln!(text, "add chain {TABLE} {name}")),
        }
    }
    // What points somewhere lets go before its target goes.
    for (name, set) in &wanted.sets {
        elements(&mut text, name, set, there.sets.get(name));
    }
    for (name, chain) in &wanted.chains {
        rules(&mut text, name, chain, there.chains.get(name));
    }
    // Rules and elements of chains and sets that go.
    let gone_chains: Vec<&String> = there.chains.keys().filter(|name| !wanted.chains.contains_key(*name)).collect();
    let gone_sets: Vec<_> = there.sets.iter().filter(|(name, _)| !wanted.sets.contains_key(*name)).collect();
    for name in &gone_chains {
        let _ = writeln!(text, "flush chain {TABLE} {name}");
    }
    for (name, set) in &gone_sets {
        let _ = writeln!(text, "flush {} {TABLE} {name}", word(set.map));
    }
    for (name, set) in gone_sets {
        let _ = writeln!(text, "delete {} {TABLE} {name}", word(set.map));
    }
    for name in gone_chains {
        let _ = writeln!(text, "delete chain {TABLE} {name}");
    }
    text
}

/// The elements that differ between two rulesets; `None` if anything else does.
#[must_use]
pub fn elements_between(there: &Ruleset, wanted: &Ruleset) -> Option<ElementChanges> {
    if there.chains != wanted.chains || !there.sets.keys().eq(wanted.sets.keys()) {
        return None;
    }
    let mut changes = ElementChanges::new();
    for (name, set) in &wanted.sets {
        let there = &there.sets[name];
        if (&there.declaration, there.map, there.dynamic) != (&set.declaration, set.map, set.dynamic) {
            return None;
        }
        if set.dynamic || there.elements == set.elements {
            continue;
        }
        let only = |all: &BTreeMap<String, String>, other: &BTreeMap<String, String>| {
            let differing = all.iter().filter(|(key, data)| other.get(*key) != Some(*data));
            differing.map(|(key, data)| (key.clone(), data.clone())).collect()
        };
        let change =
            ElementChange { delete: only(&there.elements, &set.elements), add: only(&set.elements, &there.elements) };
        changes.insert(name.clone(), change);
    }
    Some(changes)
}

/// The same changes as text.
#[must_use]
pub fn change(ruleset: &Ruleset, changes: &ElementChanges) -> String {
    let mut text = String::new();
    let is_map = |name: &String| ruleset.sets.get(name).is_some_and(|set| set.map);
    for (name, change) in changes {
        list(&mut text, "delete", name, change.delete.iter(), is_map(name));
    }
    for (name, change) in changes {
        list(&mut text, "add", name, change.add.iter(), is_map(name));
    }
    text
}

/// The word for it in nft's commands.
fn word(map: bool) -> &'static str {
    if map { "map" } else { "set" }
}

fn elements(text: &mut String, name: &str, set: &Set, there: Option<&ObservedSet>) {
    if set.dynamic {
        return;
    }
    let empty = ObservedSet::default();
    let there = &there.unwrap_or(&empty).elements;
    let changed = |(key, data): &(&String, &String)| there.get(*key) != Some(*data);
    let stale = |(key, data): &(&String, &String)| set.elements.get(*key) != Some(*data);
    // An element that leads elsewhere goes and comes in the same transaction.
    list(text, "delete", name, there.iter().filter(stale), set.map);
    list(text, "add", name, set.elements.iter().filter(changed), set.map);
}

fn list<'a>(
    text: &mut String,
    verb: &str,
    name: &str,
    elements: impl Iterator<Item = (&'a String, &'a String)>,
    map: bool,
) {
    let mut first = true;
    for (key, data) in elements {
        if first {
            let _ = write!(text, "{verb} element {TABLE} {name} {{ {key}");
        } else {
            let _ = write!(text, ", {key}");
        }
        first = false;
        if map {
            let _ = write!(text, " : {data}");
        }
    }
    if !first {
        text.push_str(" }\n");
    }
}

fn rules(text: &mut String, name: &str, chain: &Chain, there: Option<&Vec<String>>) {
    let marks: Vec<String> = chain.rules.iter().map(super::Rule::mark).collect();
    if there.is_some_and(|there| *there == marks) {
        return;
    }
    if there.is_some_and(|there| !there.is_empty()) {
        let _ = writeln!(text, "flush chain {TABLE} {name}");
    }
    for (rule, mark) in chain.rules.iter().zip(marks) {
        let _ = writeln!(text, "add rule {TABLE} {name} {} comment \"{mark}\"", rule.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruleset(elements: &[(&str, &str)], rules: &[&str]) -> Ruleset {
        let mut ruleset = Ruleset::default();
        let set = ruleset.declare("m", true, "type ipv4_addr : verdict;");
        set.elements = elements.iter().map(|(key, data)| ((*key).to_owned(), (*data).to_owned())).collect();
        ruleset.chains.entry("c".to_owned()).or_default();
        for rule in rules {
            ruleset.rule("c", *rule);
        }
        ruleset
    }

    #[test]
    fn what_stays_is_not_touched() {
        let before = ruleset(&[("1.1.1.1", "accept"), ("1.1.1.2", "drop")], &["accept"]);
        assert_eq!(update(&Observed::from(&before), &before), "");
        let after = ruleset(&[("1.1.1.1", "accept"), ("1.1.1.2", "accept"), ("1.1.1.3", "drop")], &["accept"]);
        assert_eq!(
            update(&Observed::from(&before), &after),
            "delete element inet quarterdeck m { 1.1.1.2 : drop }\n\
             add element inet quarterdeck m { 1.1.1.2 : accept, 1.1.1.3 : drop }\n"
        );
    }

    #[test]
    fn elements_alone_are_told_from_the_rest() {
        let before = ruleset(&[("1.1.1.1", "accept"), ("1.1.1.2", "drop")], &["accept"]);
        let after = ruleset(&[("1.1.1.1", "accept"), ("1.1.1.2", "accept"), ("1.1.1.3", "drop")], &["accept"]);
        let changes = elements_between(&before, &after).unwrap();
        assert_eq!(change(&after, &changes), update(&Observed::from(&before), &after));
        assert_eq!(elements_between(&before, &before), Some(ElementChanges::new()));
        assert_eq!(elements_between(&before, &ruleset(&[], &["drop"])), None);
        let mut more = before.clone();
        more.declare("n", true, "type ipv4_addr : verdict;");
        assert_eq!(elements_between(&before, &more), None);
    }

    #[test]
    fn a_chain_changes_whole_and_foreign_rules_go() {
        let wanted = ruleset(&[], &["accept"]);
        let mark = Observed::from(&wanted).chains["c"][0].clone();
        let mut there = Observed::from(&wanted);
        there.chains.get_mut("c").unwrap().push(String::new());
        let expected =
            format!("flush chain inet quarterdeck c\nadd rule inet quarterdeck c accept comment \"{mark}\"\n");
        assert_eq!(update(&there, &wanted), expected);
    }

    #[test]
    fn what_is_not_wanted_goes_after_what_points_to_it() {
        let before = ruleset(&[("1.1.1.1", "goto c")], &["accept"]);
        let text = update(&Observed::from(&before), &Ruleset::default());
        let expected = "flush chain inet quarterdeck c\nflush map inet quarterdeck m\n\
                        delete map inet quarterdeck m\ndelete chain inet quarterdeck c\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_full_load_replaces_the_table() {
        let text = full(&ruleset(&[("1.1.1.1", "accept")], &["drop"]));
        assert!(
            text.starts_with("add table inet quarterdeck\ndelete table inet quarterdeck\nadd table inet quarterdeck\n")
        );
        assert!(
            text.contains("add map inet quarterdeck m { type ipv4_addr : verdict; }\nadd chain inet quarterdeck c\n")
        );
    }
}
