//! From Addon objects to addons.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use quarterdeck_api::addon::{Addon as Object, names};
use quarterdeck_api::duration;
use serde_json::Value;

use crate::addon::lifecycle::{Book, Lifecycle, is_adopted};
use crate::addon::source::{Addon, AddonId, Dependency, Drift, HEALTH_TIMEOUT, OBJECTS, Package, Policy, Snapshot};
use crate::addon::workflow::Action;
use crate::addon::workflow::runner::Wish;

/// Annotation on an Addon: how long its objects may take to become healthy, such as `10m`.
pub const HEALTH_TIMEOUT_ANNOTATION: &str = "quarterdeck.dev/health-timeout";

/// Annotations that change what an Addon means.
const MEANT: &[&str] = &[
    names::PAUSED_ANNOTATION,
    names::ADOPT_ANNOTATION,
    names::RUNNER_ANNOTATION,
    names::ROLLBACK_MODE_ANNOTATION,
    HEALTH_TIMEOUT_ANNOTATION,
];

/// Reads Addon objects again and again; one that did not change is not compiled again.
#[derive(Debug, Default)]
pub struct Reader {
    read: HashMap<Arc<str>, (Meaning, Arc<Addon>)>,
}

/// All that an Addon's meaning rests on.
#[derive(Debug, PartialEq)]
struct Meaning {
    uid: Option<String>,
    generation: Option<i64>,
    deleting: bool,
    annotations: Vec<Option<String>>,
    checksum: String,
    /// Another system's word, which may come after its checksum.
    adopted: bool,
    steps: Value,
}

impl Meaning {
    fn of(object: &Object) -> Self {
        let status = object.status.as_ref();
        Self {
            uid: object.metadata.uid.clone(),
            generation: object.metadata.generation,
            deleting: object.metadata.deletion_timestamp.is_some(),
            annotations: MEANT.iter().map(|name| object.annotation(name).map(str::to_owned)).collect(),
            checksum: status.map(|status| status.checksum.clone()).unwrap_or_default(),
            adopted: is_adopted(object),
            steps: steps(object),
        }
    }
}

/// What ran of the object's steps, as its status has it.
fn steps(object: &Object) -> Value {
    let progress = object.status.as_ref().and_then(|status| status.progress.as_ref());
    progress.map_or(Value::Null, |progress| progress["steps"].clone())
}

impl Reader {
    /// Reads all of them.
    pub fn read(&mut self, objects: &[Arc<Object>]) -> Snapshot {
        let mut addons = BTreeMap::new();
        let mut owners: BTreeMap<Package, &Arc<Object>> = BTreeMap::new();
        let mut objects: Vec<&Arc<Object>> = objects.iter().filter(|object| !object.is_mirror()).collect();
        // The first of two that bring the same is the older.
        objects.sort_by_key(|object| (object.metadata.creation_timestamp.clone(), object.namespace(), object.name()));
        for object in objects {
            let mut addon = self.one(object);
            if let Some(package) = &addon.package {
                let owner = owners.entry(package.clone()).or_insert(object);
                if !Arc::ptr_eq(owner, object) {
                    addon = Arc::new(duplicate(&addon, owner));
                }
            }
            addons.insert(Arc::clone(&addon.id.name), addon);
        }
        self.read.retain(|name, _| addons.contains_key(name));
        Snapshot { addons, complete: true, settled: true, ..Snapshot::default() }
    }

    fn one(&mut self, object: &Arc<Object>) -> Arc<Addon> {
        let name: Arc<str> = format!("{}/{}", object.namespace(), object.name()).into();
        let meaning = Meaning::of(object);
        if let Some((before, addon)) = self.read.get(&name)
            && *before == meaning
        {
            return Arc::clone(addon);
        }
        let addon = Arc::new(read(Arc::clone(&name), object));
        self.read.insert(name, (meaning, Arc::clone(&addon)));
        addon
    }
}

fn read(name: Arc<str>, object: &Object) -> Addon {
    let mut lifecycle = Lifecycle::read(object);
    let book = Book::read(&steps(object), &lifecycle.checksum);
    let mut objects = Vec::new();
    let (mut account, mut complete, mut runs) = (None, true, false);
    for (index, phase) in lifecycle.phases.clone().iter().enumerate() {
        match lifecycle.program(phase, &book.of(phase.step, &lifecycle.checksum)) {
            Ok(program) => {
                objects.extend(lifecycle.objects(index, &program));
                // What is not known yet may be an object.
                complete &= !program.all().any(|node| matches!(node.action, Action::Pending(_)));
                runs |= program.all().any(|node| matches!(node.action, Action::Pending(_) | Action::Pod(_)));
                let own = program.nodes.first().map(|node| lifecycle.account(&program, node));
                account = own.or(account);
            }
            // Another runner may know it.
            Err(_) => (complete, runs) = (false, true),
        }
    }
    let timeout = object.annotation(HEALTH_TIMEOUT_ANNOTATION).map(duration::parse);
    let health_timeout = match timeout {
        None => HEALTH_TIMEOUT,
        Some(Ok(timeout)) => timeout,
        Some(Err(error)) => {
            lifecycle.faults.push(format!("metadata.annotations[{HEALTH_TIMEOUT_ANNOTATION}]: {error}"));
            HEALTH_TIMEOUT
        }
    };
    runs |= lifecycle.wish == Wish::Argo;
    // What is made natively is managed; only what something else makes is to be looked for.
    lifecycle.observes.take_if(|selector| lifecycle.deleting || !(runs || selector.is_given()));
    let rollback =
        object.annotation(names::ROLLBACK_MODE_ANNOTATION).map(str::parse).transpose().unwrap_or_else(|error| {
            lifecycle.faults.push(format!("metadata.annotations[{}]: {error}", names::ROLLBACK_MODE_ANNOTATION));
            None
        });
    if lifecycle.deleting {
        // What it made belongs to nobody any more: another addon may name it.
        objects.clear();
    }
    let spec = &object.spec;
    Addon {
        id: AddonId { source: OBJECTS, name },
        version: Arc::clone(&lifecycle.checksum),
        package: Some(Package { name: (*spec.pkg_name).into(), version: (*spec.pkg_version).into() }),
        description: (*spec.pkg_description).into(),
        objects,
        account,
        policy: Policy { prune: true, drift: Drift::Repair, health_timeout, paused: object.is_paused(), rollback },
        dependencies: spec
            .pkg_deps
            .iter()
            .map(|(package, version)| Dependency { package: (**package).into(), version: (**version).into() })
            .collect(),
        skipped: Vec::new(),
        problems: Vec::new(),
        complete: complete && lifecycle.faults.is_empty(),
        lifecycle: Some(Arc::new(lifecycle)),
    }
}

/// An addon whose package an older one brings already: nothing of it is done.
fn duplicate(addon: &Addon, owner: &Object) -> Addon {
    let mut duplicate = addon.clone();
    if let Some(lifecycle) = &addon.lifecycle {
        let mut lifecycle = (**lifecycle).clone();
        lifecycle.faults.push(format!(
            "package {}:{} is brought by the addon {}/{} already",
            owner.spec.pkg_name,
            owner.spec.pkg_version,
            owner.namespace(),
            owner.name()
        ));
        duplicate.lifecycle = Some(Arc::new(lifecycle));
    }
    duplicate.objects.clear();
    duplicate.complete = false;
    duplicate
}
