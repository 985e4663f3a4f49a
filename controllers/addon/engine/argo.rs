//! Who runs the phases of an Addon object, and those that Argo runs.

use std::time::Duration;

use jiff::Timestamp;
use quarterdeck_runtime::client::{Api, ApiError};
use quarterdeck_runtime::controller::Error;
use quarterdeck_runtime::object::ObjectKey;
use serde_json::Value;

use super::run::Run;
use crate::addon::ident::GroupKind;
use crate::addon::lifecycle::{Book, Lifecycle, Phase, SUCCEEDED};
use crate::addon::parent;
use crate::addon::reasons;
use crate::addon::workflow::execute::{self, Observed};
use crate::addon::workflow::runner::{Runner, Wish, choose};
use crate::addon::workflow::{self, Program};

/// When a workflow that failed is looked at again at the earliest.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// When Argo is looked for again whose CRD has just come.
const COMING: Duration = Duration::from_secs(1);

/// Who runs a phase.
pub(super) enum Chosen {
    Native(Box<Program>),
    Argo,
    /// Nobody: what is not in the grammar.
    Nobody(String),
    /// The server could not be asked.
    Unknown,
}

impl Run<'_> {
    /// Who runs a phase.
    pub(super) async fn runner(&mut self, lifecycle: &Lifecycle, phase: &Phase, book: &Book) -> Result<Chosen, Error> {
        let progress = book.of(phase.step, &lifecycle.checksum);
        if progress.nodes.is_empty() && progress.status.as_deref() == Some(SUCCEEDED) {
            return Ok(Chosen::Argo);
        }
        let compiled = lifecycle.program(phase, &progress);
        let served = if lifecycle.wish == Wish::Argo || compiled.is_err() {
            let kind = execute::workflow_kind();
            match self.engine.kinds.find_any(&self.api, &GroupKind::from(&kind)).await {
                Ok(kind) => kind.is_some(),
                Err(error) => {
                    self.outcome.failed(&format!("{}: asking for Argo", phase.step), error)?;
                    return Ok(Chosen::Unknown);
                }
            }
        } else {
            false
        };
        if (lifecycle.wish == Wish::Argo || compiled.is_err()) && !served && self.engine.wait_for_argo(&self.id) {
            // Its CRD is there and not served yet: a matter of moments.
            self.outcome.look_again(COMING);
        }
        let begun = !progress.nodes.is_empty();
        Ok(match choose(lifecycle.wish, compiled, served, begun) {
            Ok(Runner::Native(program)) => Chosen::Native(program),
            Ok(Runner::Argo) => Chosen::Argo,
            Err(refusals) => {
                let texts: Vec<String> = refusals.iter().map(ToString::to_string).collect();
                Chosen::Nobody(texts.join("; "))
            }
        })
    }

    /// Has Argo run a phase; whether it is done, or else why not and whether it has failed.
    pub(super) async fn argo(
        &mut self,
        lifecycle: &Lifecycle,
        phase: &Phase,
        book: &mut Book,
    ) -> Result<Result<(), (String, bool)>, Error> {
        let step = phase.step;
        let mut progress = book.of(step, &lifecycle.checksum);
        if progress.status.as_deref() == Some(SUCCEEDED) {
            return Ok(Ok(()));
        }
        let run = workflow::argo::Run {
            addon: &lifecycle.facts,
            phase: step.as_str(),
            name_prefix: &phase.prefix,
            revision: &lifecycle.checksum,
            role: phase.role.as_deref(),
        };
        let object = match workflow::argo::workflow(&phase.template, &lifecycle.parameters, &run) {
            Ok(object) => object,
            Err(refusals) => {
                let texts: Vec<String> = refusals.iter().map(ToString::to_string).collect();
                return Ok(Err((format!("{step}: {}", texts.join("; ")), true)));
            }
        };
        if self.observing {
            self.outcome.planned += 1;
            return Ok(Err((format!("{step}: a workflow would run"), false)));
        }
        let account = object.pointer("/spec/serviceAccountName").and_then(serde_json::Value::as_str);
        let api = self.api_as(Some(&lifecycle.own_account(account)));
        let now = Timestamp::now();
        let key = execute::argo_key(&object);
        // What was there before this round began says nothing of it.
        let shown = self.engine.workflow(&key).filter(|_| progress.started.is_some() && progress.retry_at.is_none());
        if let Some(at) = progress.retry_at {
            if now < at {
                self.outcome.look_again(Duration::try_from(at.duration_since(now)).unwrap_or_default());
                return Ok(Err((format!("{step}: {}", progress.message), true)));
            }
            match execute::argo_again(&api, &object).await {
                Ok(removed) => removed.into_iter().for_each(|uid| self.engine.note_workflow_deleted(uid)),
                Err(error) => {
                    self.outcome.failed(&format!("{step}: its workflow"), error)?;
                    return Ok(Err((format!("{step}: {}", progress.message), true)));
                }
            }
            progress.retry_at = None;
        }
        if progress.started.is_none() {
            // A revision that comes back must not find what its first time left.
            if let Err(error) = execute::argo_forget_others(&api, &lifecycle.facts, &lifecycle.checksum).await {
                self.outcome.failed(&format!("{step}: its workflow"), error)?;
                return Ok(Err((format!("{step}: old workflows cannot be removed"), false)));
            }
            progress.started = Some(now);
        }
        let known = shown.and_then(|shown| execute::argo_watched(&shown, &object));
        let is_seen = known.is_some();
        let observed = match known {
            Some(known) => Ok(known),
            None => self.made(&api, &object, &key).await,
        };
        let ended = match observed {
            Ok(Observed::Ended(workflow::Outcome::Succeeded { .. })) => {
                progress.status = Some(SUCCEEDED.to_owned());
                Ok(())
            }
            Ok(Observed::Ended(workflow::Outcome::Failed { message })) => {
                progress.fail(&message, now);
                self.outcome.look_again(FIRST_RETRY);
                Err((format!("{step}: {message}"), true))
            }
            Ok(Observed::UnderWay { message, look_again, .. }) => {
                // Its end is an event, where it is seen.
                if !is_seen || !self.engine.shows_workflows() {
                    self.outcome.look_again(look_again);
                }
                let text = if message.is_empty() { "its workflow runs".to_owned() } else { message };
                Err((format!("{step}: {text}"), false))
            }
            Err(error) => {
                let text = format!("{step}: its workflow: {error}");
                self.outcome.failed(&format!("{step}: its workflow"), error)?;
                Err((text, false))
            }
        };
        book.set(step, progress);
        Ok(ended)
    }

    /// Asks the server for a Workflow, and has it made where there is none.
    async fn made(&self, api: &Api, workflow: &Value, key: &ObjectKey) -> Result<Observed, ApiError> {
        let (observed, made) = execute::argo_made(api, workflow).await?;
        let parent = self.engine.parent(&self.id).filter(|_| made);
        if let Some(parent) = parent {
            let about = parent::reference(&self.id, &parent.uid);
            self.recorder.event(&about, reasons::CREATED, format!("Created Workflow {key}."));
        }
        Ok(observed)
    }
}
