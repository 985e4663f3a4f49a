use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use quarterdeck_api::channel::Installed;
use tokio::io::AsyncWriteExt as _;

use super::super::merge::merge;
use super::super::store::DiskStore;
use super::super::{ChannelReading, StoreError};
use super::*;
use crate::addon::location::testing::{Stream, TestNetwork, serve};
use crate::addon::location::{FetchLimits, HostPolicy};

/// A web site whose pages a test changes.
struct Site {
    pages: Arc<Mutex<BTreeMap<String, String>>>,
    requests: Arc<Mutex<Vec<String>>>,
    network: Arc<TestNetwork>,
    dir: tempfile::TempDir,
}

const INDEX: &str = "http://h/c/index.yaml";

impl Site {
    async fn new() -> Self {
        let pages: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (served, noted) = (Arc::clone(&pages), Arc::clone(&requests));
        let to: SocketAddr = serve(None, move |head: String, mut stream: Box<dyn Stream>| {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            noted.lock().push(path.clone());
            let page = served.lock().get(&path).cloned();
            async move {
                let answer = match page {
                    None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
                    Some(body) => {
                        let etag = format!("\"{}\"", content_hash(body.as_bytes()));
                        if head.contains(&format!("if-none-match: {etag}")) {
                            "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned()
                        } else {
                            format!("HTTP/1.1 200 OK\r\netag: {etag}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                        }
                    }
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        let network = Arc::new(TestNetwork::default());
        network.host("h", "203.0.114.1:80", to);
        Self { pages, requests, network, dir: tempfile::tempdir().expect("a directory") }
    }

    fn page(&self, path: &str, text: &str) {
        self.pages.lock().insert(path.to_owned(), text.to_owned());
    }

    fn gone(&self, path: &str) {
        self.pages.lock().remove(path);
    }

    fn fetcher(&self, location: &Location) -> Fetcher {
        let policy = HostPolicy::new([location], []).expect("a policy");
        let limits = FetchLimits { attempts: 1, first_wait: Duration::from_millis(1), ..FetchLimits::default() };
        Fetcher::on(Arc::clone(&self.network) as _, policy, limits, None)
    }

    fn store(&self) -> DiskStore {
        DiskStore::new(self.dir.path(), 1 << 20)
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock())
    }
}

fn channel(text: &str) -> Channel {
    Channel::new(text, Location::parse(text).expect(text), false, ChannelLimits::default())
}

fn kubernetes() -> Version {
    Version::new(1, 30, 0)
}

async fn read(channel: &mut Channel, site: &Site) -> ChannelReading {
    let fetcher = site.fetcher(&channel.location);
    channel.read(&fetcher, &site.store(), Some(&kubernetes())).await;
    merge(&[channel.view()], true)
}

fn index(entries: &[String]) -> String {
    format!("kind: Addons\nmetadata: {{name: x}}\nspec:\n  addons:\n{}", entries.concat())
}

fn entry(name: &str, rest: &str) -> String {
    format!("  - {{name: {name}, manifest: {name}.yaml{rest}}}\n")
}

fn manifest(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: kube-system}}\n")
}

/// Addons with the names of their objects, and whether each is evidence of what it lacks.
fn shown(reading: &ChannelReading) -> Vec<String> {
    let addon = |addon: &Arc<Addon>| {
        let objects: Vec<_> = addon.objects.iter().map(|object| &*object.ident.name).collect();
        let fresh = reading.addons.get(&addon.id.name).is_some_and(|behind| behind.fresh);
        let sign = if fresh { "" } else { " (old)" };
        let evidence = if addon.is_evidence() { "" } else { " (no evidence)" };
        format!("{}: {}{sign}{evidence}", addon.id.name, objects.join(","))
    };
    reading.snapshot.addons.values().map(addon).collect()
}

fn two_addons(site: &Site) {
    for name in ["a", "b"] {
        site.page(&format!("/c/{name}.yaml"), &manifest(name));
    }
    let hash = content_hash(manifest("a").as_bytes());
    site.page("/c/index.yaml", &index(&[entry("a", &format!(", manifestHash: {hash}")), entry("b", "")]));
}

#[tokio::test]
async fn a_channel_is_read_and_read_again_cheaply() {
    let site = Site::new().await;
    two_addons(&site);
    let mut channel = channel(INDEX);
    let first = read(&mut channel, &site).await;
    assert_eq!(shown(&first), ["a: a", "b: b"]);
    assert!(first.snapshot.complete && first.channels[0].problems.is_empty(), "{:?}", first.channels);
    assert_eq!(site.asked(), ["/c/index.yaml", "/c/a.yaml", "/c/b.yaml"]);
    let second = read(&mut channel, &site).await;
    assert!(Arc::ptr_eq(&first.snapshot.addons["a"], &second.snapshot.addons["a"]));
    assert_eq!((first.snapshot.digest, second.snapshot.complete), (second.snapshot.digest, true));
    // What has a hash that did not change is not asked for at all.
    assert_eq!(site.asked(), ["/c/index.yaml", "/c/b.yaml"]);
    let note = &second.addons["b"].offer.note;
    assert_eq!((note.channel.as_deref(), note.system_generation), (Some(INDEX), 1));
    assert_eq!(note.manifest_hash, content_hash(manifest("b").as_bytes()));
    assert!(second.addons["a"].offer.hash_is_named && !second.addons["b"].offer.hash_is_named);
}

#[tokio::test]
async fn a_changed_manifest_is_a_new_revision() {
    let site = Site::new().await;
    two_addons(&site);
    let mut channel = channel(INDEX);
    let first = read(&mut channel, &site).await;
    site.page("/c/b.yaml", &manifest("b2"));
    let second = read(&mut channel, &site).await;
    assert_eq!(shown(&second), ["a: a", "b: b2"]);
    assert_ne!(first.snapshot.addons["b"].version, second.snapshot.addons["b"].version);
    assert_ne!(first.snapshot.digest, second.snapshot.digest);
}

#[tokio::test]
async fn a_manifest_with_another_hash_is_refused() {
    let site = Site::new().await;
    two_addons(&site);
    let mut channel = channel(INDEX);
    site.page("/c/a.yaml", &manifest("evil"));
    let reading = read(&mut channel, &site).await;
    assert_eq!(shown(&reading), ["a:  (old) (no evidence)", "b: b"]);
    let (named, actual) = (content_hash(manifest("a").as_bytes()), content_hash(manifest("evil").as_bytes()));
    let told = &reading.channels[0].problems;
    assert!(told.len() == 1 && told[0].contains(&named) && told[0].contains(&actual), "{told:?}");
    assert!(reading.snapshot.addons["a"].problems[0].message.contains(&named));
    // Put right, and then wrong again: what was in force stays.
    site.page("/c/a.yaml", &manifest("a"));
    assert_eq!(shown(&read(&mut channel, &site).await), ["a: a", "b: b"]);
    site.page("/c/index.yaml", &index(&[entry("a", &format!(", id: new, manifestHash: {actual}")), entry("b", "")]));
    let reading = read(&mut channel, &site).await;
    assert_eq!(shown(&reading), ["a: a (old)", "b: b"]);
    assert_eq!(reading.addons["a"].entry.id, "");
    // The other addon's absence would still mean something.
    assert!(reading.snapshot.complete);
}

/// Nothing that happens to an index takes an addon away, but that it was left out on purpose.
#[tokio::test]
async fn a_bad_index_removes_nothing() {
    let site = Site::new().await;
    two_addons(&site);
    let mut channel = channel(INDEX);
    let good = read(&mut channel, &site).await;
    let bad = [
        ("", "there is no addon in it"),
        ("# moved\n", "there is no addon in it"),
        ("kind: Addons\nspec: {addons: []}\n", "there is no addon in it"),
        ("not: [valid", "document 1"),
        ("<html>Bad Gateway</html>", "not a mapping"),
        ("kind: Addons\nspec: {addons: [{name: a}]}", "manifest: missing"),
        ("kind: Addons\nspec: [1]", "field spec: a list is not a mapping"),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: y}\n",
            "it was an index and is a manifest now",
        ),
    ];
    for (text, message) in bad {
        site.page("/c/index.yaml", text);
        let reading = read(&mut channel, &site).await;
        assert_eq!(shown(&reading), ["a: a (old)", "b: b (old)"], "{text}");
        assert!(!reading.snapshot.complete && reading.snapshot.digest == good.snapshot.digest, "{text}");
        let problem = reading.snapshot.problem.expect("a problem");
        assert!(problem.starts_with(INDEX) && problem.contains(message), "{text}: {problem}");
    }
    site.gone("/c/index.yaml");
    let reading = read(&mut channel, &site).await;
    assert_eq!(shown(&reading), ["a: a (old)", "b: b (old)"]);
    assert!(reading.snapshot.problem.expect("a problem").contains("404"));
    two_addons(&site);
    let reading = read(&mut channel, &site).await;
    assert!(reading.snapshot.complete && reading.addons["a"].fresh);
    site.page("/c/index.yaml", &index(&[entry("b", "")]));
    let reading = read(&mut channel, &site).await;
    assert_eq!((shown(&reading), reading.snapshot.complete), (vec!["b: b".to_owned()], true));
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_may_be_any_addon() {
    let site = Site::new().await;
    two_addons(&site);
    let mut channel = channel(INDEX);
    read(&mut channel, &site).await;
    site.page("/c/index.yaml", &index(&[entry("b", ""), entry("a", ", version: 1.5")]));
    let reading = read(&mut channel, &site).await;
    assert_eq!((shown(&reading), reading.snapshot.complete), (vec!["a: a (old)".into(), "b: b (old)".into()], false));
    assert!(reading.channels[0].problems[0].contains("spec.addons[1].version: 1.5 is not text"));
}

#[tokio::test]
async fn a_manifest_that_is_missing_or_broken_costs_its_addon_only() {
    let site = Site::new().await;
    two_addons(&site);
    let mut channel = channel(INDEX);
    site.gone("/c/b.yaml");
    assert_eq!(shown(&read(&mut channel, &site).await), ["a: a", "b:  (old) (no evidence)"]);
    site.page("/c/b.yaml", &manifest("b"));
    assert_eq!(shown(&read(&mut channel, &site).await), ["a: a", "b: b"]);
    for text in ["a: [", "just text"] {
        site.page("/c/b.yaml", text);
        let reading = read(&mut channel, &site).await;
        assert_eq!(shown(&reading), ["a: a", "b: b (old)"], "{text}");
        assert!(reading.channels[0].problems[0].starts_with("addon b: manifest http://h/c/b.yaml, document 1"));
    }
    // Half of it can be read: that half is wanted, and nothing goes for the other.
    site.page("/c/b.yaml", &format!("{}---\na: [", manifest("b3")));
    assert_eq!(shown(&read(&mut channel, &site).await), ["a: a", "b: b3 (no evidence)"]);
    // Empty: read, and no evidence either.
    site.page("/c/b.yaml", "# nothing\n");
    assert_eq!(shown(&read(&mut channel, &site).await), ["a: a", "b:  (no evidence)"]);
}

#[tokio::test]
async fn what_was_good_survives_a_restart() {
    let site = Site::new().await;
    two_addons(&site);
    let good = read(&mut channel(INDEX), &site).await;
    site.pages.lock().clear();
    let mut restarted = channel(INDEX);
    restarted.load(&site.store(), Some(&kubernetes())).await;
    let loaded = merge(&[restarted.view()], false);
    assert_eq!(shown(&loaded), ["a: a (old)", "b: b (old)"]);
    assert!(!loaded.snapshot.complete && loaded.channels[0].in_force);
    assert_eq!(loaded.snapshot.digest, good.snapshot.digest);
    assert_eq!(loaded.addons["b"].offer, good.addons["b"].offer);
    let reading = read(&mut restarted, &site).await;
    assert_eq!((shown(&reading), reading.snapshot.complete), (shown(&loaded), false));
    // A bad index does not take its place on disk, nor does one of which a manifest is missing.
    site.page("/c/index.yaml", "kind: Addons");
    read(&mut restarted, &site).await;
    two_addons(&site);
    site.gone("/c/b.yaml");
    site.page("/c/index.yaml", &index(&[entry("b", ", id: new")]));
    read(&mut restarted, &site).await;
    let mut again = channel(INDEX);
    again.load(&site.store(), Some(&kubernetes())).await;
    assert_eq!(merge(&[again.view()], false).snapshot.digest, good.snapshot.digest);
}

#[tokio::test]
async fn a_channel_of_which_nothing_is_known_makes_the_source_incomplete() {
    let site = Site::new().await;
    let mut channel = channel(INDEX);
    assert!(!merge(&[channel.view()], true).snapshot.complete);
    let reading = read(&mut channel, &site).await;
    assert!(!reading.snapshot.complete && !reading.channels[0].in_force && reading.snapshot.addons.is_empty());
}

/// A store that cannot keep anything costs nothing but the restart.
#[tokio::test]
async fn a_store_that_fails_costs_nothing() {
    struct Broken;
    impl GoodStore for Broken {
        fn load<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Good>, StoreError>> {
            Box::pin(async { Err(StoreError::Other("no".into())) })
        }
        fn save<'a>(&'a self, _: &'a str, _: Good) -> BoxFuture<'a, Result<(), StoreError>> {
            Box::pin(async { Err(StoreError::Other("no".into())) })
        }
    }
    let site = Site::new().await;
    two_addons(&site);
    let mut channel = channel(INDEX);
    channel.load(&Broken, None).await;
    channel.read(&site.fetcher(&channel.location), &Broken, None).await;
    assert_eq!(shown(&merge(&[channel.view()], true)), ["a: a", "b: b"]);
}

/// Each manifest within its time, and all of them together for hours: given up, and nothing goes.
#[tokio::test]
async fn a_reading_is_bounded_in_time() {
    let site = Site::new().await;
    two_addons(&site);
    let mut channel = channel(INDEX);
    read(&mut channel, &site).await;
    let slow = serve(None, |_, stream: Box<dyn Stream>| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    site.network.host("h", "203.0.114.2:80", slow);
    channel.limits.time = Duration::from_millis(300);
    let reading = read(&mut channel, &site).await;
    assert_eq!(shown(&reading), ["a: a (old)", "b: b (old)"]);
    assert!(reading.snapshot.problem.expect("a problem").contains("not read within 300ms"));
}

#[tokio::test]
async fn the_first_channel_keeps_an_addon() {
    let site = Site::new().await;
    two_addons(&site);
    site.page("/d/index.yaml", &index(&[entry("b", ""), entry("c", ""), entry("a", ", namespace: other")]));
    for name in ["a", "b", "c"] {
        site.page(&format!("/d/{name}.yaml"), &manifest(&format!("{name}-of-d")));
    }
    let (mut one, mut two) = (channel(INDEX), channel("http://h/d/index.yaml"));
    read(&mut one, &site).await;
    read(&mut two, &site).await;
    let merged = merge(&[one.view(), two.view()], true);
    assert_eq!(shown(&merged), ["a: a", "b: b", "c: c-of-d", "other/a: a-of-d"]);
    assert_eq!(merged.channels[1].problems, [format!("addon b is also in {INDEX}, which stands first and keeps it")]);
    let merged = merge(&[two.view(), one.view()], true);
    assert_eq!(shown(&merged), ["a: a", "b: b-of-d", "c: c-of-d", "other/a: a-of-d"]);
    // One that cannot be read takes nothing from the other, but nothing of either goes.
    site.pages.lock().clear();
    read(&mut one, &site).await;
    let merged = merge(&[one.view(), two.view()], true);
    assert_eq!((shown(&merged).len(), merged.snapshot.complete), (4, false));
}

#[tokio::test]
async fn only_what_was_read_now_updates() {
    let site = Site::new().await;
    two_addons(&site);
    let (mut one, silent) = (channel(INDEX), channel("http://h/silent/index.yaml"));
    read(&mut one, &site).await;
    let note = |channel: &str| Installed { channel: Some(channel.to_owned()), ..Installed::default() };
    let reading = merge(&[silent.view(), one.view()], true);
    let addon = &reading.addons["a"];
    assert!(reading.may_update(addon, &note(INDEX)) && reading.may_update(addon, &note("s3://kops/x")));
    assert!(reading.may_update(addon, &Installed::default()));
    // The channel that it came from stands on the command line, and nobody knows yet what it says.
    assert!(!reading.may_update(addon, &note("http://h/silent/index.yaml")));
    site.pages.lock().clear();
    read(&mut one, &site).await;
    let reading = merge(&[one.view()], true);
    assert!(!reading.may_update(&reading.addons["a"], &note(INDEX)));
}

#[tokio::test]
async fn the_servers_version_chooses() {
    let site = Site::new().await;
    let entries = |name: &str| {
        format!(
            "  - {{name: {name}, manifest: old.yaml, id: old, kubernetesVersion: '<1.30.0'}}\n  - {{name: {name}, manifest: new.yaml, id: new, kubernetesVersion: '>=1.30.0'}}\n"
        )
    };
    site.page("/c/index.yaml", &index(&[entries("x"), entry("q", ", kubernetesVersion: '<1.0.0'")]));
    site.page("/c/old.yaml", &manifest("old"));
    site.page("/c/new.yaml", &manifest("new"));
    let mut channel = channel(INDEX);
    let fetcher = site.fetcher(&channel.location);
    let mut at = async |version: Option<&str>| {
        let version = version.map(|text| Version::of_kubernetes(text).expect(text));
        channel.read(&fetcher, &site.store(), version.as_ref()).await;
        merge(&[channel.view()], true)
    };
    let unknown = at(None).await;
    assert_eq!(shown(&unknown), ["q:  (old) (no evidence)", "x:  (old) (no evidence)"]);
    assert!(unknown.channels[0].problems[0].contains("not known yet"), "{:?}", unknown.channels);
    assert_eq!(shown(&at(Some("v1.30.0-rc.1")).await)[1], "x: new");
    let old = at(Some("v1.29.9")).await;
    assert_eq!(shown(&old), ["q:  (old) (no evidence)", "x: old"]);
    assert!(old.snapshot.addons["q"].problems[0].warning && old.snapshot.complete);
    // The cluster is upgraded while the channel cannot be read: what was kept was for the old one.
    site.pages.lock().clear();
    let upgraded = at(Some("v1.30.1")).await;
    assert_eq!(shown(&upgraded), ["q:  (old) (no evidence)", "x: old (old)"]);
}

#[tokio::test]
async fn a_manifest_alone_is_a_channel() {
    let site = Site::new().await;
    site.page("/c/index.yaml", &manifest("solo"));
    let mut channel = channel(INDEX);
    let first = read(&mut channel, &site).await;
    let [(name, addon)] = first.snapshot.addons.iter().collect::<Vec<_>>()[..] else { panic!("{first:?}") };
    assert!(name.starts_with("manifest-") && addon.objects.len() == 1);
    site.page("/c/index.yaml", &manifest("solo2"));
    let second = read(&mut channel, &site).await;
    assert!(second.snapshot.addons.contains_key(name) && second.snapshot.addons[name].version != addon.version);
    let mut restarted = self::channel(INDEX);
    restarted.load(&site.store(), None).await;
    assert_eq!(merge(&[restarted.view()], true).snapshot.digest, second.snapshot.digest);
}

#[tokio::test]
async fn what_an_index_may_not_name_is_told() {
    let site = Site::new().await;
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("c")).expect("a folder");
    std::fs::write(dir.path().join("secret.yaml"), manifest("secret")).expect("a file");
    let hash = content_hash(manifest("a").as_bytes());
    site.page("/c/a.yaml", &manifest("a"));
    let text = format!(
        "kind: Addons\nspec:\n  addons:\n  - {{name: up, manifest: ../secret.yaml}}\n  - {{name: absolute, manifest: /etc/passwd}}\n  - {{name: url, manifest: 'file:///etc/passwd'}}\n  - {{name: plain, manifest: 'http://h/c/a.yaml'}}\n  - {{name: hashed, manifest: 'http://h/c/a.yaml', manifestHash: {hash}}}\n  - {{name: inside, manifest: 'http://169.254.169.254/latest/meta-data', manifestHash: {hash}}}\n  - {{name: bucket, manifest: 'swift://b/k'}}\n"
    );
    let path = dir.path().join("c/index.yaml");
    std::fs::write(&path, text).expect("an index");
    let mut channel = channel(path.to_str().expect("a path"));
    let reading = read(&mut channel, &site).await;
    let wanted: Vec<_> = shown(&reading).into_iter().filter(|addon| !addon.contains("no evidence")).collect();
    assert_eq!(wanted, ["hashed: a"]);
    let told = reading.channels[0].problems.join("\n");
    for message in [
        "addon up: spec.addons[0].manifest: \"../secret.yaml\" leads out of the folder",
        "addon absolute: spec.addons[1].manifest: \"/etc/passwd\" leads out",
        "addon url: spec.addons[2].manifest: only an index that is a file itself",
        "addon plain: manifest http://h/c/a.yaml is behind http",
        "addon inside: manifest http://169.254.169.254/latest/meta-data: host 169.254.169.254 is at",
        "addon bucket: spec.addons[6].manifest: locations of swift:// are not read",
    ] {
        assert!(told.contains(message), "{message} in:\n{told}");
    }
}
