//! `addonctl create`: an Addon made of flags and files. Everything here is pure but the reading of the
//! files; no server is asked.

mod documents;
mod input;
mod lists;
mod workflow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use quarterdeck_api::addon::{
    Addon, AddonLifecycle, AddonParams, AddonSpec, ClusterContext, Scalar, SecretSpec, Step, names,
};

pub(crate) use input::Part;

/// Types of packages that upstream knows.
const TYPES: [&str; 5] = ["helm", "ship", "kustomize", "cnab", "composite"];

/// Flags of `create`: those of the document, by its names, shorthands and meaning.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Flags")]
pub(crate) struct CreateFlags {
    /// Channel for the addon package
    #[arg(short, long, value_name = "string", default_value = "", hide_default_value = true)]
    pub(crate) channel: String,
    /// Name of the cluster context being used
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    pub(crate) cluster_name: String,
    /// Cluster region
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    pub(crate) cluster_region: String,
    /// Comma separated dependencies list in the format 'pkgName:pkgVersion'
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    pub(crate) deps: String,
    /// Description of the addon
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    pub(crate) desc: String,
    /// Outputs the addon spec but doesn't submit
    #[arg(long)]
    pub(crate) dryrun: bool,
    /// File or directory of resource yaml (and Python scripts) to submit as install step
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    pub(crate) install: String,
    /// Namespace where the addon will be deployed
    #[arg(short, long, value_name = "string", default_value = "", hide_default_value = true)]
    pub(crate) namespace: String,
    /// Params to supply to the resource yaml, in the format 'name=value,...'; may be repeated
    #[arg(short, long, value_name = "string")]
    pub(crate) params: Vec<String>,
    /// File or directory of resource yaml (and Python scripts) to submit as prereqs step
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    pub(crate) prereqs: String,
    /// Comma separated list of secret names which are validated as part of the addon's namespace
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    pub(crate) secrets: String,
    /// Selector of the addon's resources to observe, in the format 'key:value'
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    pub(crate) selector: String,
    /// Addon package type: helm, ship, kustomize, cnab or composite
    #[arg(short = 't', long = "type", value_name = "string", default_value = "composite", hide_default_value = true)]
    pub(crate) pkg_type: String,
    /// Addon package version
    #[arg(short, long, value_name = "string", default_value = "", hide_default_value = true)]
    pub(crate) version: String,
}

/// The Addon that `create NAME` with these flags means.
///
/// # Errors
/// Naming the flag, or the file and line, of everything that is wrong.
pub(crate) fn addon(name: &str, flags: &CreateFlags) -> anyhow::Result<Addon> {
    let object_name = object_name(name)?;
    let missing: Vec<&str> = [("--namespace", &flags.namespace), ("--version", &flags.version)]
        .into_iter()
        .filter(|(_, value)| value.is_empty())
        .map(|(flag, _)| flag)
        .collect();
    anyhow::ensure!(missing.is_empty(), "{} must be given", missing.join(" and "));
    anyhow::ensure!(
        TYPES.contains(&flags.pkg_type.as_str()),
        "--type {:?}: there are {}",
        flags.pkg_type,
        TYPES.join(", ")
    );
    let prereqs = input::read("--prereqs", &flags.prereqs)?;
    let install = input::read("--install", &flags.install)?;
    let naming = workflow::Naming { addon: &object_name, namespace: &flags.namespace };
    let step = |template: Option<String>| Step { template: template.unwrap_or_default(), ..Step::default() };
    let addon = Addon {
        metadata: ObjectMeta {
            name: Some(object_name.clone()),
            namespace: Some(names::DEFAULT_NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        spec: AddonSpec {
            pkg_channel: flags.channel.clone(),
            pkg_name: name.to_owned(),
            pkg_version: flags.version.clone(),
            pkg_type: flags.pkg_type.clone(),
            pkg_description: flags.desc.clone(),
            pkg_deps: lists::dependencies(&flags.deps)?,
            params: AddonParams {
                namespace: flags.namespace.clone(),
                context: ClusterContext {
                    cluster_name: flags.cluster_name.clone(),
                    cluster_region: flags.cluster_region.clone(),
                    ..ClusterContext::default()
                },
                data: lists::params(&flags.params)?.into_iter().map(|(k, v)| (k, Scalar::from(v))).collect(),
                ..AddonParams::default()
            },
            selector: LabelSelector {
                match_labels: Some(lists::selector(&flags.selector)?).filter(|labels| !labels.is_empty()),
                ..LabelSelector::default()
            },
            secrets: lists::secrets(&flags.secrets)?
                .into_iter()
                .map(|name| SecretSpec { name, ..SecretSpec::default() })
                .collect(),
            lifecycle: AddonLifecycle {
                prereqs: step(workflow::apply("prereqs", &naming, &prereqs)),
                install: step(workflow::apply("install", &naming, &install)),
                delete: step(workflow::delete(&naming, &prereqs, &install)),
                validate: Step::default(),
            },
            ..AddonSpec::default()
        },
        status: None,
    };
    let problems = addon.problems();
    anyhow::ensure!(
        problems.is_empty(),
        "{}",
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n       ")
    );
    Ok(addon)
}

/// The object's name: the package's, in lower case and with `-` for each slash.
fn object_name(package: &str) -> anyhow::Result<String> {
    let starts = package.starts_with(|c: char| c.is_ascii_alphabetic());
    let plain = package.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '/'));
    let whole = package.split(['/', '.']).all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.ends_with(|c: char| c.is_ascii_alphanumeric())
    });
    anyhow::ensure!(
        starts && plain && whole,
        "invalid addon name {package:?}: it begins with a letter and has letters, digits, '-', '.' and '/', each part of it \
         beginning and ending with a letter or digit"
    );
    Ok(package.to_ascii_lowercase().replace('/', "-"))
}

#[cfg(test)]
mod tests;
