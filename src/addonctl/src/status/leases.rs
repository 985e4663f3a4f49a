//! What the Leases say of managers that say nothing themselves.

use quarterdeck_api::status::{ElectionPart, MasterPart, Status, Statusz};

use super::page::Page;
use crate::reach::{Replica, Survey};

/// A status made of the Leases, if they say that no manager is there; `None` if one is, or never was: then it is not known
/// how it is.
pub(super) fn page(survey: &Survey, lease: &str) -> Option<Page> {
    if survey.replicas.is_empty() || survey.replicas.iter().any(|replica| replica.is_heard(survey.at)) {
        return None;
    }
    let holder = survey.election.as_ref().and_then(|election| election.holder.clone());
    let status = Status {
        masters: survey.replicas.iter().map(|replica| master(replica, holder.as_deref(), survey)).collect(),
        election: Some(ElectionPart {
            holder,
            lease: lease.to_owned(),
            renewed: survey.election.as_ref().and_then(|election| election.renewed).map(|time| time.to_string()),
            ..ElectionPart::default()
        }),
        ..Status::default()
    };
    let statusz = Statusz {
        kind: "Statusz".to_owned(),
        api_version: "config.k8s.io/v1beta1".to_owned(),
        status,
        ..Statusz::default()
    };
    // Plain data: it can always be written.
    let whole = serde_json::to_value(&statusz).unwrap_or_default();
    Some(Page { whole, statusz, told_by: None })
}

fn master(replica: &Replica, holder: Option<&str>, survey: &Survey) -> MasterPart {
    MasterPart {
        name: replica.name.clone(),
        identity: replica.identity.clone(),
        address: replica.address.clone(),
        certificate_sha256: replica.pin.map(|pin| pin.to_string()),
        version: replica.version.clone(),
        leads: holder.is_some() && replica.identity.as_deref() == holder,
        seen_seconds: replica.renewed.map_or(0.0, |renewed| survey.at.duration_since(renewed).as_secs_f64()),
        alive: false,
        ..MasterPart::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reach::Election;

    fn survey(identity: Option<&str>, holder: Option<&str>, at: &str) -> Survey {
        let lease = json!({
            "metadata": {"name": "a"},
            "spec": {"holderIdentity": identity, "renewTime": "2024-01-01T00:00:00.000000Z", "leaseDurationSeconds": 40},
        });
        Survey {
            replicas: vec![Replica::of(&serde_json::from_value(lease).expect("a Lease"))],
            election: Some(Election { holder: holder.map(str::to_owned), ..Election::default() }),
            at: at.parse().expect("a time"),
        }
    }

    #[test]
    fn silent_replicas_are_told_of_and_speaking_ones_are_not() {
        let late = "2024-01-01T00:05:00Z";
        let page = |survey: Survey| super::page(&survey, "kube-system/quarterdeck").map(|page| page.statusz.status);
        let dead = page(survey(Some("a_1"), Some("a_1"), late)).expect("a status");
        assert!(dead.masters[0].leads && !dead.masters[0].alive);
        assert_eq!(dead.masters[0].seen_seconds, 300.0);
        let left = page(survey(None, None, "2024-01-01T00:00:01Z")).expect("a status");
        assert!(left.masters[0].identity.is_none() && left.election.expect("one").holder.is_none());
        assert!(page(survey(Some("a_1"), Some("a_1"), "2024-01-01T00:00:30Z")).is_none());
        let nobody = Survey { replicas: Vec::new(), ..survey(None, None, late) };
        assert!(page(nobody).is_none());
    }
}
