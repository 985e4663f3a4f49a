//! When changes that failed are tried again, each by itself: a route that a cloud refuses holds up no other, and is not
//! asked for again and again.

use std::collections::HashMap;
use std::time::Duration;

use ipnet::IpNet;
use quarterdeck_cloud::CloudError;
use tokio::time::Instant;
use uuid::Uuid;

use super::plan::Op;

/// First delay, doubled with each failure in a row up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// What tells one change from another.
type Change = (&'static str, IpNet, String);

/// Changes that failed.
#[derive(Debug, Default)]
pub(super) struct Tries {
    failed: HashMap<Change, Failed>,
}

#[derive(Debug)]
struct Failed {
    op_id: Uuid,
    in_a_row: u32,
    /// How it failed last.
    outcome: &'static str,
    until: Instant,
}

fn change(op: &Op) -> Change {
    match op {
        Op::Create(new) => ("create", new.destination, new.node.clone()),
        Op::Replace { new, .. } => ("replace", new.destination, new.node.clone()),
        Op::Delete(route) => ("delete", route.destination, route.name.clone()),
    }
}

/// Value of the label `operation` of the metrics.
pub(super) fn verb(op: &Op) -> &'static str {
    change(op).0
}

impl Tries {
    /// Forgets changes that are not wanted any more.
    pub(super) fn keep<'a>(&mut self, wanted: impl IntoIterator<Item = &'a Op>) {
        let mut before = std::mem::take(&mut self.failed);
        for op in wanted {
            if let Some((change, failed)) = before.remove_entry(&change(op)) {
                self.failed.insert(change, failed);
            }
        }
    }

    /// The id under which a change is to be made now, the same for each try; `None` if it is too early.
    pub(super) fn begin(&self, op: &Op, now: Instant) -> Option<Uuid> {
        match self.failed.get(&change(op)) {
            None => Some(Uuid::new_v4()),
            Some(failed) => Some(failed.op_id).filter(|_| failed.until <= now),
        }
    }

    /// Notes how a try ended: with an error, or well. Says whether that is news: the first failure of a row, or another
    /// one than before.
    pub(super) fn end(&mut self, op: &Op, op_id: Uuid, error: Option<&CloudError>, now: Instant) -> bool {
        let change = change(op);
        let Some(error) = error else {
            self.failed.remove(&change);
            return false;
        };
        let failed = self.failed.entry(change).or_insert(Failed { op_id, in_a_row: 0, outcome: "", until: now });
        let is_news = failed.outcome != error.outcome();
        failed.outcome = error.outcome();
        let delay = FIRST.saturating_mul(1_u32.checked_shl(failed.in_a_row).unwrap_or(u32::MAX)).min(LONGEST);
        failed.in_a_row += 1;
        failed.until = now + delay.max(error.retry_after().unwrap_or_default());
        is_news
    }

    /// When the next try is due, if any is.
    pub(super) fn next(&self) -> Option<Instant> {
        self.failed.values().map(|failed| failed.until).min()
    }
}

#[cfg(test)]
mod tests {
    use quarterdeck_cloud::model::Route;

    use super::*;

    fn create(cidr: &str) -> Op {
        Op::Create(Route {
            name: "r".to_owned(),
            destination: cidr.parse().unwrap(),
            node: "n1".to_owned(),
            provider_id: String::new(),
            next_hops: Vec::new(),
            blackhole: false,
        })
    }

    /// cloud-provider retries only conflicts of the API server (defect 10).
    #[test]
    fn each_change_backs_off_by_itself() {
        let (mut tries, now) = (Tries::default(), Instant::now());
        let (one, other) = (create("10.0.1.0/24"), create("10.0.2.0/24"));
        let id = tries.begin(&one, now).unwrap();
        assert_eq!(tries.next(), None);
        let full = CloudError::Quota("full".to_owned());
        assert!(tries.end(&one, id, Some(&full), now), "the first failure is told");
        assert!(!tries.end(&one, id, Some(&full), now), "the next one is no news");
        assert!(tries.end(&one, id, Some(&CloudError::Denied("no".to_owned())), now), "another one is");
        tries.end(&one, id, None, now);
        let id = tries.begin(&one, now).unwrap();
        tries.end(&one, id, Some(&full), now);
        assert_eq!(tries.begin(&one, now), None, "too early");
        assert!(tries.begin(&other, now).is_some(), "nobody else waits");
        assert_eq!(tries.next(), Some(now + FIRST));
        assert_eq!(tries.begin(&one, now + FIRST), Some(id), "the same operation");
        for _ in 0..40 {
            tries.end(&one, id, Some(&CloudError::Quota("full".to_owned())), now);
        }
        assert_eq!(tries.next(), Some(now + LONGEST));
        let hint = CloudError::Throttled { after: Some(LONGEST * 2), message: String::new() };
        tries.end(&one, id, Some(&hint), now);
        assert_eq!(tries.next(), Some(now + LONGEST * 2), "the cloud's word counts");
        tries.end(&one, id, None, now);
        assert!(tries.next().is_none() && tries.begin(&one, now).is_some());
        tries.end(&one, id, Some(&CloudError::Other(String::new())), now);
        tries.keep([&other]);
        assert!(tries.next().is_none(), "what is not wanted any more is forgotten");
    }
}
