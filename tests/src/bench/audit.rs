//! What a side asked of the server, by the audit log.

use std::collections::BTreeMap;

use anyhow::Result;
use quarterdeck_it::audit::Event;
use quarterdeck_it::{AuditReader, ControlPlane};

use crate::contestant::Side;

/// Requests of one side in a span of time.
pub(crate) struct Requests {
    events: Vec<Event>,
}

impl Requests {
    /// All that were logged since `reader` began.
    pub(crate) async fn since(control_plane: &ControlPlane, mut reader: AuditReader, side: Side) -> Result<Self> {
        control_plane.settle_audit().await?;
        let events = reader.filter(|event| by(event, side))?;
        Ok(Self { events })
    }

    /// How many fit.
    pub(crate) fn count(&self, fits: impl Fn(&Event) -> bool) -> f64 {
        let number = self.events.iter().filter(|event| fits(event)).count();
        f64::from(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// Looks at each.
    pub(crate) fn each(&self, look: impl FnMut(&Event)) {
        self.events.iter().for_each(look);
    }

    /// Verbs and resources with their numbers, for a note.
    pub(crate) fn summary(&self) -> String {
        let mut numbers = BTreeMap::<String, usize>::new();
        for event in &self.events {
            let dry = if event.is_dry_run() { " (dry run)" } else { "" };
            let path = event.request_uri.split('?').next().unwrap_or_default();
            let resource = event.resource();
            let what = if resource.is_empty() { path } else { &resource };
            *numbers.entry(format!("{} {what}{dry}", event.verb)).or_default() += 1;
        }
        let parts: Vec<_> = numbers.iter().map(|(what, number)| format!("{number} × {what}")).collect();
        if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
    }
}

/// Did the side send it? The harness uses other users.
fn by(event: &Event, side: Side) -> bool {
    match side {
        Side::Ours => event.user.username == quarterdeck_it::deck::USER,
        Side::Go => {
            let user = &event.user.username;
            user == "system:kube-controller-manager" || event.user_agent.starts_with("kube-controller-manager/")
        }
    }
}

/// A write that a controller makes: no try, and neither Lease nor event nor review.
pub(crate) fn is_object_write(event: &Event) -> bool {
    let resource = event.resource();
    let own = resource.starts_with("leases.")
        || resource.starts_with("events")
        || resource.starts_with("tokenreviews.")
        || resource.starts_with("subjectaccessreviews.")
        || resource == "serviceaccounts/token";
    event.is_write() && !event.is_dry_run() && !own
}
