//! What is wanted of an addon.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

use super::params::texts;
use super::{AddonParams, ParamError, is_default, lenient};

/// `spec` of an Addon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AddonSpec {
    /// Channel that the package comes from; informative.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub pkg_channel: String,
    /// Name of the package, which others depend on; may hold a slash (`core/fluentd`).
    #[serde(deserialize_with = "lenient")]
    pub pkg_name: String,
    /// Version of the package.
    #[serde(deserialize_with = "lenient")]
    pub pkg_version: String,
    /// Type of the package (`helm`, `ship`, `kustomize`, `cnab`, `composite`); informative.
    #[serde(deserialize_with = "lenient")]
    pub pkg_type: String,
    /// What the package is, for people.
    #[serde(deserialize_with = "lenient")]
    pub pkg_description: String,
    /// Packages that must be installed first: name → exact version, semver constraint or `*`.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub pkg_deps: BTreeMap<String, String>,
    /// Parameters of the templates.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub params: AddonParams,
    /// Selects objects to be observed that the addon's containers made.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub selector: LabelSelector,
    /// Patches in kustomize's form. Kept, and not acted on (nor is it upstream).
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub overrides: AddonOverrides,
    /// Secrets that must exist in `params.namespace` before the install step.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub secrets: Vec<SecretSpec>,
    /// The steps.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub lifecycle: AddonLifecycle,
}

impl AddonSpec {
    /// The step, or `None` if it does nothing: it is absent, or its template is empty (Go clients
    /// write absent steps so).
    #[must_use]
    pub fn step(&self, step: LifecycleStep) -> Option<&Step> {
        let step = match step {
            LifecycleStep::Prereqs => &self.lifecycle.prereqs,
            LifecycleStep::Install => &self.lifecycle.install,
            LifecycleStep::Validate => &self.lifecycle.validate,
            LifecycleStep::Delete => &self.lifecycle.delete,
        };
        Some(step).filter(|step| !step.template.trim().is_empty())
    }

    /// The parameters by which templates refer to `params`, in upstream's order of precedence:
    /// `namespace`, `clusterName`, `clusterRegion`, then each of `additionalConfigs`, then each of
    /// `data`. Upstream: `GetAllAddonParameters`.
    ///
    /// # Errors
    /// Naming the field, when a value is neither a string, a bool nor a whole number.
    pub fn parameters(&self) -> Result<BTreeMap<String, String>, ParamError> {
        let cluster = self.params.cluster();
        let mut all = BTreeMap::from([
            ("namespace".to_owned(), self.params.namespace.clone()),
            ("clusterName".to_owned(), cluster.cluster_name),
            ("clusterRegion".to_owned(), cluster.cluster_region),
        ]);
        let spelled = if self.params.context.additional_configs.is_empty() { "clusterContext" } else { "context" };
        all.extend(texts(&format!("spec.params.{spelled}.additionalConfigs"), &cluster.additional_configs)?);
        all.extend(texts("spec.params.data", &self.params.data)?);
        Ok(all)
    }

    /// The parameters that describe the package, which upstream appends besides
    /// [`parameters`](Self::parameters): `pkgChannel`, `pkgName`, `pkgVersion`, `pkgType`,
    /// `pkgDescription`.
    #[must_use]
    pub fn package_parameters(&self) -> BTreeMap<String, String> {
        [
            ("pkgChannel", &self.pkg_channel),
            ("pkgName", &self.pkg_name),
            ("pkgVersion", &self.pkg_version),
            ("pkgType", &self.pkg_type),
            ("pkgDescription", &self.pkg_description),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect()
    }
}

/// A step of the lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LifecycleStep {
    /// Before the installation.
    Prereqs,
    /// The installation.
    Install,
    /// After what was installed is ready; gates `Succeeded`.
    Validate,
    /// Before what was installed is removed.
    Delete,
}

impl LifecycleStep {
    /// All steps, in the order in which they run.
    pub const ALL: [Self; 4] = [Self::Prereqs, Self::Install, Self::Validate, Self::Delete];

    /// As it stands in the spec.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prereqs => "prereqs",
            Self::Install => "install",
            Self::Validate => "validate",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for LifecycleStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// `spec.lifecycle`. Read a step through [`AddonSpec::step`], which knows what an absent one looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddonLifecycle {
    /// Before the installation.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub prereqs: Step,
    /// The installation.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub install: Step,
    /// Before what was installed is removed.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub delete: Step,
    /// After what was installed is ready.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub validate: Step,
}

/// One step: a workflow as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Step {
    /// Part of the workflow's name, at most 10 characters.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub name_prefix: String,
    /// Role of the deployed resources.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub role: String,
    /// Role of the workflow.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub workflow_role: String,
    /// An inline Argo Workflow.
    #[serde(deserialize_with = "lenient")]
    pub template: String,
}

/// A Secret that must exist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecretSpec {
    /// Name of the Secret.
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    /// How it would be generated: 0 certificate, 1 random. Kept, and not acted on (nor is it upstream).
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub cmd: i64,
    /// Arguments of `cmd`.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub args: Vec<String>,
}

/// `spec.overrides`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddonOverrides {
    /// Patches in kustomize's form.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub kustomize: KustomizeOverrides,
    /// Templates by name.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub template: BTreeMap<String, String>,
}

/// `spec.overrides.kustomize`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KustomizeOverrides {
    /// Labels for all objects.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Annotations for all objects.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    /// Kinds of resources.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub resources: Vec<String>,
    /// Patches.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub overlay: KustomizeOverlay,
}

/// `spec.overrides.kustomize.overlay`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KustomizeOverlay {
    /// Patches by name.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub template: BTreeMap<String, String>,
}
