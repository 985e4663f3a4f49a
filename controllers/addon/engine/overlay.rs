//! Revisions in the place of what a source says. Everything else (claims, removals, dependents) goes by
//! the outcome, as if the source itself said so.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{Engine, Key, Shared};
use crate::addon::parent::Parent;
use crate::addon::revision::{Content, Mode, key_of};
use crate::addon::source::{Addon, AddonId, OBJECTS, Snapshot};

/// A revision in the place of what a source says.
pub(super) struct Overlay {
    /// The revision that the source asks for.
    pub(super) from: String,
    /// What is to be in its place.
    pub(super) content: Content,
}

/// Whether a roll-back from this revision counts while the source says this. A file that cannot be read
/// is no new revision.
pub(super) fn counts(asked: &Addon, from: &str) -> bool {
    if asked.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.deleting) {
        return false;
    }
    let unreadable = asked.lifecycle.is_none() && !asked.complete && !asked.objects.is_empty();
    unreadable || key_of(&asked.version) == from
}

impl Overlay {
    /// The addon with the revision in place.
    fn over(&self, asked: &Addon) -> Addon {
        Addon {
            version: Arc::clone(&self.content.version),
            package: self.content.package.clone(),
            objects: self.content.objects.clone(),
            complete: true,
            ..asked.clone()
        }
    }
}

impl Shared {
    /// What is to be of a source: its reading, or the one before, with the overlays that count.
    pub(super) fn overlaid(&mut self, source: &'static str, reading: Option<Snapshot>) -> Option<Arc<Snapshot>> {
        if let Some(reading) = reading {
            self.read.insert(source, Arc::new(reading));
        }
        let read = self.read.get(source)?;
        let overlays: Vec<(&AddonId, &Overlay, &Arc<Addon>)> = self
            .overlays
            .iter()
            .filter_map(|(id, overlay)| Some((id, overlay, read.addons.get(&id.name)?)))
            .filter(|(id, overlay, asked)| id.source == source && counts(asked, &overlay.from))
            .collect();
        if overlays.is_empty() {
            return Some(Arc::clone(read));
        }
        let mut snapshot = (**read).clone();
        for (id, overlay, asked) in overlays {
            snapshot.addons.insert(Arc::clone(&id.name), Arc::new(overlay.over(asked)));
        }
        // What was decided about what the source says is not decided about this.
        let mut hasher = Sha256::new();
        hasher.update(snapshot.digest);
        hasher.update(crate::addon::source::digest(&snapshot.addons));
        snapshot.digest = hasher.finalize().into();
        Some(Arc::new(snapshot))
    }

    /// Whether an addon as it is to be is not what its source says.
    pub(super) fn is_rolled_back(&self, addon: &Addon) -> bool {
        let asked = self.read.get(addon.id.source).and_then(|read| read.addons.get(&addon.id.name));
        asked.is_some_and(|asked| asked.version != addon.version) && self.overlays.contains_key(&addon.id)
    }
}

impl Engine {
    /// An addon as its source has it.
    pub(super) fn asked(&self, id: &AddonId) -> Option<Arc<Addon>> {
        self.shared.lock().read.get(id.source)?.addons.get(&id.name).cloned()
    }

    /// The revision that takes the place of what the source says now, by its version.
    pub(super) fn overlay(&self, id: &AddonId) -> Option<Arc<str>> {
        let shared = self.shared.lock();
        let asked = shared.read.get(id.source)?.addons.get(&id.name)?;
        let overlay = shared.overlays.get(id).filter(|overlay| counts(asked, &overlay.from))?;
        Some(Arc::clone(&overlay.content.version))
    }

    /// Puts a revision in the place of what the source says, or takes it away; wakes what that concerns.
    pub(super) fn set_overlay(self: &Arc<Self>, id: &AddonId, overlay: Option<Overlay>) {
        let mut shared = self.shared.lock();
        match overlay {
            Some(overlay) => shared.overlays.insert(id.clone(), overlay),
            None => shared.overlays.remove(id),
        };
        drop(shared);
        self.take(id.source, None);
        self.parts.queue.add(Key::Addon(id.clone()));
    }

    /// What is done about an addon's revisions.
    pub(super) fn rollback(&self, asked: &Addon) -> Mode {
        let unsaid = if asked.id.source == OBJECTS { Mode::Off } else { self.parts.rollback };
        asked.policy.rollback.unwrap_or(unsaid)
    }

    /// Whether a roll-back holds that has not been put in place yet, such as after a restart: what the
    /// source says is then no evidence of what is wanted.
    pub(super) fn awaits_overlay(&self, id: &AddonId, parent: &Parent) -> bool {
        let Some(back) = &parent.content.revisions.back else { return false };
        let Some(asked) = self.asked(id) else { return false };
        self.rollback(&asked) != Mode::Off && counts(&asked, &back.from) && self.overlay(id).is_none()
    }
}
