//! What people are told of an addon: events, and the commands that help.

use quarterdeck_runtime::client::ImpersonationRefused;
use quarterdeck_runtime::events::EventType;

use super::reasons;
use super::run::Run;
use crate::addon::parent::{self, Content, Held, LifecycleState, Parent, State};

impl Run<'_> {
    /// Events about what changed.
    pub(super) fn tell(&self, before: Option<&Parent>, content: &Content, held: Option<&Held>) {
        if self.observing {
            return;
        }
        let Some(parent) = self.engine.parent(&self.id) else { return };
        let about = parent::reference(&self.id, &parent.uid);
        let event = |kind, reason, message: String| self.recorder.event(&about, kind, reason, message);
        if self.outcome.applied > 0 {
            let text = format!("{}: made or changed {} objects", self.id, self.outcome.applied);
            event(EventType::Normal, "AddonApplied", text);
        }
        if self.outcome.drift > 0 {
            event(EventType::Normal, "DriftRepaired", format!("{}: put back {} objects", self.id, self.outcome.drift));
        }
        if !self.outcome.pruned.is_empty() {
            let text = format!("{}: deleted {}", self.id, few(&self.outcome.pruned));
            event(EventType::Normal, "AddonPruned", text);
        }
        let errors_before = before.map(|parent| &parent.content.errors);
        if !content.errors.is_empty() && errors_before != Some(&content.errors) {
            let (kind, reason) = match content.state {
                Some(State::Degraded | State::Blocked) => (EventType::Warning, "AddonDegraded"),
                _ => (EventType::Normal, "AddonWaiting"),
            };
            event(kind, reason, format!("{}: {}", self.id, few(&content.errors)));
        }
        if let Some(addon) = self.engine.addon(&self.id)
            && let (Some(lifecycle), Some(now)) = (&addon.lifecycle, &content.lifecycle)
        {
            let none = LifecycleState::default();
            let before = before.and_then(|parent| parent.content.lifecycle.as_ref()).unwrap_or(&none);
            let waits = || lifecycle.faults.is_empty() && !self.engine.unmet(&addon).is_empty();
            for (kind, reason, message) in reasons::told(&self.id.name, lifecycle, before, now, &waits) {
                event(kind, reason, message);
            }
        }
        let held_before = before.and_then(|parent| parent.content.held.as_ref());
        if let Some(held) = held.filter(|held| held_before != Some(held)) {
            let members: Vec<String> = held.members.iter().map(ToString::to_string).collect();
            let command = parent::release_command(&self.id, &held.plan);
            let text = format!("{}: not deleted: {} ({}). To delete: {command}", self.id, few(&members), held.reason);
            tracing::warn!(addon = %self.id, objects = members.len(), reason = held.reason, command, "a removal waits");
            event(EventType::Warning, "PruneHeld", text);
        }
    }
}

/// The commands that let the manager act as an account.
pub(super) fn grant_command(refused: &ImpersonationRefused) -> String {
    let ImpersonationRefused { user, namespace, name } = refused;
    format!(
        "{user:?} may not act as the service account {namespace}/{name}; to allow it: \
         kubectl -n {namespace} create role quarterdeck:act-as-{name} --verb=impersonate --resource=serviceaccounts --resource-name={name} && \
         kubectl -n {namespace} create rolebinding quarterdeck:act-as-{name} --role=quarterdeck:act-as-{name} --user={user}"
    )
}

/// The first of many.
fn few(words: &[String]) -> String {
    const FEW: usize = 5;
    let mut text = words.iter().take(FEW).map(String::as_str).collect::<Vec<_>>().join("; ");
    if words.len() > FEW {
        text.push_str(&format!("; and {} more", words.len() - FEW));
    }
    text
}
