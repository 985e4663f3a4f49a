//! What is wrong with an Addon, as far as it can be said without a server: the rules of the CRD, for
//! objects that are older than it and for tools that ask no server.

use std::fmt;

use super::{Addon, LifecycleStep, names};

/// Something wrong in one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, such as `spec.params.namespace`.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl Addon {
    /// Everything that is wrong with it, in the order of the fields; nothing for a mirror, which is ours.
    /// Templates are not looked into.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        if self.is_mirror() {
            return Vec::new();
        }
        let mut problems = Vec::new();
        let mut add = |field: &str, message: String| problems.push(Problem { field: field.to_owned(), message });
        let (name, spec) = (self.name(), &self.spec);
        if name.is_empty() {
            add("metadata.name", "must not be empty".into());
        }
        if name.len() > names::LONGEST_NAME {
            add(
                "metadata.name",
                format!(
                    "has {} characters, more than {}: workflows are named after it",
                    name.len(),
                    names::LONGEST_NAME
                ),
            );
        }
        for (field, value) in [("spec.pkgName", &spec.pkg_name), ("spec.pkgVersion", &spec.pkg_version)] {
            if value.is_empty() {
                add(field, "must not be empty".into());
            }
        }
        if spec.pkg_deps.contains_key(&spec.pkg_name) {
            add(&format!("spec.pkgDeps.{}", spec.pkg_name), "a package cannot depend on itself".into());
        }
        if spec.params.namespace.is_empty() {
            add("spec.params.namespace", "must not be empty: it is where the addon is deployed".into());
        }
        let namespace = &spec.params.namespace;
        if !namespace.is_empty() && !is_label(namespace) {
            add("spec.params.namespace", format!("{namespace:?} is not a namespace's name"));
        }
        let (context, other) = (&spec.params.context, &spec.params.cluster_context);
        for (field, a, b) in [
            ("clusterName", &context.cluster_name, &other.cluster_name),
            ("clusterRegion", &context.cluster_region, &other.cluster_region),
        ] {
            if !a.is_empty() && !b.is_empty() && a != b {
                add(
                    &format!("spec.params.clusterContext.{field}"),
                    format!("is {b:?}, but spec.params.context.{field} is {a:?}; give one of them"),
                );
            }
        }
        if let Err(error) = spec.parameters() {
            add(
                &error.field,
                format!("{} is neither a string, a bool nor a whole number; put it in quotes", error.value),
            );
        }
        for (index, secret) in spec.secrets.iter().enumerate() {
            if secret.name.is_empty() {
                add(&format!("spec.secrets[{index}].name"), "must not be empty".into());
            }
            if !secret.name.is_empty() && (secret.name.len() > 253 || !secret.name.split('.').all(is_label)) {
                add(&format!("spec.secrets[{index}].name"), format!("{:?} is not a Secret's name", secret.name));
            }
            if !(0..=1).contains(&secret.cmd) {
                add(&format!("spec.secrets[{index}].cmd"), format!("is {}; 0 (cert) and 1 (random) exist", secret.cmd));
            }
        }
        for step in LifecycleStep::ALL {
            let Some(found) = spec.step(step) else { continue };
            let length = found.name_prefix.chars().count();
            if length > names::LONGEST_PREFIX {
                add(
                    &format!("spec.lifecycle.{step}.namePrefix"),
                    format!("has {length} characters, more than {}", names::LONGEST_PREFIX),
                );
            }
        }
        problems
    }
}

/// A DNS label, of which names of namespaces consist, and others with dots between.
fn is_label(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len()) && text.chars().all(fine) && !text.starts_with('-') && !text.ends_with('-')
}
