//! `--controllers`: which controllers run.
//!
//! Upstream's rules (controller-manager:app/helper.go and options/generic.go, v1.36.3): a list in
//! which the first explicit mention of a name wins, `*` stands for those that are on by default,
//! aliases count as the name they stand for, and every unknown name is an error. Names that upstream
//! has and this build lacks are accepted with a warning.

use std::collections::BTreeMap;
use std::fmt;

use quarterdeck_api::nearest::nearest;
use quarterdeck_runtime::controller::Descriptor;

use super::upstream::{Manager, UPSTREAM_CONTROLLERS, UpstreamController};

/// The controllers that exist: those of this build, and those that only upstream has.
#[derive(Clone, Debug)]
pub struct ControllerTable {
    ours: Vec<Descriptor>,
    upstream: &'static [UpstreamController],
}

/// Which controllers run, and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    enabled: BTreeMap<&'static str, bool>,
    /// The first explicit mention of each name, canonical, ours and upstream's.
    mentioned: BTreeMap<&'static str, bool>,
    warnings: Vec<String>,
}

/// Names that do not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct UnknownControllers {
    /// Each bad name, without a leading `-`, with the name it may have meant.
    pub names: Vec<(String, Option<String>)>,
}

impl fmt::Display for UnknownControllers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, near)) in self.names.iter().enumerate() {
            let separator = if at > 0 { "; " } else { "" };
            write!(f, "{separator}{name:?} is not in the list of known controllers")?;
            if let Some(near) = near {
                write!(f, " (did you mean {near:?}?)")?;
            }
        }
        Ok(())
    }
}

impl ControllerTable {
    /// A table of these controllers, and of upstream's names if `upstream`.
    #[must_use]
    pub fn new(ours: Vec<Descriptor>, upstream: bool) -> Self {
        Self { ours, upstream: if upstream { UPSTREAM_CONTROLLERS } else { &[] } }
    }

    /// Names of this build's controllers, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        sorted(self.ours.iter().map(|d| d.name))
    }

    /// Names of this build's controllers that `*` does not include, sorted.
    #[must_use]
    pub fn disabled_by_default(&self) -> Vec<&'static str> {
        sorted(self.ours.iter().filter(|d| !d.enabled_by_default).map(|d| d.name))
    }

    /// Names of the controllers that upstream's managers have and this build lacks, sorted.
    #[must_use]
    pub fn lacking(&self) -> Vec<&'static str> {
        sorted(self.only_upstream().map(|c| c.name))
    }

    fn only_upstream(&self) -> impl Iterator<Item = &'static UpstreamController> {
        self.upstream.iter().filter(|c| !self.is_ours(c.name))
    }

    fn is_ours(&self, name: &str) -> bool {
        self.ours.iter().any(|d| d.name == name)
    }

    /// The canonical form of a name or alias.
    fn canonical(&self, name: &str) -> Option<&'static str> {
        let ours = self.ours.iter().map(|d| (d.name, d.aliases));
        let upstream = self.upstream.iter().map(|c| (c.name, c.aliases));
        ours.chain(upstream)
            .find(|(canonical, aliases)| *canonical == name || aliases.contains(&name))
            .map(|(canonical, _)| canonical)
    }

    fn all_names(&self) -> impl Iterator<Item = &'static str> {
        let ours = self.ours.iter().map(|d| (d.name, d.aliases));
        let upstream = self.upstream.iter().map(|c| (c.name, c.aliases));
        ours.chain(upstream).flat_map(|(name, aliases)| std::iter::once(name).chain(aliases.iter().copied()))
    }

    /// Applies the list that was given to `--controllers`. An empty list turns everything off.
    ///
    /// # Errors
    /// When the list holds names that neither this build nor upstream knows; all of them are named.
    pub fn select<S: AsRef<str>>(&self, list: &[S]) -> Result<Selection, UnknownControllers> {
        let mut star = false;
        let mut mentioned: BTreeMap<&'static str, bool> = BTreeMap::new();
        let mut unknown: Vec<(String, Option<String>)> = Vec::new();
        for item in list.iter().map(AsRef::as_ref) {
            if item == "*" {
                star = true;
                continue;
            }
            let (name, on) = item.strip_prefix('-').map_or((item, true), |name| (name, false));
            if let Some(canonical) = self.canonical(name) {
                mentioned.entry(canonical).or_insert(on);
            } else if !unknown.iter().any(|(known, _)| known == name) {
                unknown.push((name.to_owned(), nearest(name, self.all_names()).map(str::to_owned)));
            }
        }
        if !unknown.is_empty() {
            return Err(UnknownControllers { names: unknown });
        }
        let enabled = self
            .ours
            .iter()
            .map(|d| (d.name, mentioned.get(d.name).copied().unwrap_or(star && d.enabled_by_default)))
            .collect();
        let warnings = self
            .only_upstream()
            .filter(|c| mentioned.contains_key(c.name))
            .map(|c| format!("--controllers: {} has no effect: this build does not have it", c.name))
            .collect();
        Ok(Selection { enabled, mentioned, warnings })
    }

    /// What to give to the Go kube-controller-manager's `--controllers`, so that it runs what this
    /// selection leaves to it: everything but what runs here, and its own controllers as they were
    /// mentioned.
    #[must_use]
    pub fn complement(&self, selection: &Selection) -> String {
        let mut list = vec!["*".to_owned()];
        for upstream in UPSTREAM_CONTROLLERS.iter().filter(|c| c.manager == Manager::Kube) {
            let name = upstream.name;
            if self.is_ours(name) {
                if selection.is_enabled(name) {
                    list.push(format!("-{name}"));
                }
            } else if let Some(on) = selection.mentioned.get(name).filter(|on| **on != upstream.enabled_by_default) {
                list.push(if *on { name.to_owned() } else { format!("-{name}") });
            }
        }
        list.join(",")
    }
}

impl Selection {
    /// Whether this build's controller of this canonical name runs.
    #[must_use]
    pub fn is_enabled(&self, name: &str) -> bool {
        self.enabled.get(name).copied().unwrap_or(false)
    }

    /// Whether the name, or an alias of it, stands in the list and turns the controller on. Such a
    /// controller is not blocked by a predecessor.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        self.mentioned.get(name).copied().unwrap_or(false)
    }

    /// Names of the controllers that run, sorted.
    pub fn enabled(&self) -> impl Iterator<Item = &'static str> {
        self.enabled.iter().filter(|(_, on)| **on).map(|(name, _)| *name)
    }

    /// Names of the controllers of this build that do not run, sorted.
    pub fn disabled(&self) -> impl Iterator<Item = &'static str> {
        self.enabled.iter().filter(|(_, on)| !**on).map(|(name, _)| *name)
    }

    /// One warning for each name that this build lacks.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn sorted(names: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flags::testing::descriptor;

    fn table() -> ControllerTable {
        let mut off = descriptor("route-sweeper", &["sweeper"]);
        off.enabled_by_default = false;
        ControllerTable::new(
            vec![
                descriptor("endpoints-controller", &["endpoint"]),
                descriptor("namespace-controller", &["namespace"]),
                off,
            ],
            true,
        )
    }

    fn enabled(list: &str) -> Vec<&'static str> {
        let items: Vec<&str> = if list.is_empty() { Vec::new() } else { list.split(',').collect() };
        table().select(&items).unwrap().enabled().collect()
    }

    #[test]
    fn follows_upstreams_rules() {
        let (endpoints, namespace, sweeper) = ("endpoints-controller", "namespace-controller", "route-sweeper");
        let cases: [(&str, &[&str]); 16] = [
            ("*", &[endpoints, namespace]),
            ("", &[]),
            ("endpoints-controller", &[endpoints]),
            ("endpoint", &[endpoints]),
            ("-endpoint,*", &[namespace]),
            ("*,-endpoint", &[namespace]),
            ("-endpoints-controller", &[]),
            // The first explicit mention wins, whatever comes later and under which name.
            ("endpoint,-endpoints-controller", &[endpoints]),
            ("-endpoint,endpoints-controller,*", &[namespace]),
            ("*,sweeper", &[endpoints, namespace, sweeper]),
            ("*,route-sweeper,-sweeper", &[endpoints, namespace, sweeper]),
            ("*,*", &[endpoints, namespace]),
            ("sweeper", &[sweeper]),
            ("*,bootstrapsigner,tokencleaner", &[endpoints, namespace]),
            ("*,-deployment", &[endpoints, namespace]),
            ("cloud-node,endpoint", &[endpoints]),
        ];
        for (list, expected) in cases {
            assert_eq!(enabled(list), expected, "{list}");
        }
    }

    #[test]
    fn names_every_bad_name() {
        let cases = [
            ("-*", vec![("*", None)]),
            ("endpoint,,namespace", vec![("", None)]),
            (" endpoint", vec![(" endpoint", Some("endpoint"))]),
            ("Endpoint", vec![("Endpoint", Some("endpoint"))]),
            (
                "endpoint-controller,-namespace-contoller,*,endpoint-controller",
                vec![
                    ("endpoint-controller", Some("endpoints-controller")),
                    ("namespace-contoller", Some("namespace-controller")),
                ],
            ),
            ("*,zzzzzzzz", vec![("zzzzzzzz", None)]),
            ("--endpoint", vec![("-endpoint", Some("endpoint"))]),
        ];
        for (list, expected) in cases {
            let error = table().select(&list.split(',').collect::<Vec<_>>()).expect_err(list);
            let expected: Vec<_> =
                expected.into_iter().map(|(name, near)| (name.to_owned(), near.map(str::to_owned))).collect();
            assert_eq!(error.names, expected, "{list}");
        }
        let error = table().select(&["endpoint-controller", "zzzzzzzz"]).unwrap_err().to_string();
        assert_eq!(
            error,
            "\"endpoint-controller\" is not in the list of known controllers (did you mean \"endpoints-controller\"?); \
             \"zzzzzzzz\" is not in the list of known controllers"
        );
    }

    #[test]
    fn warns_once_for_each_name_it_lacks() {
        let selection = table().select(&["*", "deployment", "-deployment-controller", "tokencleaner"]).unwrap();
        assert_eq!(
            selection.warnings(),
            [
                "--controllers: deployment-controller has no effect: this build does not have it",
                "--controllers: token-cleaner-controller has no effect: this build does not have it",
            ]
        );
        assert!(table().select(&["*"]).unwrap().warnings().is_empty());
    }

    #[test]
    fn knows_what_was_named() {
        let selection = table().select(&["*", "endpoint", "-namespace"]).unwrap();
        assert!(selection.is_named("endpoints-controller"));
        assert!(!selection.is_named("namespace-controller"));
        assert!(!table().select(&["*"]).unwrap().is_named("endpoints-controller"));
        assert_eq!(selection.disabled().collect::<Vec<_>>(), ["namespace-controller", "route-sweeper"]);
    }

    #[test]
    fn the_complement_is_what_is_left_to_the_go_manager() {
        let cases = [
            ("*", "*,-endpoints-controller,-namespace-controller"),
            ("endpoint", "*,-endpoints-controller"),
            ("", "*"),
            ("*,-endpoint", "*,-namespace-controller"),
            // kubeadm's own list keeps the two that are off by default.
            (
                "*,bootstrapsigner,tokencleaner",
                "*,bootstrap-signer-controller,-endpoints-controller,-namespace-controller,token-cleaner-controller",
            ),
            ("endpoint,-deployment,job", "*,-deployment-controller,-endpoints-controller"),
        ];
        for (list, expected) in cases {
            let items: Vec<&str> = if list.is_empty() { Vec::new() } else { list.split(',').collect() };
            let selection = table().select(&items).unwrap();
            assert_eq!(table().complement(&selection), expected, "{list}");
        }
    }

    #[test]
    fn without_upstream_its_names_are_unknown() {
        let table = ControllerTable::new(vec![descriptor("account-controller", &[])], false);
        assert!(table.select(&["deployment"]).is_err());
        assert!(table.lacking().is_empty());
    }

    #[test]
    fn upstreams_table_is_sound() {
        let mut seen = std::collections::BTreeSet::new();
        for controller in UPSTREAM_CONTROLLERS {
            for name in std::iter::once(&controller.name).chain(controller.aliases) {
                assert!(seen.insert(*name), "{name} stands twice");
            }
        }
        assert!(UPSTREAM_CONTROLLERS.is_sorted_by_key(|c| c.name));
        assert_eq!(UPSTREAM_CONTROLLERS.iter().filter(|c| !c.enabled_by_default).count(), 3);
    }

    proptest! {
        #[test]
        fn never_panics(list in proptest::collection::vec("\\PC*", 0..6)) {
            let _ = table().select(&list);
        }
    }
}
