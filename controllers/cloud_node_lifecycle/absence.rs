//! What has been seen of nodes whose instance seems to be gone, until that is proven or refuted. Pure.
//!
//! An absence is proven by two answers of the cloud itself, at least [`SPACING`] apart, about the same node with the
//! same providerID, which was not Ready all the time in between. An answer counts only if nothing about the snapshot it
//! is part of raises a doubt.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quarterdeck_cloud::guard::Seen;
use quarterdeck_cloud::model::Lookup;
use quarterdeck_runtime::view::NodeView;
use tokio::time::Instant;

/// How far apart the two answers are.
pub(super) const SPACING: Duration = Duration::from_secs(15);
/// When the cloud is asked again about a node whose absence is proven and that is kept all the same.
const HELD_SPACING: Duration = Duration::from_secs(30);

/// How old the latest answer may be when a node is deleted.
const FRESH: Duration = Duration::from_secs(60);

/// What makes an absence count for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The snapshot finds no Ready node: it may be of another account, region or time.
    NoWitness,
    /// The snapshot lacks a node that is Ready: it is not complete.
    ReadyNodeAbsent(String),
    /// The cloud does not say whose machines it looked through.
    NoAccount,
    /// The cloud looked through another account than the one that nodes were found in before.
    AccountChanged {
        /// Name of the object that has the account of before.
        record: String,
        /// The account of before.
        recorded: Arc<str>,
        /// The account that was asked.
        asked: Arc<str>,
    },
    /// It is not written down yet in which account the nodes are.
    AccountUnrecorded,
}

impl Doubt {
    /// Value of the label `reason` of the metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NoWitness => "no_witness",
            Self::ReadyNodeAbsent(_) => "ready_node_absent",
            Self::NoAccount => "no_account",
            Self::AccountChanged { .. } => "account_changed",
            Self::AccountUnrecorded => "account_unrecorded",
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWitness => f.write_str("the same answer of the cloud finds none of the cluster's Ready nodes"),
            Self::ReadyNodeAbsent(node) => {
                write!(f, "the same answer of the cloud lacks node {node}, which is Ready: it is not complete")
            }
            Self::NoAccount => f.write_str("the cloud does not say in which account it looked"),
            Self::AccountChanged { record, recorded, asked } => write!(
                f,
                "the cloud looked in account {asked:?}, and nodes of this cluster were found in {recorded:?} before; if \
                 that is as it should be: kubectl delete cloudaccounts.{} {record}",
                quarterdeck_api::cloud::GROUP
            ),
            Self::AccountUnrecorded => {
                f.write_str("the account in which the cluster's nodes are is only being recorded")
            }
        }
    }
}

/// In which account the cluster's nodes are, as it was written down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// Name of the object that has it.
    pub(super) name: &'a str,
    /// The account; `None` if nothing was written down yet.
    pub(super) account: Option<&'a Arc<str>>,
}

/// The doubt that the answers of one snapshot raise, about all of the nodes that were asked for.
pub(super) fn doubt_of(snapshot: &[(&NodeView, &Seen)], record: Record<'_>) -> Option<Doubt> {
    let ready = || snapshot.iter().filter(|(node, _)| node.ready);
    if let Some((node, _)) = ready().find(|(_, seen)| matches!(seen.lookup, Ok(Lookup::Absent(_)))) {
        return Some(Doubt::ReadyNodeAbsent(node.key.name().to_owned()));
    }
    if !ready().any(|(_, seen)| matches!(seen.lookup, Ok(Lookup::Found(_)))) {
        return Some(Doubt::NoWitness);
    }
    let asked = Arc::clone(&snapshot.first()?.1.account);
    if asked.is_empty() {
        return Some(Doubt::NoAccount);
    }
    match record.account {
        None => Some(Doubt::AccountUnrecorded),
        Some(recorded) if *recorded == asked => None,
        Some(recorded) => {
            Some(Doubt::AccountChanged { record: record.name.to_owned(), recorded: Arc::clone(recorded), asked })
        }
    }
}

/// A node whose instance seems to be gone.
#[derive(Clone, Debug)]
pub(super) struct Suspect {
    /// `spec.providerID` at the first answer.
    provider_id: Option<Arc<str>>,
    /// When the node last stopped being Ready, at the first answer.
    ready_changed: Option<i64>,
    /// When the cloud was last asked.
    asked: Instant,
    /// When the first answer that counts was given, and the account it was about.
    first: Option<(Instant, Arc<str>)>,
    /// When the latest answer that counts was given.
    last: Option<Instant>,
    /// What the cloud said.
    pub(super) evidence: String,
    /// Why the latest answer does not count.
    pub(super) doubt: Option<Doubt>,
    /// How many answers in a row did not count.
    doubted: u32,
    /// What keeps the node, as it was last told.
    pub(super) told: Option<&'static str>,
}

impl Suspect {
    /// Whether the instance was proven to be gone.
    fn is_proven(&self) -> bool {
        let (Some((first, _)), Some(last)) = (&self.first, self.last) else { return false };
        self.doubt.is_none() && last.saturating_duration_since(*first) >= SPACING
    }

    /// Whether it was proven, and that still counts: the cloud may have been silent since.
    pub(super) fn is_proven_at(&self, now: Instant) -> bool {
        self.is_proven() && now.saturating_duration_since(self.asked) <= FRESH
    }

    /// Whether the doubt has lasted: a first one often passes by itself, when a node that went stops being Ready, or
    /// the account has been recorded.
    pub(super) fn is_doubt_lasting(&self) -> bool {
        self.doubted > 1
    }

    /// Whether the cloud is to be asked again.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let spacing = if self.is_proven() { HELD_SPACING } else { SPACING };
        now.saturating_duration_since(self.asked) >= spacing
    }

    /// Whether it is still the same node in the same state.
    fn still(&self, node: &NodeView) -> bool {
        !node.ready && self.provider_id == node.provider_id && self.ready_changed == node.ready_changed
    }
}

/// Nodes of one cloud whose instances seem to be gone, by uid.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    by_uid: HashMap<Arc<str>, Suspect>,
}

impl Suspects {
    /// Forgets nodes that are gone, are Ready or were so, or are other ones now.
    pub(super) fn keep<'a>(&mut self, nodes: impl IntoIterator<Item = &'a NodeView>) {
        let mut before = std::mem::take(&mut self.by_uid);
        for node in nodes {
            if let Some(suspect) = before.remove(&node.uid).filter(|suspect| suspect.still(node)) {
                self.by_uid.insert(Arc::clone(&node.uid), suspect);
            }
        }
    }

    pub(super) fn get(&self, node: &NodeView) -> Option<&Suspect> {
        self.by_uid.get(&node.uid)
    }

    pub(super) fn get_mut(&mut self, node: &NodeView) -> Option<&mut Suspect> {
        self.by_uid.get_mut(&node.uid)
    }

    /// It exists, or nobody can say that it does not.
    pub(super) fn clear(&mut self, node: &NodeView) {
        self.by_uid.remove(&node.uid);
    }

    /// Takes an answer of the cloud itself.
    pub(super) fn hear(&mut self, node: &NodeView, seen: &Seen, doubt: Option<&Doubt>) {
        let Ok(Lookup::Absent(proof)) = &seen.lookup else { return self.clear(node) };
        let fresh = Suspect {
            provider_id: node.provider_id.clone(),
            ready_changed: node.ready_changed,
            asked: seen.at,
            first: None,
            last: None,
            evidence: String::new(),
            doubt: None,
            doubted: 0,
            told: None,
        };
        let suspect = self.by_uid.entry(Arc::clone(&node.uid)).or_insert_with(|| fresh.clone());
        if !suspect.still(node) {
            *suspect = fresh;
        }
        suspect.asked = seen.at;
        suspect.evidence.clone_from(&proof.evidence);
        suspect.doubt = doubt.cloned();
        if doubt.is_some() {
            suspect.doubted = suspect.doubted.saturating_add(1);
            (suspect.first, suspect.last) = (None, None);
            return;
        }
        suspect.doubted = 0;
        match &suspect.first {
            Some((_, account)) if *account == seen.account => {}
            _ => suspect.first = Some((seen.at, Arc::clone(&seen.account))),
        }
        suspect.last = Some(seen.at);
    }
}

#[cfg(test)]
mod tests {
    use quarterdeck_cloud::CloudError;
    use quarterdeck_cloud::model::{Instance, Proof};

    use super::*;

    fn node(name: &str, ready: bool) -> NodeView {
        NodeView {
            uid: format!("uid-{name}").into(),
            provider_id: Some(format!("sim://{name}").into()),
            ready,
            ready_changed: Some(100),
            ..NodeView::named(name)
        }
    }

    fn found() -> Result<Lookup, CloudError> {
        Ok(Lookup::Found(Box::new(Instance {
            provider_id: "sim://x".to_owned(),
            instance_type: String::new(),
            addresses: Vec::new(),
            zone: String::new(),
            region: String::new(),
            labels: Default::default(),
            shutdown: false,
        })))
    }

    fn absent() -> Result<Lookup, CloudError> {
        Ok(Lookup::Absent(Proof { evidence: "404".to_owned() }))
    }

    fn seen(lookup: Result<Lookup, CloudError>, at: Instant, account: &str) -> Seen {
        Seen { lookup, account: account.into(), at, snapshot: 1 }
    }

    #[test]
    fn an_answer_counts_only_beside_a_ready_node_in_the_recorded_account() {
        let now = Instant::now();
        let suspect = node("gone", false);
        let (well, unwell) = (node("w", true), node("w", false));
        let other = || Err(CloudError::Other("x".into()));
        let cases = [
            ("all is well", &well, found(), "a", Some("a"), None),
            ("nobody is Ready", &unwell, found(), "a", Some("a"), Some("no_witness")),
            ("an error about the witness", &well, other(), "a", Some("a"), Some("no_witness")),
            ("the witness is not its", &well, Ok(Lookup::NotMine), "a", Some("a"), Some("no_witness")),
            ("an empty list with 200", &well, absent(), "a", Some("a"), Some("ready_node_absent")),
            ("no account", &well, found(), "", Some("a"), Some("no_account")),
            ("another account", &well, found(), "b", Some("a"), Some("account_changed")),
            ("first sight", &well, found(), "a", None, Some("account_unrecorded")),
        ];
        for (case, witness, lookup, account, recorded, expected) in cases {
            let (gone, beside) = (seen(absent(), now, account), seen(lookup, now, account));
            let recorded: Option<Arc<str>> = recorded.map(Into::into);
            let record = Record { name: "sim", account: recorded.as_ref() };
            let doubt = doubt_of(&[(&suspect, &gone), (witness, &beside)], record);
            assert_eq!(doubt.as_ref().map(Doubt::reason), expected, "{case}");
        }
        let recorded: Arc<str> = "a".into();
        let record = Record { name: "sim", account: Some(&recorded) };
        assert_eq!(doubt_of(&[(&suspect, &seen(absent(), now, "a"))], record), Some(Doubt::NoWitness), "alone");
        let (gone, beside) = (seen(absent(), now, "b"), seen(found(), now, "b"));
        let doubt = doubt_of(&[(&suspect, &gone), (&well, &beside)], record).unwrap().to_string();
        assert!(doubt.contains("\"a\"") && doubt.contains("\"b\"") && doubt.ends_with(" sim"), "{doubt}");
    }

    #[tokio::test(start_paused = true)]
    async fn two_answers_far_enough_apart_prove_it() {
        let (mut suspects, gone) = (Suspects::default(), node("gone", false));
        let hear = |suspects: &mut Suspects| suspects.hear(&gone, &seen(absent(), Instant::now(), "a"), None);
        hear(&mut suspects);
        assert!(!suspects.get(&gone).unwrap().is_proven() && !suspects.get(&gone).unwrap().is_due(Instant::now()));
        tokio::time::advance(SPACING / 2).await;
        hear(&mut suspects);
        assert!(!suspects.get(&gone).unwrap().is_proven(), "too soon");
        tokio::time::advance(SPACING / 2).await;
        suspects.keep([&gone]);
        hear(&mut suspects);
        assert!(suspects.get(&gone).unwrap().is_proven());
        assert!(suspects.get(&gone).unwrap().is_proven_at(Instant::now() + FRESH));
        let late = Instant::now() + FRESH + Duration::from_millis(1);
        assert!(!suspects.get(&gone).unwrap().is_proven_at(late), "the cloud was silent since");
        tokio::time::advance(SPACING).await;
        assert!(!suspects.get(&gone).unwrap().is_due(Instant::now()), "kept nodes are asked for less often");
        tokio::time::advance(HELD_SPACING - SPACING).await;
        assert!(suspects.get(&gone).unwrap().is_due(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn anything_else_in_between_starts_over() {
        let gone = node("gone", false);
        type Between = fn(&mut Suspects, &NodeView);
        let cases: [(&str, Between); 8] = [
            ("an error", |s, n| s.hear(n, &seen(Err(CloudError::Other("x".into())), Instant::now(), "a"), None)),
            ("found", |s, n| s.hear(n, &seen(found(), Instant::now(), "a"), None)),
            ("not mine", |s, n| s.hear(n, &seen(Ok(Lookup::NotMine), Instant::now(), "a"), None)),
            ("a doubt", |s, n| s.hear(n, &seen(absent(), Instant::now(), "a"), Some(&Doubt::NoWitness))),
            ("another account", |s, n| s.hear(n, &seen(absent(), Instant::now(), "b"), None)),
            ("ready", |s, n| s.keep([&NodeView { ready: true, ..n.clone() }])),
            ("ready for a while", |s, n| s.keep([&NodeView { ready_changed: Some(101), ..n.clone() }])),
            ("another node", |s, n| s.keep([&NodeView { uid: "other".into(), ..n.clone() }])),
        ];
        for (case, between) in cases {
            let mut suspects = Suspects::default();
            suspects.hear(&gone, &seen(absent(), Instant::now(), "a"), None);
            tokio::time::advance(SPACING).await;
            between(&mut suspects, &gone);
            suspects.hear(&gone, &seen(absent(), Instant::now(), "a"), None);
            assert!(!suspects.get(&gone).unwrap().is_proven(), "{case}");
            tokio::time::advance(SPACING).await;
            suspects.hear(&gone, &seen(absent(), Instant::now(), "a"), None);
            assert!(suspects.get(&gone).unwrap().is_proven(), "{case}, later");
            // A providerID that changed without a pass in between.
            let other = NodeView { provider_id: Some("sim://other".into()), ..gone.clone() };
            suspects.hear(&other, &seen(absent(), Instant::now(), "a"), None);
            assert!(!suspects.get(&other).unwrap().is_proven(), "{case}, another instance");
        }
    }
}
