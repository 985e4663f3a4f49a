//! Several channels as one source.

use std::collections::BTreeMap;
use std::sync::Arc;

use quarterdeck_api::channel::Installed;

use super::in_force::View;
use super::{ChannelAddon, ChannelReading};
use crate::addon::manifest::{Place, Problem};
use crate::addon::source::{Addon, Snapshot, digest};

/// Puts channels together, in the order of the command line: the first that names an addon has it, and
/// the others are told.
#[must_use]
pub(super) fn merge(views: &[View], settled: bool) -> ChannelReading {
    let mut reading = ChannelReading::default();
    let mut owners: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
    let mut addons: BTreeMap<Arc<str>, Arc<Addon>> = BTreeMap::new();
    for view in views {
        let mut state = view.state.clone();
        for (name, (addon, behind)) in &view.addons {
            if let Some(owner) = owners.get(name) {
                state.problems.push(format!("addon {name} is also in {owner}, which stands first and keeps it"));
                if let Some(kept) = addons.get_mut(name) {
                    let message = format!("{} names it too; it stands later and is passed over", state.channel);
                    let problem =
                        Problem { place: Place::default(), object: None, field: None, message, warning: true };
                    Arc::make_mut(kept).problems.push(problem);
                }
                continue;
            }
            owners.insert(Arc::clone(name), Arc::clone(&state.channel));
            addons.insert(Arc::clone(name), Arc::clone(addon));
            if let Some(behind) = behind {
                reading.addons.insert(Arc::clone(name), Arc::clone(behind));
            }
        }
        reading.channels.push(state);
    }
    let unread = reading.channels.iter().find(|state| !state.fresh);
    let problem = unread.map(|state| match state.problems.first() {
        Some(problem) => format!("{}: {problem}", state.channel),
        None => format!("{}: not read", state.channel),
    });
    let digest = digest(&addons);
    reading.snapshot =
        Snapshot { addons, complete: problem.is_none(), settled, problem, digest, ..Snapshot::default() };
    reading
}

impl ChannelReading {
    /// Whether an addon's offer may take the place of what is installed, as far as the reading goes:
    /// it was read now, and what is installed is not from a configured channel of which nothing is
    /// known yet. What is missing may be installed in any case.
    #[must_use]
    pub fn may_update(&self, addon: &ChannelAddon, installed: &Installed) -> bool {
        let from = installed.channel.as_deref();
        let silent = |from: &str| {
            *from != *addon.channel && self.channels.iter().any(|state| *state.channel == *from && !state.in_force)
        };
        addon.fresh && !from.is_some_and(silent)
    }
}
