//! Which replica is asked first.

use jiff::Timestamp;

use super::error::ReachError;
use super::lease::{Election, Replica};

/// The replicas in the order in which they are asked: the one that holds the Lease of the election, then one that leads
/// by its own word, then those that were heard of lately, then the rest. If one is named, that one alone.
///
/// # Errors
/// When the named one is not there.
pub(super) fn order<'r>(
    replicas: &'r [Replica],
    election: Option<&Election>,
    wanted: Option<&str>,
    now: Timestamp,
) -> Result<Vec<&'r Replica>, ReachError> {
    if let Some(wanted) = wanted {
        let is_meant = |replica: &&Replica| replica.name == wanted || replica.identity.as_deref() == Some(wanted);
        return match replicas.iter().find(is_meant) {
            Some(replica) => Ok(vec![replica]),
            None => {
                let known: Vec<&str> = replicas.iter().map(|replica| replica.name.as_str()).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(ReachError::NoSuchReplica { wanted: wanted.to_owned(), known })
            }
        };
    }
    let holder = election.and_then(|election| election.holder.as_deref());
    let mut all: Vec<&Replica> = replicas.iter().collect();
    all.sort_by_key(|replica| {
        let holds = holder.is_some() && replica.identity.as_deref() == holder;
        let heard = replica.is_heard(now);
        // Of two that say that they lead, the one that began later is right.
        let leads = replica.leads_since().filter(|_| heard).map(|since| -since.as_microsecond());
        (!holds, leads.is_none(), leads, !heard, replica.name.clone())
    });
    Ok(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2024-01-01T00:01:00Z";

    /// A replica that was heard of at second `renewed`, with these terms.
    fn replica(name: &str, renewed: u8, terms: &str) -> Replica {
        let lease = json!({
            "metadata": {"name": name, "annotations": {"quarterdeck.dev/terms": terms}},
            "spec": {
                "holderIdentity": format!("{name}_id"), "leaseDurationSeconds": 40,
                "renewTime": format!("2024-01-01T00:00:{renewed:02}.000000Z"),
            },
        });
        Replica::of(&serde_json::from_value(lease).expect("a Lease"))
    }

    fn names(replicas: &[Replica], holder: Option<&str>, wanted: Option<&str>) -> Result<Vec<String>, String> {
        let election = holder.map(|holder| Election { holder: Some(holder.to_owned()), ..Election::default() });
        let now = NOW.parse().expect("a time");
        let order = order(replicas, election.as_ref(), wanted, now).map_err(|error| error.to_string())?;
        Ok(order.into_iter().map(|replica| replica.name.clone()).collect())
    }

    #[test]
    fn the_leader_comes_first_and_the_silent_last() {
        let lasting = r#"[{"began": "2024-01-01T00:00:00Z"}]"#;
        let later = r#"[{"began": "2024-01-01T00:00:30Z", "ended": null}]"#;
        let over = r#"[{"began": "2024-01-01T00:00:00Z", "ended": "2024-01-01T00:00:10Z"}]"#;
        let all = [replica("a", 5, lasting), replica("b", 50, over), replica("c", 50, ""), replica("d", 50, lasting)];
        assert_eq!(names(&all, Some("c_id"), None).expect("an order"), ["c", "d", "b", "a"]);
        // Without the election's Lease their own words count, if they are still heard of.
        assert_eq!(names(&all, None, None).expect("an order"), ["d", "b", "c", "a"]);
        let two = [replica("d", 50, lasting), replica("e", 50, later)];
        assert_eq!(names(&two, None, None).expect("an order"), ["e", "d"]);
        // A holder that has no Lease of its own, such as one of another version.
        assert_eq!(names(&all, Some("stranger"), None).expect("an order"), ["d", "b", "c", "a"]);
        assert_eq!(names(&[], None, None).expect("an order"), Vec::<String>::new());
    }

    #[test]
    fn a_named_replica_is_the_only_one() {
        let all = [replica("a", 5, ""), replica("b", 50, "")];
        assert_eq!(names(&all, Some("b_id"), Some("a")).expect("an order"), ["a"]);
        assert_eq!(names(&all, None, Some("b_id")).expect("an order"), ["b"]);
        let error = names(&all, None, Some("x")).expect_err("nobody");
        assert_eq!(error, "there is no replica \"x\"; there are: a, b");
    }
}
