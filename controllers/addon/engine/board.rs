//! What the status page shows of addons, on every replica: a follower knows them by their parents.

use std::collections::BTreeMap;

use quarterdeck_api::status::AddonPart;

use super::Engine;
use crate::addon::parent::{Content, Parent, State};

/// Longest message of one addon, in letters: the page stays small, and the addon's own status has it whole.
const LONGEST: usize = 300;

impl Engine {
    /// All addons, by source and name: those that have a parent, and those that were read and have none yet.
    pub(crate) fn board(&self) -> Vec<AddonPart> {
        let mut board: BTreeMap<(String, String), AddonPart> = BTreeMap::new();
        let parents =
            self.all_parents().map(|parent| ((parent.source.clone(), parent.addon.to_string()), part(&parent)));
        board.extend(parents);
        let shared = self.shared.lock();
        for addon in shared.sources.values().flat_map(|snapshot| snapshot.addons.values()) {
            let key = (addon.id.source.to_owned(), addon.id.name.to_string());
            board.entry(key).or_insert_with(|| AddonPart {
                name: addon.id.name.to_string(),
                source: addon.id.source.to_owned(),
                state: "unknown".to_owned(),
                objects: addon.objects.len(),
                message: Some("the leader has not looked at it yet".to_owned()),
                ..AddonPart::default()
            });
        }
        // What the leader found last, also where it could not write it down.
        for (id, standing) in &shared.states {
            if let Some(part) = board.get_mut(&(id.source.to_owned(), id.name.to_string())) {
                standing.state.as_str().clone_into(&mut part.state);
            }
        }
        board.into_values().collect()
    }
}

fn part(parent: &Parent) -> AddonPart {
    let content = &parent.content;
    AddonPart {
        name: parent.addon.to_string(),
        source: parent.source.clone(),
        version: content.version.clone(),
        state: content.state.map_or("unknown", State::as_str).to_owned(),
        objects: content.objects,
        unhealthy: content.unhealthy.len(),
        drifted: content.drifted.len(),
        repaired: content.drift,
        held: content.held.as_ref().map_or(0, |held| held.members.len()),
        message: message(content),
    }
}

/// The first thing that is wrong, if anything is.
fn message(content: &Content) -> Option<String> {
    let held = content.held.as_ref().map(|held| &held.reason);
    let told = [content.errors.first(), held, content.unhealthy.first(), content.drifted.first()];
    let message = told.into_iter().flatten().next()?;
    Some(match message.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_thing_that_is_wrong_is_told_and_not_too_long() {
        let mut content = Content { drifted: vec!["differs".to_owned()], ..Content::default() };
        assert_eq!(message(&content).as_deref(), Some("differs"));
        content.errors = vec!["ä".repeat(LONGEST + 1), "more".to_owned()];
        let told = message(&content).expect("there is an error");
        assert_eq!(told.chars().count(), LONGEST + 1);
        assert!(told.starts_with('ä') && told.ends_with('…'));
        assert_eq!(message(&Content::default()), None);
    }
}
