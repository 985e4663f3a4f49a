//! Who the masters are, who led when, and what was refused.

use serde::{Deserialize, Serialize};

/// One replica of the election, by its own Lease.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MasterPart {
    /// Name of the replica and of its Lease.
    pub name: String,
    /// Its name in the election; `None` after it left in an orderly way.
    pub identity: Option<String>,
    /// Where it serves, `host:port`.
    pub address: Option<String>,
    /// SHA-256 of the certificate that it serves with, DER, in hexadecimal digits.
    pub certificate_sha256: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Whether it holds the Lease, as the replica that tells sees it.
    pub leads: bool,
    /// Since when it leads, by its own clock; `None` if it does not.
    pub since: Option<String>,
    /// Seconds since its Lease was last seen to change, by the clock of the replica that tells.
    pub seen_seconds: f64,
    /// Whether it renews its Lease.
    pub alive: bool,
    /// Whether it is the replica that tells.
    pub me: bool,
}

/// A time that one replica led, as it notes it on its own Lease.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TermNote {
    /// `leaseTransitions` of the Lease during it.
    pub epoch: i32,
    /// resourceVersion of the write that began it: it grows from term to term, also when the Lease is made anew.
    pub version: u64,
    /// Its name in the election then.
    pub holder: String,
    /// When it began, by the leader's clock.
    pub began: String,
    /// When it ended, by the leader's clock; `None` while it lasts, or if the leader could not say.
    pub ended: Option<String>,
    /// Why it ended.
    pub why: Option<String>,
    /// Seconds from the last sign of life of the leader before, or from its release of the Lease, until this one
    /// began, by this one's clock; `None` if nobody led before.
    pub gap_seconds: Option<f64>,
}

/// A time that somebody led.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TermPart {
    /// Name of the replica.
    pub replica: String,
    /// What it noted.
    #[serde(flatten)]
    pub term: TermNote,
    /// Whether it lasts.
    pub lasts: bool,
}

/// A write that did not go through because of the election.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusalPart {
    /// When, by the clock of the replica that tells.
    pub at: String,
    /// Who refused: `gate` (this process) or `fence` (the server).
    pub by: String,
    /// The controller whose write it was; empty for the manager's own.
    pub controller: String,
    /// Verb and object.
    pub what: String,
    /// Why.
    pub why: String,
}

/// The terms of all replicas as one history, newest first. `holder` is who holds the Lease now: a term of somebody else
/// that has no end was not ended by its leader, and `why` says so.
#[must_use]
pub fn history(terms: impl IntoIterator<Item = (String, Vec<TermNote>)>, holder: Option<&str>) -> Vec<TermPart> {
    let mut all: Vec<TermPart> = terms
        .into_iter()
        .flat_map(|(replica, terms)| {
            terms.into_iter().map(move |term| TermPart { replica: replica.clone(), term, lasts: false })
        })
        .collect();
    all.sort_by(|a, b| (b.term.version, &b.term.began).cmp(&(a.term.version, &a.term.began)));
    for (index, part) in all.iter_mut().enumerate() {
        if part.term.ended.is_some() {
            continue;
        }
        part.lasts = index == 0 && holder == Some(part.term.holder.as_str());
        if !part.lasts && part.term.why.is_none() {
            part.term.why = Some("it was not heard of any more".to_owned());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(version: u64, holder: &str, ended: bool) -> TermNote {
        TermNote {
            version,
            holder: holder.to_owned(),
            // A clock that lies: later terms seem to have begun earlier.
            began: format!("2026-01-{:02}T00:00:00Z", 28 - version),
            ended: ended.then(|| "2026-02-01T00:00:00Z".to_owned()),
            ..TermNote::default()
        }
    }

    #[test]
    fn terms_stand_in_the_order_in_which_the_lease_changed_hands() {
        let terms = [
            ("one".to_owned(), vec![term(3, "one_a", true), term(9, "one_a", false)]),
            ("two".to_owned(), vec![term(5, "two_b", false)]),
        ];
        let all = history(terms.clone(), Some("one_a"));
        let order: Vec<_> = all.iter().map(|part| (part.term.version, part.lasts)).collect();
        assert_eq!(order, [(9, true), (5, false), (3, false)]);
        assert!(all[1].term.why.as_deref().is_some_and(|why| why.contains("not heard of")), "{:?}", all[1]);
        assert_eq!(all[2].term.why, None, "it said itself when it ended");
        let all = history(terms, Some("three_c"));
        assert!(!all[0].lasts && all[0].term.why.is_some(), "its holder changed: {:?}", all[0]);
    }
}
