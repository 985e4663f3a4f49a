//! Random changes of Addon objects: the state that is reached from the previous spec is the state that
//! is reached from nothing.
//!
//! A pool of specs is drawn. Each is installed once, as an Addon of its own: the *reference*. Then
//! *lanes*, each an Addon, go from spec to spec: objects change, come, go, are renamed, move between
//! namespaces, are kept or only created; versions go up and down; specs are broken and repaired; Addons
//! are deleted and made again. After each round every lane looks as the reference of its spec does.
//!
//! `QUARTERDECK_SEED` says which (a failure prints it).

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde_json::json;

use super::killed::picture::without_mark;
use super::objects::INSTALLER;
use super::*;

const ADDONS: &str = "/apis/addonmgr.keikoproj.io/v1alpha1/namespaces/addons/addons";
const ID: &str = "applyset.kubernetes.io/id";
/// Addons that change at the same time.
const LANES: usize = 25;
/// Specs that they go through.
const SPECS: usize = 40;
/// Where the objects are.
const PLACES: [&str; 2] = ["here", "there"];

/// Numbers that look random and follow from a seed (`splitmix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(end).unwrap()).unwrap()
    }
}

/// What is wrong with a spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A template that nobody can run.
    Template,
    /// An object of a kind that the server does not have.
    Kind,
}

#[derive(Clone, Debug)]
struct Object {
    place: usize,
    /// Whether it only has to exist.
    create: bool,
    value: usize,
}

#[derive(Clone, Debug)]
struct Spec {
    version: usize,
    objects: BTreeMap<usize, Object>,
    fault: Option<Fault>,
}

impl Spec {
    fn draw(random: &mut Random) -> Self {
        let count = 1 + random.below(4);
        let mut object = |_| {
            let name = random.below(5);
            (name, Object { place: random.below(2), create: random.below(5) == 0, value: random.below(3) })
        };
        let objects = (0..count).map(&mut object).collect();
        let fault = match random.below(8) {
            0 => Some(Fault::Template),
            1 => Some(Fault::Kind),
            _ => None,
        };
        Self { version: random.below(4), objects, fault }
    }

    /// The Addon of this spec, all of it named by `word`.
    fn addon(&self, word: &str) -> Value {
        let (mut steps, mut templates) = (Vec::new(), Vec::new());
        let mut step = |name: String, action: &str, manifest: Value| {
            steps.push(json!([{"name": name, "template": name}]));
            templates.push(json!({"name": name, "resource": {"action": action, "manifest": manifest.to_string()}}));
        };
        for (name, object) in &self.objects {
            let manifest = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "data": {"k": format!("v{}", object.value)},
                "metadata": {"name": format!("{word}-{name}"), "namespace": PLACES[object.place]},
            });
            let action = if object.create { "create" } else { "apply" };
            step(format!("s{name}"), action, manifest);
        }
        match self.fault {
            Some(Fault::Template) => step("wrong".to_owned(), "get", json!({})),
            Some(Fault::Kind) => {
                let manifest = json!({"apiVersion": "example.com/v1", "kind": "Nonsense", "metadata": {"name": word}});
                step("wrong".to_owned(), "apply", manifest);
            }
            None => {}
        }
        templates.insert(0, json!({"name": "entry", "steps": steps}));
        addon(word, &format!("1.{}.0", self.version), &templates)
    }
}

fn addon(word: &str, version: &str, templates: &[Value]) -> Value {
    let workflow = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "spec": {"entrypoint": "entry", "serviceAccountName": INSTALLER, "templates": templates},
    });
    json!({
        "apiVersion": "addonmgr.keikoproj.io/v1alpha1", "kind": "Addon",
        "metadata": {"name": word, "namespace": "addons"},
        "spec": {
            "pkgName": format!("team/{word}"), "pkgVersion": version, "pkgType": "composite", "pkgDescription": "",
            "params": {"namespace": "addons"},
            "lifecycle": {"install": {"template": workflow.to_string()}},
        },
    })
}

/// An Addon that goes from spec to spec.
#[derive(Default)]
struct Lane {
    word: String,
    /// Its spec, by its place in the pool; `None` while it is deleted.
    spec: Option<usize>,
    /// Objects that only had to exist once: they stay, as ever they were.
    kept: BTreeSet<(usize, usize)>,
    story: Vec<String>,
}

/// What is there of Addons and their objects.
struct Cluster {
    addons: Vec<Value>,
    objects: Vec<Value>,
}

impl Cluster {
    async fn read(world: &World) -> Result<Self> {
        let items = |list: Option<Value>| list.and_then(|list| list["items"].as_array().cloned()).unwrap_or_default();
        let mut objects = Vec::new();
        for place in PLACES {
            objects.extend(items(world.get(&format!("/api/v1/namespaces/{place}/configmaps")).await?));
        }
        Ok(Self { addons: items(world.get(ADDONS).await?), objects })
    }

    fn addon(&self, word: &str) -> Option<&Value> {
        self.addons.iter().find(|addon| addon["metadata"]["name"] == word)
    }

    /// The objects of an addon, by place and name.
    fn objects(&self, word: &str) -> BTreeMap<(usize, usize), &Value> {
        let objects = self.objects.iter().filter_map(|object| {
            let metadata = &object["metadata"];
            let (owner, name) = metadata["name"].as_str()?.split_once('-')?;
            let place = PLACES.iter().position(|place| metadata["namespace"] == *place)?;
            (owner == word).then(|| ((place, name.parse().unwrap()), object))
        });
        objects.collect()
    }

    /// What the spec of an Addon came to.
    fn picture(&self, word: &str, spec: &Spec, kept: &BTreeSet<(usize, usize)>) -> Result<Value> {
        let Some(addon) = self.addon(word) else { bail!("{word} is not there") };
        let (status, metadata) = (&addon["status"], &addon["metadata"]);
        if status["observedGeneration"] != metadata["generation"] {
            bail!("{word}: {} was not looked at yet: {status}", metadata["generation"]);
        }
        let mut picture = json!({
            "finalizers": metadata["finalizers"],
            "set": metadata["labels"][ID].is_string(),
            "health": status["health"],
            "lifecycle": status["lifecycle"],
            "reason": status["reason"],
            "errors": status["errors"],
        });
        if spec.fault.is_none() {
            let live = self.objects(word);
            let wanted = spec.objects.iter().map(|(name, object)| (object.place, *name));
            let wanted: BTreeSet<(usize, usize)> = wanted.collect();
            let there = live.iter().filter(|(key, _)| wanted.contains(key) || !kept.contains(key));
            let there = there.map(|((place, name), object)| {
                let only_exists = spec.objects.get(name).is_some_and(|object| object.create);
                let shown = if only_exists { json!("it exists") } else { shown(object) };
                (format!("{place}/{name}"), shown)
            });
            picture["objects"] = there.collect::<serde_json::Map<_, _>>().into();
            let inventory = status["inventory"].as_array().into_iter().flatten().filter_map(Value::as_str);
            picture["inventory"] = inventory.map(without_mark).collect();
            picture["version"] = status["version"].clone();
            picture["kinds"] = metadata["annotations"]["applyset.kubernetes.io/contains-group-kinds"].clone();
            picture["places"] = metadata["annotations"]["applyset.kubernetes.io/additional-namespaces"].clone();
        }
        let mut text = picture.to_string();
        for object in &self.objects {
            text = text.replace(object["metadata"]["uid"].as_str().unwrap(), "UID");
        }
        let set = metadata["labels"][ID].as_str().unwrap_or("no set");
        Ok(serde_json::from_str(&text.replace(set, "SET").replace(word, "WORD"))?)
    }
}

/// What counts of an object.
fn shown(object: &Value) -> Value {
    let mut object = object.clone();
    let metadata = object["metadata"].as_object_mut().unwrap();
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        metadata.remove(field);
    }
    for entry in metadata["managedFields"].as_array_mut().unwrap() {
        entry.as_object_mut().unwrap().remove("time");
    }
    object
}

impl World {
    async fn put_addon(&self, addon: &Value) {
        let path = format!("{ADDONS}/{}?fieldManager=author&force=true", addon["metadata"]["name"].as_str().unwrap());
        self.send(Method::PATCH, &path, "application/apply-patch+yaml", addon).await.unwrap();
    }
}

impl Lane {
    /// Takes the lane one transition further.
    async fn go_on(&mut self, world: &World, pool: &[Spec], random: &mut Random) {
        if self.spec.is_some() && random.below(6) == 0 {
            self.story.push("deleted".to_owned());
            self.spec = None;
            let path = format!("{ADDONS}/{}", self.word);
            world.send(Method::DELETE, &path, "application/json", &json!({})).await.unwrap();
            return;
        }
        // Sometimes two at once: nobody waits for the first.
        for _ in 0..=random.below(4) / 3 {
            let next = random.below(pool.len());
            let spec = &pool[next];
            self.story.push(format!("{next}: {spec:?}"));
            self.spec = Some(next);
            for (name, object) in &spec.objects {
                // What is made by a spec that is passed over is not known.
                if object.create {
                    self.kept.insert((object.place, *name));
                }
            }
            world.put_addon(&spec.addon(&self.word)).await;
        }
    }

    /// Whether it is as the reference of its spec is.
    fn check(&mut self, cluster: &Cluster, pool: &[Spec]) -> Result<()> {
        let Some(number) = self.spec else {
            let leaks: Vec<_> =
                cluster.objects(&self.word).into_keys().filter(|key| !self.kept.contains(key)).collect();
            return match cluster.addon(&self.word) {
                Some(addon) => bail!("{} is still there: {}", self.word, addon["status"]),
                None if !leaks.is_empty() => bail!("{} left {leaks:?}", self.word),
                None => Ok(()),
            };
        };
        let spec = &pool[number];
        let here = cluster.picture(&self.word, spec, &self.kept)?;
        let reference = cluster.picture(&reference(number), spec, &BTreeSet::new())?;
        if here != reference {
            bail!("{} is not as the reference is\n  here: {here}\n  from nothing: {reference}", self.word);
        }
        if spec.fault.is_none() {
            // What is kept now leaves with the next spec that does not name it.
            for (name, object) in spec.objects.iter().filter(|(_, object)| !object.create) {
                self.kept.remove(&(object.place, *name));
            }
        }
        Ok(())
    }
}

/// The Addon that is made of a spec from nothing.
fn reference(number: usize) -> String {
    format!("r{number}")
}

/// What chance follows from: another one each time, unless somebody asks for one.
fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let chosen = std::env::var("QUARTERDECK_SEED");
    chosen.map_or(now.subsec_nanos().into(), |text| text.parse().expect("QUARTERDECK_SEED is a number"))
}

#[tokio::test]
async fn whatever_came_before_an_addon_is_what_its_spec_says() {
    transitions(150).await;
}

mod long {
    #[tokio::test]
    async fn whatever_came_before_an_addon_is_what_its_spec_says() {
        super::transitions(500).await;
    }
}

/// Makes so many random changes.
async fn transitions(count: usize) {
    let seed = seed();
    println!("QUARTERDECK_SEED={seed}");
    let mut random = Random(seed);
    let world = World::start(&["--concurrent-addon-syncs=20", "--kube-api-qps=1000", "--kube-api-burst=1000"]).await;
    world.ready_for_addons().await;
    for place in PLACES {
        world.control_plane.namespace(place).await.unwrap();
    }
    // Objects of an addon that stays, so that no brake holds what the others lose within half a minute.
    let weights = (0..(3 * count).min(900)).map(|index| map(&format!("weight-{index}"), "Reconcile", "v"));
    let weight = json!({"name": "entry", "resource": {"action": "apply", "manifest": weights.collect::<Vec<_>>().join("---\n")}});
    world.put_addon(&addon("weight", "1.0.0", &[weight])).await;
    let pool: Vec<Spec> = (0..SPECS).map(|_| Spec::draw(&mut random)).collect();
    for (number, spec) in pool.iter().enumerate() {
        world.put_addon(&spec.addon(&reference(number))).await;
    }
    world
        .until(&format!("{ADDONS}/weight"), "the weight is there", |addon| {
            addon["status"]["lifecycle"]["installed"] == "Succeeded"
        })
        .await;
    eventually("the references are there", LONG, async || {
        let cluster = Cluster::read(&world).await?;
        for (number, spec) in pool.iter().enumerate() {
            let picture = cluster.picture(&reference(number), spec, &BTreeSet::new())?;
            let expected = match spec.fault {
                None => ["Succeeded", "Ready"],
                Some(Fault::Template) => ["Validation Failed", "Degraded"],
                Some(Fault::Kind) => ["Pending", "Degraded"],
            };
            if [&picture["lifecycle"]["installed"], &picture["health"]] != expected {
                bail!("{spec:?}: {picture}");
            }
            let members = spec.objects.values().filter(|object| !object.create).count();
            if spec.fault.is_none()
                && (
                    picture["inventory"].as_array().map_or(0, Vec::len),
                    picture["objects"].as_object().map_or(0, serde_json::Map::len),
                ) != (members, spec.objects.len())
            {
                bail!("{spec:?}: {picture}");
            }
        }
        Ok(())
    })
    .await
    .with_context(|| format!("QUARTERDECK_SEED={seed}; {}", world.log()))
    .unwrap();

    let mut lanes: Vec<Lane> = (0..LANES).map(|index| Lane { word: format!("t{index}"), ..Lane::default() }).collect();
    for round in 0..count.div_ceil(LANES) {
        for lane in &mut lanes {
            lane.go_on(&world, &pool, &mut random).await;
        }
        let lanes = parking_lot::Mutex::new(&mut lanes);
        eventually(&format!("round {round}: all are as from nothing"), LONG, async || {
            let cluster = Cluster::read(&world).await?;
            for lane in lanes.lock().iter_mut() {
                lane.check(&cluster, &pool).with_context(|| format!("after {:#?}", lane.story))?;
            }
            Ok(())
        })
        .await
        .with_context(|| format!("QUARTERDECK_SEED={seed}; {}", world.log()))
        .unwrap();
    }
}
