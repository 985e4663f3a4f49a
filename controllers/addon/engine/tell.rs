//! What people are told of an addon: events, a line of the log when its state changes, and the commands that help.

use quarterdeck_runtime::client::ImpersonationRefused;
use quarterdeck_runtime::events::Reason;

use super::run::Run;
use super::told;
use crate::addon::parent::{self, Content, Held, LifecycleState, Parent, State};
use crate::addon::reasons;

impl Run<'_> {
    /// Events about what changed.
    pub(super) fn tell(&self, before: Option<&Parent>, content: &Content, held: Option<&Held>) {
        self.tell_state(before, content, held);
        if self.observing {
            return;
        }
        self.tell_done();
        let errors_before = before.map(|parent| &parent.content.errors);
        if !content.errors.is_empty() && errors_before != Some(&content.errors) {
            let reason = match content.state {
                Some(State::Degraded | State::Blocked) => reasons::DEGRADED,
                _ => reasons::WAITING,
            };
            self.event(reason, &few(&content.errors));
        }
        if let Some(addon) = self.engine.addon(&self.id)
            && let (Some(lifecycle), Some(now)) = (&addon.lifecycle, &content.lifecycle)
            && let Some(parent) = self.engine.parent(&self.id)
        {
            let none = LifecycleState::default();
            let before = before.and_then(|parent| parent.content.lifecycle.as_ref()).unwrap_or(&none);
            let waits = || lifecycle.faults.is_empty() && !self.engine.unmet(&addon).is_empty();
            let about = parent::reference(&self.id, &parent.uid);
            for (reason, message) in told::told(&self.id.name, lifecycle, before, now, &waits) {
                self.recorder.event(&about, reason, message);
            }
        }
        let held_before = before.and_then(|parent| parent.content.held.as_ref());
        if let Some(held) = held.filter(|held| held_before != Some(held)) {
            let members: Vec<String> = held.members.iter().map(ToString::to_string).collect();
            let command = parent::release_command(&self.id, &held.plan);
            tracing::warn!(addon = %self.id, objects = members.len(), reason = held.reason, command, "a removal waits");
            self.event(
                reasons::HELD,
                &format!("not deleted: {} ({}). To delete: {command}", few(&members), held.reason),
            );
        }
    }

    /// What this reconcile did.
    fn tell_done(&self) {
        if self.outcome.applied > 0 {
            self.event(reasons::APPLIED, &format!("made or changed {} objects", self.outcome.applied));
        }
        if self.outcome.adopted > 0 {
            let text = format!("took over {} objects as they were; nothing of them changed", self.outcome.adopted);
            self.event(reasons::ADOPTED, &text);
        }
        if self.outcome.drift > 0 {
            self.event(reasons::REPAIRED, &format!("put back {} objects", self.outcome.drift));
        }
        if !self.outcome.pruned.is_empty() {
            self.event(reasons::PRUNED, &format!("deleted {}", few(&self.outcome.pruned)));
        }
        if !self.outcome.kept.is_empty() {
            self.event(reasons::KEPT, &format!("no longer ours, and not deleted: {}", few(&self.outcome.kept)));
        }
    }

    /// A line of the log when the addon's state changes, and events where it got better or was left alone.
    ///
    /// It changed against what this process knows, or, where it has just begun to lead, what the cluster says: neither the
    /// next leader nor a parent that cannot be written has it told again.
    fn tell_state(&self, before: Option<&Parent>, content: &Content, held: Option<&Held>) {
        let Some(now) = content.state else { return };
        let from = self.engine.known_state(&self.id).or_else(|| before.and_then(|parent| parent.content.state));
        if from == Some(now) {
            return;
        }
        let (addon, from_name) = (&self.id, from.map(State::as_str));
        let reason = match held {
            Some(held) if now == State::Held => held.reason.clone(),
            _ => few(&content.errors),
        };
        match now {
            State::Degraded | State::Blocked | State::Held => {
                tracing::warn!(%addon, from = from_name, state = now.as_str(), reason, "the state of an addon changed");
            }
            _ => {
                tracing::info!(%addon, from = from_name, state = now.as_str(), reason, "the state of an addon changed")
            }
        }
        if self.observing {
            return;
        }
        match (from, now) {
            (Some(State::Paused), _) => self.event(reasons::RESUMED, "it is reconciled again"),
            (_, State::Paused) => self.event(reasons::PAUSED, "it is left alone, for a person asked for that"),
            (_, State::Ready) => self.event(reasons::READY, "all of it is as its source says"),
            _ => {}
        }
    }

    /// An event about what stands for the addon, or will.
    pub(super) fn event(&self, reason: Reason, text: &str) {
        let uid = self.engine.parent(&self.id).map(|parent| parent.uid).unwrap_or_default();
        self.recorder.event(&parent::reference(&self.id, &uid), reason, format!("{}: {text}", self.id));
    }

    /// All of the addon has left the cluster; `parent` is what stood for it.
    pub(super) fn tell_gone(&self, parent: &Parent) {
        tracing::info!(addon = %self.id, pruned = self.outcome.pruned.len(), "the addon is gone");
        let about = parent::reference(&self.id, &parent.uid);
        self.recorder.event(&about, reasons::REMOVED, format!("{}: all of it is gone", self.id));
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
