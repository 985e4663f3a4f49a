//! One pass over the content of a namespace: look at every kind, delete the pods, then the rest.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use parking_lot::Mutex;
use quarterdeck_runtime::client::{Api, ApiError, Class, DeletePrecondition, ListQuery, Propagation};
use quarterdeck_runtime::object::{Kind, ObjectKey};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::content::{COLLECTION_LIMIT, Leftover, Report, Step, Survey, Target, step};
use super::discovery::{Catalog, Resource};
use super::outcome::Outcome;

/// How many kinds of one namespace are looked at at once.
const KINDS_AT_ONCE: usize = 16;
/// How many kinds of one namespace are emptied at once. A collection is much work for the server, in the time that one write
/// has: more of them at a time only time out.
const SWEEPS_AT_ONCE: usize = 4;
/// How many objects of one kind are deleted one by one at once.
const OBJECTS_AT_ONCE: usize = 8;
/// Objects a page when listing.
const PAGE: u32 = 500;
/// How long the lists of one kind may take together.
const LIST_LIMIT: Duration = Duration::from_secs(10);
/// How long a request that the server does not know is not tried again. Not for ever: the kind may
/// be defined anew.
const UNSUPPORTED_FOR: Duration = Duration::from_secs(60);
/// Errors of single objects kept for one kind.
const ERRORS_KEPT: usize = 3;

/// Why a pass ended before its end.
#[derive(Debug)]
pub(super) enum Abort {
    /// The namespace is gone, is another one, or is not being deleted.
    Changed,
    /// A call failed in a way that concerns all others.
    Api(ApiError),
}

/// Requests that the server has refused for a kind with 404 or 405.
#[derive(Default)]
pub(super) struct Unsupported(Mutex<HashMap<(Kind, Request), Instant>>);

/// A request on a whole collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Request {
    /// `list`.
    List,
    /// `deletecollection`.
    DeleteCollection,
}

impl Unsupported {
    /// Remembers a refusal.
    pub(super) fn refused(&self, kind: &Kind, request: Request) {
        self.0.lock().insert((kind.clone(), request), Instant::now());
    }

    /// Whether a refusal is recent enough to spare the request.
    pub(super) fn recently(&self, kind: &Kind, request: Request) -> bool {
        let mut refusals = self.0.lock();
        let key = (kind.clone(), request);
        let recent = refusals.get(&key).is_some_and(|at| at.elapsed() < UNSUPPORTED_FOR);
        if !recent {
            refusals.remove(&key);
        }
        recent
    }
}

/// One pass over one namespace.
pub(super) struct Sweep<'a> {
    /// Calls.
    pub api: &'a Api,
    /// Key of the namespace.
    pub key: &'a ObjectKey,
    /// uid of the namespace whose content goes.
    pub uid: &'a str,
    /// Whether the client has refused a deletecollection in this pass, because no fence is known to
    /// work that would refuse a late one; then objects go one by one, by uid.
    pub unfenced: AtomicBool,
    /// When to stop deleting and report.
    pub deadline: Instant,
    /// What the server is known not to do.
    pub unsupported: &'a Unsupported,
    /// Bounds the deletes of single objects, over all namespaces.
    pub deletes: &'a Semaphore,
}

impl Sweep<'_> {
    /// Looks at all kinds, then deletes the pods, and the rest once no pod is left. With `only`, looks
    /// at these alone: the others were empty before, and nothing is created any more; what that missed
    /// is found by the pass over all kinds without which no namespace goes.
    pub(super) async fn run(&self, catalog: &Catalog, only: &[Kind]) -> Result<Outcome, Abort> {
        let resources: Vec<&Resource> = catalog
            .resources
            .iter()
            .filter(|r| only.is_empty() || only.contains(&r.kind))
            .filter(|r| r.list && !self.unsupported.recently(&r.kind, Request::List))
            .collect();
        let looks: Vec<_> = resources.iter().map(|resource| self.look(&resource.kind)).collect();
        let mut reports: Vec<Report> = futures::stream::iter(looks).buffered(KINDS_AT_ONCE).collect().await;
        let untouched = only.is_empty() && reports.iter().all(Report::is_clear);

        let pods = Kind::of::<Pod>();
        let at = resources.iter().position(|r| r.kind.group.is_empty() && r.kind.plural == pods.plural);
        if let Some(at) = at.filter(|at| wants_sweep(&reports[*at])) {
            reports[at] = self.sweep(resources[at], reports[at].survey.clone()).await?;
        }
        if no_pods(at.map(|at| &reports[at]), catalog) {
            let wanted = (0..reports.len()).filter(|i| wants_sweep(&reports[*i]));
            let sweeps: Vec<_> = wanted.map(|i| self.sweep_at(i, resources[i], reports[i].survey.clone())).collect();
            let swept: Vec<(usize, Report)> =
                futures::stream::iter(sweeps).buffer_unordered(SWEEPS_AT_ONCE).try_collect().await?;
            for (i, report) in swept {
                reports[i] = report;
            }
            self.collect_unlistable(catalog, &mut reports).await?;
        }
        Ok(Outcome { failures: catalog.failures.clone(), unparsable: catalog.unparsable.clone(), reports, untouched })
    }

    /// What is left of one kind, as a report.
    async fn look(&self, kind: &Kind) -> Report {
        match self.survey(kind).await {
            Ok(survey) => Report { kind: kind.clone(), survey, errors: Vec::new() },
            Err(error) => Report { kind: kind.clone(), survey: Survey::default(), errors: vec![error] },
        }
    }

    /// What lists show of one kind. A kind that hangs holds up nothing but itself.
    async fn survey(&self, kind: &Kind) -> Result<Survey, String> {
        match tokio::time::timeout(LIST_LIMIT, self.pages(kind)).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no list of {kind} within {LIST_LIMIT:?}")),
        }
    }

    async fn pages(&self, kind: &Kind) -> Result<Survey, ApiError> {
        let mut query = ListQuery { limit: Some(PAGE), metadata_only: true, ..ListQuery::default() };
        let mut survey = Survey::default();
        loop {
            let page = match self.api.list::<Leftover>(kind, Some(self.key.name()), &query).await {
                // The server knows no such collection, whatever its discovery says.
                Err(error) if matches!(error.code(), Some(404 | 405)) => {
                    self.unsupported.refused(kind, Request::List);
                    return Ok(Survey::none());
                }
                answer => answer?,
            };
            let more = page.continue_token.is_some();
            if !survey.page(&page.items, more) {
                return Ok(survey);
            }
            query.continue_token = page.continue_token;
        }
    }

    async fn sweep_at(&self, at: usize, resource: &Resource, survey: Survey) -> Result<(usize, Report), Abort> {
        Ok((at, self.sweep(resource, survey).await?))
    }

    /// Deletes one kind until nothing is left, all that is left waits for others, nothing moves any
    /// more, or the time is up.
    async fn sweep(&self, resource: &Resource, mut survey: Survey) -> Result<Report, Abort> {
        let kind = &resource.kind;
        let mut collect = self.may_collect(resource);
        let mut errors = Vec::new();
        loop {
            let taken = step(&survey, collect);
            match taken {
                Step::Clear | Step::Wait => {
                    errors.clear();
                    break;
                }
                Step::Collect => collect = self.delete_collection(kind).await?,
                Step::Each => errors = self.delete_each(kind, &survey.pending).await?,
            }
            let before = survey.pending;
            match self.survey(kind).await {
                Ok(after) => survey = after,
                Err(error) => {
                    errors.push(error);
                    survey = Survey::default();
                    break;
                }
            }
            // A deletecollection that moves nothing is no reason to give up; deletes are.
            let stuck = !survey.pending.is_empty() && survey.pending == before;
            if stuck && taken == Step::Each {
                if errors.is_empty() {
                    errors.push("objects stay although their deletion was accepted".to_owned());
                }
                break;
            }
            collect &= !stuck;
            if Instant::now() >= self.deadline {
                break;
            }
        }
        Ok(Report { kind: kind.clone(), survey, errors })
    }

    fn may_collect(&self, resource: &Resource) -> bool {
        resource.delete_collection
            && !self.unfenced.load(Ordering::Relaxed)
            && !self.unsupported.recently(&resource.kind, Request::DeleteCollection)
    }

    /// One deletecollection, right after a live look at the namespace. Answers whether to go on in
    /// this way: no time-out is a reason not to, since what was deleted until then stays deleted; any
    /// other error is, since one object that cannot be deleted stops the whole collection.
    async fn delete_collection(&self, kind: &Kind) -> Result<bool, Abort> {
        self.still_deleting().await?;
        match self.api.delete_collection(kind, self.key.name(), COLLECTION_LIMIT).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_timeout() => Ok(true),
            Err(error) if error.class() == Class::NotLeader => Err(Abort::Api(error)),
            Err(error) if error.is_unfenced() => {
                self.unfenced.store(true, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => {
                if matches!(error.code(), Some(404 | 405)) {
                    self.unsupported.refused(kind, Request::DeleteCollection);
                }
                tracing::debug!(namespace = %self.key, %kind, %error, "deleting the objects one by one");
                Ok(false)
            }
        }
    }

    /// A delete carries no precondition on the namespace, so this is as near to it as a read gets;
    /// what comes in between is for the server's fence to refuse.
    async fn still_deleting(&self) -> Result<(), Abort> {
        match self.api.get::<Leftover>(&Kind::of::<Namespace>(), self.key).await {
            Ok(Some(live)) if live.metadata.uid == self.uid && live.deleting() => Ok(()),
            Ok(_) => Err(Abort::Changed),
            Err(error) => Err(Abort::Api(error)),
        }
    }

    /// Deletes objects by uid, several at once. Answers what went wrong; objects that are gone or
    /// have been replaced are no error.
    async fn delete_each(&self, kind: &Kind, targets: &[Target]) -> Result<Vec<String>, Abort> {
        let mut failed = 0;
        let mut errors = Vec::new();
        let deletes: Vec<_> = targets.iter().map(|target| self.delete_one(kind, target)).collect();
        let mut results = futures::stream::iter(deletes).buffer_unordered(OBJECTS_AT_ONCE);
        while let Some(result) = results.next().await {
            let Err(error) = result else { continue };
            if error.class() == Class::NotLeader {
                return Err(Abort::Api(error));
            }
            if error.is_not_found() || error.is_conflict() {
                continue;
            }
            failed += 1;
            if errors.len() < ERRORS_KEPT {
                errors.push(error.to_string());
            }
        }
        if failed > errors.len() {
            errors.push(format!("{} more", failed - errors.len()));
        }
        Ok(errors)
    }

    async fn delete_one(&self, kind: &Kind, target: &Target) -> Result<(), ApiError> {
        let _permit = self.deletes.acquire().await.expect("the semaphore is never closed");
        let precondition = DeletePrecondition { uid: target.uid.clone(), resource_version: None };
        let key = ObjectKey::new(self.key.name(), target.name.as_str());
        self.api.delete(kind, &key, &precondition, Propagation::Background).await
    }

    /// Kinds that can be deleted and not listed: one deletecollection, and nobody can tell what it
    /// left (as upstream).
    async fn collect_unlistable(&self, catalog: &Catalog, reports: &mut Vec<Report>) -> Result<(), Abort> {
        for resource in catalog.resources.iter().filter(|r| !r.list) {
            if !self.may_collect(resource) || self.delete_collection(&resource.kind).await? {
                continue;
            }
            // Refused for another reason than that it is not to be had.
            if self.may_collect(resource) {
                reports.push(Report {
                    kind: resource.kind.clone(),
                    survey: Survey::none(),
                    errors: vec!["the collection can be neither listed nor deleted".to_owned()],
                });
            }
        }
        Ok(())
    }
}

/// Whether there is something to delete of which the list was readable.
fn wants_sweep(report: &Report) -> bool {
    report.errors.is_empty() && !report.survey.is_clear()
}

/// Whether it is certain that no pod is left: their list was read and is empty, or the server that
/// answered for the core group has no pods.
pub(super) fn no_pods(pods: Option<&Report>, catalog: &Catalog) -> bool {
    match pods {
        Some(report) => report.is_clear(),
        None => !catalog.failures.iter().any(|failure| failure.group_version == "v1"),
    }
}
