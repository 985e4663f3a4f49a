//! The global parameters that an Addon gives to its templates, in upstream's order
//! (`keikoproj/addon-manager:pkg/workflows`).

use std::collections::BTreeMap;

use super::Refusal;

/// What a template may know of its Addon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddonFacts {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `spec.pkgChannel`, empty if unset.
    pub pkg_channel: String,
    /// `spec.pkgName`.
    pub pkg_name: String,
    /// `spec.pkgVersion`.
    pub pkg_version: String,
    /// `spec.pkgType`.
    pub pkg_type: String,
    /// `spec.pkgDescription`.
    pub pkg_description: String,
    /// `spec.params.namespace`.
    pub target_namespace: String,
    /// `spec.params.context.clusterName`, or the same under `clusterContext`.
    pub cluster_name: String,
    /// `spec.params.context.clusterRegion`.
    pub cluster_region: String,
    /// `spec.params.context.additionalConfigs`.
    pub additional_configs: BTreeMap<String, String>,
    /// `spec.params.data`.
    pub data: BTreeMap<String, String>,
}

/// Names and values of global parameters, in order; no name stands twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Adds one, unless its name is taken or is none.
    pub fn add(&mut self, name: &str, value: &str, field_path: &str) -> Result<(), Refusal> {
        if !is_name(name) {
            let reason = format!("{name:?} is not a parameter's name: letters, digits, - and _ are");
            return Err(Refusal::value(field_path, reason));
        }
        if self.get(name).is_some() {
            return Err(Refusal::value(field_path, format!("a global parameter {name} exists already")));
        }
        self.0.push((name.to_owned(), value.to_owned()));
        Ok(())
    }
}

/// Whether Argo takes it for a parameter's name (`argoproj/argo-workflows:workflow/validate/validate.go`).
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The parameters of an Addon, or every name that is taken or is none.
pub fn parameters(addon: &AddonFacts) -> Result<Parameters, Vec<Refusal>> {
    let mut all = Parameters::default();
    let mut refusals = Vec::new();
    let fixed = [
        ("namespace", &addon.target_namespace, "spec.params.namespace"),
        ("pkgChannel", &addon.pkg_channel, "spec.pkgChannel"),
        ("pkgName", &addon.pkg_name, "spec.pkgName"),
        ("pkgVersion", &addon.pkg_version, "spec.pkgVersion"),
        ("pkgType", &addon.pkg_type, "spec.pkgType"),
        ("pkgDescription", &addon.pkg_description, "spec.pkgDescription"),
        ("clusterName", &addon.cluster_name, "spec.params.context.clusterName"),
        ("clusterRegion", &addon.cluster_region, "spec.params.context.clusterRegion"),
    ];
    for (name, value, path) in fixed {
        refusals.extend(all.add(name, value, path).err());
    }
    let mut add = |pairs: &BTreeMap<String, String>, path: &str| {
        for (name, value) in pairs {
            refusals.extend(all.add(name, value, &format!("{path}.{name}")).err());
        }
    };
    add(&addon.additional_configs, "spec.params.context.additionalConfigs");
    add(&addon.data, "spec.params.data");
    if refusals.is_empty() { Ok(all) } else { Err(refusals) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> AddonFacts {
        AddonFacts {
            name: "fluentd-addon".into(),
            pkg_name: "core/fluentd".into(),
            pkg_version: "v0.0.1".into(),
            target_namespace: "mynamespace".into(),
            cluster_name: "my-test-cluster".into(),
            additional_configs: [("zone".to_owned(), "a".to_owned())].into(),
            data: [("hec_splunk_server".to_owned(), "hec.splunk.example.com".to_owned())].into(),
            ..AddonFacts::default()
        }
    }

    #[test]
    fn every_value_of_an_addon_is_a_parameter_in_order() {
        let all = parameters(&facts()).unwrap();
        let names: Vec<&str> = all.iter().map(|(name, _)| name).collect();
        let expected = "namespace pkgChannel pkgName pkgVersion pkgType pkgDescription clusterName clusterRegion zone hec_splunk_server";
        assert_eq!(names.join(" "), expected);
        assert_eq!(all.get("namespace"), Some("mynamespace"));
        assert_eq!(all.get("hec_splunk_server"), Some("hec.splunk.example.com"));
        assert_eq!(all.get("pkgChannel"), Some(""));
        assert_eq!(all.get("nothing"), None);
    }

    #[test]
    fn names_that_are_taken_or_none_are_refused_by_field() {
        let mut addon = facts();
        addon.data.insert("namespace".into(), "x".into());
        addon.data.insert("zone".into(), "x".into());
        addon.data.insert("a.b".into(), "x".into());
        addon.additional_configs.insert("clusterName".into(), "x".into());
        let refusals: Vec<String> =
            parameters(&addon).unwrap_err().into_iter().map(|refusal| refusal.field_path).collect();
        assert_eq!(
            refusals,
            [
                "spec.params.context.additionalConfigs.clusterName",
                "spec.params.data.a.b",
                "spec.params.data.namespace",
                "spec.params.data.zone"
            ]
        );
    }
}
