//! What a channel's entry wants removed beside the inventory: what its `prune` finds
//! (kops:channels/pkg/channels/prune.go), and what carries its `selector`, was applied by kOps, and is in
//! the manifest no more. The first goes, as far as no brake holds it; the second only once a person has
//! said so.

use std::collections::{BTreeMap, BTreeSet};

use quarterdeck_api::channel::PruneKind;
use quarterdeck_runtime::client::{ApiError, Class, DeletePrecondition, ListQuery, Propagation};
use quarterdeck_runtime::controller::Error;
use quarterdeck_runtime::object::Kind;
use serde_json::Value;
use tokio::time::Instant;

use super::Recent;
use super::channel::Offered;
use super::run::Run;
use crate::addon::applyset::PART_OF_LABEL;
use crate::addon::brake;
use crate::addon::candidates::{Candidates, Why, may_go, usual_kinds};
use crate::addon::edited::KOPS;
use crate::addon::ident::{GroupKind, Ident};
use crate::addon::parent::{self, Content};
use crate::addon::plan::rank;
use crate::addon::reasons;
use crate::addon::removal::Named;
use crate::addon::source::Addon;
use crate::addon::source::channel::SOURCE;

/// Objects in one page of a list.
const PAGE: u32 = 500;

/// What was found for an entry.
#[derive(Default)]
struct Found {
    /// What `prune` lets go: uid and version.
    go: BTreeMap<Ident, (Kind, String, String)>,
    /// What waits.
    wait: BTreeMap<Ident, (String, Why)>,
    /// Whether everything could be looked through.
    whole: bool,
}

impl Run<'_> {
    /// Notes, before anything of an addon is written, that kOps was here before: what it left is looked for.
    /// What we install ourselves has nothing of kOps' about it.
    pub(super) fn note_kops(&self, offered: Option<&Offered>, content: &mut Content) {
        if offered.is_some_and(Offered::follows) {
            content.candidates.of = KOPS.to_owned();
        }
    }

    /// Removes what the entry wants removed, and notes what waits for a person.
    pub(super) async fn prune_entry(
        &mut self,
        addon: &Addon,
        offered: Option<&Offered>,
        content: &mut Content,
    ) -> Result<(), Error> {
        let Some(offered) = offered.filter(|_| self.id.source == SOURCE) else { return Ok(()) };
        // A manifest that was not understood whole says of nothing that it is not in it.
        if !addon.complete || self.observing || addon.objects.is_empty() {
            return Ok(());
        }
        self.release_candidates(content).await?;
        let was_kops = !content.candidates.of.is_empty();
        let search = was_kops && content.candidates.of != *addon.version;
        if !search && !offered.applies() {
            return Ok(());
        }
        let named = self.engine.named();
        let mut found = Found { whole: true, ..Found::default() };
        if offered.applies() {
            for rule in offered.entry().prune.iter().flat_map(|prune| &prune.kinds) {
                self.find_by_rule(rule, &named, content, &mut found).await?;
            }
        }
        self.brake_entry(&mut found);
        if was_kops {
            self.find_by_selector(&offered.entry().selector, addon, &named, content, &mut found).await?;
        }
        let mut go: Vec<(Ident, (Kind, String, String))> = std::mem::take(&mut found.go).into_iter().collect();
        // The other way round: a namespace goes after what is in it.
        go.sort_by_key(|(ident, _)| std::cmp::Reverse(rank(ident)));
        for (ident, (kind, uid, version)) in go {
            self.delete_found(&ident, &kind, uid, Some(version)).await?;
        }
        let of = match () {
            () if !was_kops => String::new(),
            () if found.whole => addon.version.to_string(),
            () => content.candidates.of.clone(),
        };
        if !found.whole {
            // What could not be looked through still is as it was.
            let before = content.candidates.members.iter().map(|(ident, why)| (ident.clone(), why.clone()));
            for (ident, why) in before {
                found.wait.entry(ident).or_insert(why);
            }
        }
        let mut candidates = Candidates { of, plan: String::new(), members: found.wait };
        if candidates.members == content.candidates.members {
            candidates.plan.clone_from(&content.candidates.plan);
        } else {
            candidates.name(&self.id);
            self.tell_candidates(&candidates);
        }
        content.candidates = candidates;
        Ok(())
    }

    /// What one rule of `prune` finds.
    async fn find_by_rule(
        &mut self,
        rule: &PruneKind,
        named: &Named,
        content: &Content,
        found: &mut Found,
    ) -> Result<(), Error> {
        let group_kind = GroupKind::new(&*rule.group, &*rule.kind);
        let kind = match self.engine.kinds.find_any(&self.api, &group_kind).await {
            Ok(Some(kind)) => kind,
            Ok(None) => {
                let text = format!("prune: the server has no kind {group_kind}: passed over");
                tracing::warn!(addon = %self.id, kind = %group_kind, "prune: the server has no such kind: passed over");
                self.outcome.notes.push(text);
                return Ok(());
            }
            Err(error) => {
                found.whole = false;
                return self.outcome.failed(&format!("prune: asking for {group_kind}"), error);
            }
        };
        for list in rule.lists() {
            let selectors = [list.label_selector, list.field_selector].map(|text| Some(text.to_owned()));
            let [labels, fields] = selectors.map(|text| text.filter(|text| !text.is_empty()));
            let live = match self.list_all(&kind, list.namespace, labels, fields).await {
                Ok(live) => live,
                Err(error) => {
                    // Nothing follows from a list that failed.
                    found.whole = false;
                    self.outcome.failed(&format!("prune: listing {group_kind}"), error)?;
                    continue;
                }
            };
            for (ident, live) in live {
                let looked_in =
                    rule.namespaces.is_empty() || rule.namespaces.iter().any(|wanted| **wanted == *ident.namespace);
                if !looked_in || self.is_kept(&ident, &live, named, content) {
                    continue;
                }
                match may_go(&live, false) {
                    Ok(uid) if self.engine.parts.protected.contains(&ident.kind) => {
                        found.wait.insert(ident, (uid, Why::Kind));
                    }
                    Ok(uid) => {
                        let version = live["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
                        found.go.insert(ident, (kind.clone(), uid, version));
                    }
                    Err(reason) => tracing::info!(addon = %self.id, object = %ident, reason, "not deleted"),
                }
            }
        }
        Ok(())
    }

    /// Holds what is too much at once.
    fn brake_entry(&self, found: &mut Found) {
        if found.go.is_empty() {
            return;
        }
        let now = Instant::now();
        let members: usize = self.engine.parents_of(SOURCE).values().map(|parent| parent.content.members.len()).sum();
        let mut shared = self.engine.shared.lock();
        let recent: usize = shared
            .recent
            .iter()
            .filter(|(id, recent)| **id != self.id && recent.is_recent(now))
            .map(|(_, recent)| recent.objects)
            .sum();
        let objects = found.go.len() + recent;
        if objects > brake::limit(members + objects) {
            let held = std::mem::take(&mut found.go).into_iter();
            found.wait.extend(held.map(|(ident, (_, uid, _))| (ident, (uid, Why::Brake))));
        } else {
            let recent = Recent { at: now, gone: false, objects: found.go.len() };
            shared.recent.entry(self.id.clone()).or_insert(recent);
        }
    }

    /// What kOps applied under the entry's selector, and the manifest does not name.
    async fn find_by_selector(
        &mut self,
        selector: &BTreeMap<String, String>,
        addon: &Addon,
        named: &Named,
        content: &Content,
        found: &mut Found,
    ) -> Result<(), Error> {
        // Without a selector nothing says whose an object is.
        if selector.is_empty() {
            return Ok(());
        }
        let labels = selector.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
        let mut kinds: BTreeSet<GroupKind> = usual_kinds().into_iter().collect();
        kinds.extend(addon.objects.iter().map(|object| object.ident.kind.clone()));
        kinds.extend(content.members.keys().map(|member| member.kind.clone()));
        for group_kind in kinds {
            let kind = self.engine.kinds.find_any(&self.api, &group_kind).await;
            let listed = match kind {
                Ok(None) => continue,
                Ok(Some(kind)) => self.list_all(&kind, None, Some(labels.clone()), None).await,
                Err(error) => Err(error),
            };
            match listed {
                Ok(live) => {
                    for (ident, live) in live {
                        if found.go.contains_key(&ident) || self.is_kept(&ident, &live, named, content) {
                            continue;
                        }
                        if let Ok(uid) = may_go(&live, true) {
                            found.wait.entry(ident).or_insert((uid, Why::Selector));
                        }
                    }
                }
                // An account that may not look has nothing to adopt there.
                Err(error) if error.is_forbidden() => {
                    self.outcome.notes.push(format!("selector: {group_kind} are not looked through: {error}"));
                }
                Err(error) => {
                    found.whole = false;
                    self.outcome.failed(&format!("selector: looking through {group_kind}"), error)?;
                }
            }
        }
        Ok(())
    }

    /// Whether an object is some addon's, this one's included.
    fn is_kept(&self, ident: &Ident, live: &Value, named: &Named, content: &Content) -> bool {
        let set = live["metadata"]["labels"][PART_OF_LABEL].as_str();
        named.may_mean(ident)
            || content.members.contains_key(ident)
            || set.is_some_and(|set| set != parent::set_id(&self.id) && self.engine.is_our_set(set))
    }

    /// Deletes what a person released.
    async fn release_candidates(&mut self, content: &mut Content) -> Result<(), Error> {
        let released = self.engine.parent(&self.id).and_then(|parent| parent.released);
        if content.candidates.members.is_empty() || released.as_ref() != Some(&content.candidates.plan) {
            return Ok(());
        }
        let named = self.engine.named();
        let mut members: Vec<(Ident, (String, Why))> = content.candidates.members.clone().into_iter().collect();
        members.sort_by_key(|(ident, _)| std::cmp::Reverse(rank(ident)));
        for (ident, (uid, why)) in members {
            let kind = match self.engine.kinds.find_any(&self.api, &ident.kind).await {
                Ok(kind) => kind,
                Err(error) => {
                    self.outcome.failed(&format!("removing {ident}"), error)?;
                    continue;
                }
            };
            let live = match &kind {
                Some(kind) => self.api.get::<Value>(kind, &ident.key()).await,
                // The kind is gone, and its objects with it.
                None => Ok(None),
            };
            let gone = match (live, kind) {
                (Err(error), _) => {
                    self.outcome.failed(&format!("removing {ident}"), error)?;
                    false
                }
                (Ok(Some(live)), Some(kind)) => {
                    let same = live["metadata"]["uid"] == *uid && !self.is_kept(&ident, &live, &named, content);
                    match may_go(&live, why == Why::Selector) {
                        Ok(uid) if same => {
                            let version = live["metadata"]["resourceVersion"].as_str().map(str::to_owned);
                            self.delete_found(&ident, &kind, uid, version).await?
                        }
                        // What was released is not there any more.
                        _ => true,
                    }
                }
                (Ok(_), _) => true,
            };
            if gone {
                content.candidates.members.remove(&ident);
            }
        }
        if content.candidates.members.is_empty() {
            content.candidates.plan.clear();
        }
        Ok(())
    }

    /// Deletes one object if it still is as it was seen; whether it is gone.
    async fn delete_found(
        &mut self,
        ident: &Ident,
        kind: &Kind,
        uid: String,
        resource_version: Option<String>,
    ) -> Result<bool, Error> {
        let precondition = DeletePrecondition { uid, resource_version };
        let metric = |result: &str| self.engine.parts.metrics.pruned.with_label_values(&[result]).inc();
        match self.api.delete(kind, &ident.key(), &precondition, Propagation::Background).await {
            Ok(()) => {
                metric("deleted");
                self.outcome.pruned.push(ident.to_string());
                Ok(true)
            }
            Err(error) if error.is_not_found() => {
                metric("gone");
                Ok(true)
            }
            Err(error) => {
                if error.class() != Class::NotLeader {
                    metric("failed");
                }
                self.outcome.failed(&format!("removing {ident}"), error)?;
                Ok(false)
            }
        }
    }

    /// All objects of a list, by metadata.
    async fn list_all(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        labels: Option<String>,
        fields: Option<String>,
    ) -> Result<Vec<(Ident, Value)>, ApiError> {
        let namespace = namespace.filter(|_| kind.namespaced);
        let mut query = ListQuery { labels, fields, limit: Some(PAGE), metadata_only: true, continue_token: None };
        let mut found = Vec::new();
        loop {
            let page = self.api.list::<Value>(kind, namespace, &query).await?;
            for live in page.items {
                let text = |field: &str| live["metadata"][field].as_str().unwrap_or_default().to_owned();
                found.push((Ident::new(GroupKind::from(kind), text("namespace"), text("name")), live));
            }
            match page.continue_token {
                Some(token) => query.continue_token = Some(token),
                None => return Ok(found),
            }
        }
    }

    fn tell_candidates(&self, candidates: &Candidates) {
        const FEW: usize = 5;
        if candidates.members.is_empty() {
            return;
        }
        let command = parent::candidates_command(&self.id, &candidates.plan);
        let mut few: Vec<String> = candidates.members.keys().take(FEW).map(ToString::to_string).collect();
        if candidates.members.len() > FEW {
            few.push(format!("and {} more", candidates.members.len() - FEW));
        }
        let text = format!(
            "{}: outside its manifest, and deleted only when confirmed: {}. To delete: {command}",
            self.id,
            few.join("; ")
        );
        tracing::warn!(addon = %self.id, objects = candidates.members.len(), command, "objects wait to be confirmed");
        let uid = self.engine.parent(&self.id).map(|parent| parent.uid).unwrap_or_default();
        let about = parent::reference(&self.id, &uid);
        self.recorder.event(&about, reasons::CANDIDATES, text);
    }
}
