//! How the objects of an Addon object come about: phases, each a template that is compiled with what
//! its steps have brought so far.

use std::collections::BTreeMap;
use std::sync::Arc;

use quarterdeck_api::addon::{Addon, LifecycleStep, names};
use quarterdeck_runtime::controller::Account;
use serde::{Deserialize as _, Serialize as _};
use serde_json::Value;

use super::source::objects::Selector;
use super::source::{Object, StepId};
use super::workflow::runner::{Wish, wish};
use super::workflow::{
    Action, AddonFacts, Context, Limits, Node, Parameters, Program, Progress, Refusal, compile, parameters,
};

/// Account of steps whose template names none, as with Argo.
const DEFAULT_ACCOUNT: &str = "default";

/// [`Progress::status`] of a phase that is done.
pub const SUCCEEDED: &str = "Succeeded";

/// The lifecycle of one Addon object.
#[derive(Clone, Debug, PartialEq)]
pub struct Lifecycle {
    /// What templates may know of it.
    pub facts: AddonFacts,
    /// Their global parameters.
    pub parameters: Parameters,
    /// Generation of its spec.
    pub generation: i64,
    /// Hash of its spec.
    pub checksum: Arc<str>,
    /// Version of its package, as it is told.
    pub package_version: Arc<str>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether what is there already counts as installed.
    pub adopt: bool,
    /// Names of Secrets that have to exist in the addon's namespace once the prereqs are done.
    pub secrets: Vec<String>,
    /// Prereqs, install, validate: those that have a template, in this order.
    pub phases: Vec<Phase>,
    /// What runs before it goes.
    pub delete: Option<Phase>,
    /// Who is asked to run its templates.
    pub wish: Wish,
    /// What is wrong with the spec.
    pub faults: Vec<String>,
    /// What it observes, if its containers or Argo may have made anything.
    pub observes: Option<Arc<Selector>>,
}

/// One phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Which.
    pub step: LifecycleStep,
    /// Its template.
    pub template: Arc<str>,
    /// The account if the template names none.
    pub role: Option<String>,
    /// Part of the name of the workflow that Argo is given.
    pub prefix: String,
}

/// What ran of each phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book(BTreeMap<&'static str, Progress>);

impl Book {
    /// Reads what [`Self::to_value`] wrote for this revision; anything else is forgotten.
    #[must_use]
    pub fn read(value: &Value, revision: &str) -> Self {
        let phase = |step: &LifecycleStep| {
            let progress = Progress::deserialize(&value[step.as_str()]).ok()?;
            Some((step.as_str(), progress)).filter(|(_, progress)| progress.revision == revision)
        };
        Self(LifecycleStep::ALL.iter().filter_map(phase).collect())
    }

    /// Of an Addon that another system installed, or a person: nothing of it runs again, whoever ran it.
    #[must_use]
    pub fn adopted(lifecycle: &Lifecycle) -> Self {
        let mut book = Self::default();
        for phase in &lifecycle.phases {
            let none = Progress::new(&lifecycle.checksum);
            book.set(
                phase.step,
                match lifecycle.program(phase, &none) {
                    Ok(program) => Progress::adopted(&program, &lifecycle.checksum),
                    Err(_) => Progress { status: Some(SUCCEEDED.to_owned()), ..none },
                },
            );
        }
        book
    }

    /// As it is kept in the Addon's status.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let phases = self.0.iter().filter_map(|(step, progress)| {
            Some(((*step).to_owned(), progress.serialize(serde_json::value::Serializer).ok()?))
        });
        Value::Object(phases.collect())
    }

    /// What ran of a phase.
    #[must_use]
    pub fn of(&self, step: LifecycleStep, revision: &str) -> Progress {
        self.0.get(step.as_str()).cloned().unwrap_or_else(|| Progress::new(revision))
    }

    /// Whether nothing of it ran here: another system did.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        let adopted = |one: &Progress| {
            one.status.as_deref() == Some(SUCCEEDED) && one.nodes.values().all(|node| node.message == "adopted")
        };
        !self.0.is_empty() && self.0.values().all(adopted)
    }

    /// Whether anything is noted of a phase.
    #[must_use]
    pub fn has(&self, step: LifecycleStep) -> bool {
        self.0.contains_key(step.as_str())
    }

    /// Notes what ran of a phase.
    pub fn set(&mut self, step: LifecycleStep, progress: Progress) {
        self.0.insert(step.as_str(), progress);
    }
}

impl Lifecycle {
    /// Reads an Addon object. What is wrong with it is a fault.
    #[must_use]
    pub fn read(addon: &Addon) -> Self {
        let spec = &addon.spec;
        let mut faults: Vec<String> = addon.problems().iter().map(ToString::to_string).collect();
        let facts = facts(addon);
        let parameters = parameters(&facts).unwrap_or_else(|refusals| {
            faults.extend(refusals.iter().map(ToString::to_string));
            Parameters::default()
        });
        let phase = |step: LifecycleStep| {
            spec.step(step).map(|found| Phase {
                step,
                template: (*found.template).into(),
                role: Some(found.role.clone()).filter(|role| !role.is_empty()),
                prefix: found.name_prefix.clone(),
            })
        };
        let wish = wish(addon.annotation(names::RUNNER_ANNOTATION)).unwrap_or_else(|refusal| {
            faults.push(refusal.to_string());
            Wish::Native
        });
        let observes = Selector::read(addon).map_err(|wrong| faults.extend(wrong)).ok().map(Arc::new);
        let order = [LifecycleStep::Prereqs, LifecycleStep::Install, LifecycleStep::Validate];
        Self {
            parameters,
            generation: addon.metadata.generation.unwrap_or_default(),
            checksum: spec.checksum().into(),
            package_version: (*spec.pkg_version).into(),
            deleting: addon.metadata.deletion_timestamp.is_some(),
            adopt: is_adopted(addon),
            secrets: spec.secrets.iter().map(|secret| secret.name.clone()).collect(),
            phases: order.into_iter().filter_map(phase).collect(),
            delete: phase(LifecycleStep::Delete),
            facts,
            wish,
            faults,
            observes,
        }
    }

    /// The program of a phase, as far as its steps' outputs are known.
    ///
    /// # Errors
    /// All that is not in the grammar, by field of the Addon.
    pub fn program(&self, phase: &Phase, progress: &Progress) -> Result<Program, Vec<Refusal>> {
        let known = progress.known();
        let workflow_name = format!("{}-{}", self.facts.name, phase.step);
        let context = Context {
            addon: &self.facts,
            workflow_name: &workflow_name,
            role: phase.role.as_deref(),
            known: &known,
            status: progress.status.as_deref(),
            limits: Limits::default(),
        };
        let path = |refusal: Refusal| {
            let path = format!("spec.lifecycle.{}.template: {}", phase.step, refusal.field_path);
            Refusal { field_path: path.trim_end_matches([':', ' ']).to_owned(), ..refusal }
        };
        compile(&phase.template, &self.parameters, &context)
            .map_err(|refusals| refusals.into_iter().map(path).collect())
    }

    /// As who a step runs: always an account of the Addon's own namespace.
    #[must_use]
    pub fn account(&self, program: &Program, node: &Node) -> Account {
        self.own_account(node.account.as_deref().or(program.account.as_deref()))
    }

    /// An account of the Addon's own namespace.
    #[must_use]
    pub fn own_account(&self, name: Option<&str>) -> Account {
        Account { namespace: self.facts.namespace.clone(), name: name.unwrap_or(DEFAULT_ACCOUNT).to_owned() }
    }

    /// The objects that a phase's steps make, each with its step.
    #[must_use]
    pub fn objects(&self, phase: usize, program: &Program) -> Vec<Object> {
        let mut objects = Vec::new();
        for (node, step) in program.all().enumerate() {
            let (Action::Apply(made) | Action::Create(made)) = &step.action else { continue };
            let account = self.account(program, step);
            let step = StepId { phase, node };
            objects.extend(made.objects.iter().map(|desired| Object {
                desired: Arc::new(desired.clone()),
                namespace: (*made.namespace).into(),
                account: Some(account.clone()),
                step: Some(step),
            }));
        }
        objects
    }
}

/// Whether what is there counts as installed: a person says so, or the Addon was installed by
/// keiko's addon-manager, whose checksums are short.
#[must_use]
pub fn is_adopted(addon: &Addon) -> bool {
    use quarterdeck_api::addon::{Phase, is_upstream_checksum};
    let by_upstream = addon.status.as_ref().is_some_and(|status| is_upstream_checksum(&status.checksum))
        && addon.phase() == Phase::Succeeded;
    by_upstream || addon.annotation(names::ADOPT_ANNOTATION) == Some("true")
}

/// What templates may know of an Addon; a parameter that is no text is one of its problems, and left out.
#[must_use]
pub fn facts(addon: &Addon) -> AddonFacts {
    let spec = &addon.spec;
    let cluster = spec.params.cluster();
    let texts = |map: &BTreeMap<String, quarterdeck_api::addon::Scalar>| -> BTreeMap<String, String> {
        map.iter().filter_map(|(name, value)| Some((name.clone(), value.text()?))).collect()
    };
    AddonFacts {
        name: addon.name().to_owned(),
        namespace: addon.namespace().to_owned(),
        uid: addon.metadata.uid.clone().unwrap_or_default(),
        pkg_channel: spec.pkg_channel.clone(),
        pkg_name: spec.pkg_name.clone(),
        pkg_version: spec.pkg_version.clone(),
        pkg_type: spec.pkg_type.clone(),
        pkg_description: spec.pkg_description.clone(),
        target_namespace: spec.params.namespace.clone(),
        cluster_name: cluster.cluster_name.clone(),
        cluster_region: cluster.cluster_region.clone(),
        additional_configs: texts(&cluster.additional_configs),
        data: texts(&spec.params.data),
    }
}
