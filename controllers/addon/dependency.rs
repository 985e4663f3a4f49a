//! Which packages an addon waits for: exact versions, constraints, or any version, across all sources.

use std::cmp::Ordering;
use std::fmt;

use quarterdeck_api::version::{Requirement, Version};

use super::source::{AddonId, Dependency, Package};

/// Packages that are there without an addon: native runners need no Argo.
const PROVIDED: &[&str] = &["argoproj/workflows"];

/// An addon that others may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Provider<'a> {
    /// The addon.
    pub id: &'a AddonId,
    /// What it provides.
    pub package: &'a Package,
    /// What it needs itself.
    pub dependencies: &'a [Dependency],
    /// Whether this version of it is installed and healthy.
    pub ready: bool,
}

/// Why an addon has to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// Nothing provides it.
    Missing {
        /// What is needed.
        dependency: Dependency,
        /// Versions that there are.
        others: Vec<String>,
    },
    /// What provides it is not ready.
    NotReady {
        /// What is needed.
        dependency: Dependency,
        /// What provides it.
        provider: AddonId,
    },
    /// It needs itself, by way of these packages.
    Cycle {
        /// The packages, in order.
        packages: Vec<String>,
    },
}

impl Unmet {
    /// Whether time alone may help.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::NotReady { .. })
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { dependency, others } => {
                write!(f, "required dependency is not installed: {}:{}", dependency.package, dependency.version)?;
                if others.is_empty() { Ok(()) } else { write!(f, " (there is {})", others.join(", ")) }
            }
            Self::NotReady { dependency, provider } => {
                write!(
                    f,
                    "waiting for the dependency {}:{}, which {provider} provides",
                    dependency.package, dependency.version
                )
            }
            Self::Cycle { packages } => write!(f, "dependencies form a cycle: {}", packages.join(" → ")),
        }
    }
}

/// What an addon waits for; nothing when it may be installed.
#[must_use]
pub fn unmet(id: &AddonId, dependencies: &[Dependency], providers: &[Provider<'_>]) -> Vec<Unmet> {
    let mut unmet = Vec::new();
    for dependency in dependencies {
        match resolve(dependency, id, providers) {
            Some(provider) if provider.ready => {}
            Some(provider) => {
                unmet.push(Unmet::NotReady { dependency: dependency.clone(), provider: provider.id.clone() });
            }
            None if is_provided(dependency, providers) => {}
            None => {
                let named = |provider: &&Provider<'_>| provider.package.name == dependency.package && provider.id != id;
                let others = providers.iter().filter(named).map(|provider| provider.package.version.to_string());
                unmet.push(Unmet::Missing { dependency: dependency.clone(), others: others.collect() });
            }
        }
    }
    if !unmet.is_empty()
        && let Some(packages) = cycle(id, dependencies, providers)
    {
        unmet.insert(0, Unmet::Cycle { packages });
    }
    unmet
}

/// A package that nobody brings and that needs nobody to.
fn is_provided(dependency: &Dependency, providers: &[Provider<'_>]) -> bool {
    PROVIDED.contains(&&*dependency.package)
        && !providers.iter().any(|provider| provider.package.name == dependency.package)
}

/// The addon that answers a dependency: of those whose version satisfies it the one with the highest.
fn resolve<'p, 'a>(dependency: &Dependency, id: &AddonId, providers: &'p [Provider<'a>]) -> Option<&'p Provider<'a>> {
    let requirement =
        Requirement::parse(&dependency.version).unwrap_or_else(|_| Requirement::exactly(&dependency.version));
    providers
        .iter()
        .filter(|provider| provider.id != id && provider.package.name == dependency.package)
        .filter(|provider| requirement.is_satisfied_by(&provider.package.version))
        .max_by(|a, b| higher(a, b))
}

/// Versions by precedence; what is no version comes before all that are, and names break ties.
fn higher(a: &Provider<'_>, b: &Provider<'_>) -> Ordering {
    let version = |provider: &Provider<'_>| Version::parse_loose(&provider.package.version).ok();
    let by_version = match (version(a), version(b)) {
        (Some(a), Some(b)) => a.precedence(&b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    };
    by_version.then_with(|| a.ready.cmp(&b.ready)).then_with(|| b.id.cmp(a.id))
}

/// The packages by which an addon needs itself.
fn cycle(id: &AddonId, dependencies: &[Dependency], providers: &[Provider<'_>]) -> Option<Vec<String>> {
    let own = providers.iter().find(|provider| provider.id == id)?;
    let mut path = vec![own.package.name.to_string()];
    let mut seen: Vec<&AddonId> = Vec::new();
    walk(id, dependencies, providers, &mut path, &mut seen).then_some(path)
}

fn walk<'a>(
    start: &AddonId,
    dependencies: &[Dependency],
    providers: &[Provider<'a>],
    path: &mut Vec<String>,
    seen: &mut Vec<&'a AddonId>,
) -> bool {
    for dependency in dependencies {
        // The start itself may be the answer here.
        let nobody = AddonId { source: "", name: "".into() };
        let Some(provider) = resolve(dependency, &nobody, providers) else { continue };
        path.push(provider.package.name.to_string());
        if provider.id == start {
            return true;
        }
        if !seen.contains(&provider.id) {
            seen.push(provider.id);
            if walk(start, provider.dependencies, providers, path, seen) {
                return true;
            }
        }
        path.pop();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World(Vec<(AddonId, Package, Vec<Dependency>, bool)>);

    fn id(name: &str) -> AddonId {
        AddonId { source: "addon", name: name.into() }
    }

    fn needs(all: &[&str]) -> Vec<Dependency> {
        let split = |text: &&str| {
            let (package, version) = text.split_once(':').expect("package:version");
            Dependency { package: package.into(), version: version.into() }
        };
        all.iter().map(split).collect()
    }

    fn world(rows: &[(&str, &str, &[&str], bool)]) -> World {
        let row = |(name, package, dependencies, ready): &(&str, &str, &[&str], bool)| {
            let (package, version) = package.split_once(':').expect("package:version");
            (id(name), Package { name: package.into(), version: version.into() }, needs(dependencies), *ready)
        };
        World(rows.iter().map(row).collect())
    }

    impl World {
        fn unmet(&self, name: &str, dependencies: &[&str]) -> Vec<String> {
            let providers: Vec<Provider<'_>> = self
                .0
                .iter()
                .map(|(id, package, dependencies, ready)| Provider { id, package, dependencies, ready: *ready })
                .collect();
            unmet(&id(name), &needs(dependencies), &providers).iter().map(ToString::to_string).collect()
        }
    }

    #[test]
    fn exact_constraint_and_any() {
        let world = world(&[
            ("old", "core/net:1.2.0", &[], true),
            ("new", "core/net:1.9.0", &[], true),
            ("next", "core/net:2.0.0", &[], false),
            ("odd", "core/dns:from-a-friend", &[], true),
        ]);
        for (dependency, waits) in [
            ("core/net:1.2.0", ""),
            ("core/net:v1.2.0", ""),
            ("core/net:^1.0", ""),
            ("core/net:>=3", "required dependency is not installed: core/net:>=3 (there is 1.2.0, 1.9.0, 2.0.0)"),
            ("core/net:>=1", "waiting for the dependency core/net:>=1, which addon/next provides"),
            ("core/net:*", "waiting for the dependency core/net:*, which addon/next provides"),
            ("core/dns:*", ""),
            ("core/dns:from-a-friend", ""),
            (
                "core/dns:not a constraint",
                "required dependency is not installed: core/dns:not a constraint (there is from-a-friend)",
            ),
            ("core/none:*", "required dependency is not installed: core/none:*"),
        ] {
            assert_eq!(world.unmet("x", &[dependency]).join("; "), waits, "{dependency}");
        }
    }

    /// Upstream stopped at the first exact dependency that was satisfied.
    #[test]
    fn every_dependency_counts() {
        let world = world(&[("a", "a:1.0.0", &[], true)]);
        assert_eq!(world.unmet("x", &["a:1.0.0", "b:1.0.0"]).len(), 1);
    }

    #[test]
    fn workflows_are_provided_while_no_addon_brings_them() {
        assert!(world(&[]).unmet("x", &["argoproj/workflows:v2.2.1"]).is_empty());
        let with = world(&[("argo", "argoproj/workflows:v3.4.8", &[], false)]);
        assert_eq!(with.unmet("x", &["argoproj/workflows:v2.2.1"]).len(), 1);
    }

    #[test]
    fn cycles_are_named() {
        let world = world(&[
            ("a", "a:1.0.0", &["b:*"], false),
            ("b", "b:1.0.0", &["c:*"], false),
            ("c", "c:1.0.0", &["a:*", "d:*"], false),
            ("d", "d:1.0.0", &[], false),
        ]);
        assert_eq!(world.unmet("a", &["b:*"])[0], "dependencies form a cycle: a → b → c → a");
        assert_eq!(world.unmet("x", &["a:*"]).len(), 1, "who is not in the cycle only waits");
    }

    #[test]
    fn many_addons_that_need_each_other_end() {
        let names: Vec<String> = (0..60).map(|n| format!("p{n}")).collect();
        let dependencies: Vec<Dependency> =
            names.iter().map(|name| Dependency { package: (**name).into(), version: "*".into() }).collect();
        let rows: Vec<(AddonId, Package)> =
            names.iter().map(|name| (id(name), Package { name: (**name).into(), version: "1.0.0".into() })).collect();
        let providers: Vec<Provider<'_>> = rows
            .iter()
            .map(|(id, package)| Provider { id, package, dependencies: &dependencies, ready: false })
            .collect();
        assert_eq!(unmet(&id("p0"), &dependencies, &providers).len(), 61);
    }
}
