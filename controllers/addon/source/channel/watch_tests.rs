use std::fs;

use tokio::sync::mpsc;

use super::super::store::DiskStore;
use super::*;
use crate::addon::location::{FetchLimits, HostPolicy, Location};

struct Bench {
    readings: mpsc::UnboundedReceiver<ChannelReading>,
    version: watch::Sender<Option<Version>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Bench {
    fn start(channels: &[&str], state: &Path) -> Self {
        let channels: Vec<(String, Location)> =
            channels.iter().map(|&text| (text.to_owned(), Location::parse(text).expect(text))).collect();
        let policy = HostPolicy::new(channels.iter().map(|(_, location)| location), []).expect("a policy");
        // No test here waits for the interval.
        let interval = Duration::from_secs(3600);
        let config = ChannelConfig { channels, policy, interval, repair_drift: true, state_dir: state.to_owned() };
        let fetcher = Fetcher::new(config.policy.clone(), FetchLimits::default());
        let store = Arc::new(DiskStore::new(state, 1 << 20));
        let (send, readings) = mpsc::unbounded_channel();
        let (version, kubernetes) = watch::channel(None);
        let watch = ChannelWatch::new(config, fetcher, store, kubernetes, move |reading| {
            let _ = send.send(reading);
        });
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        Self { readings, version, stop, task: tokio::spawn(async move { watch.run(stopped).await }) }
    }

    /// The next reading for which `wanted` holds; a test that waits for ever hangs and is ended.
    async fn until(&mut self, wanted: impl Fn(&ChannelReading) -> bool) -> ChannelReading {
        loop {
            let reading = self.readings.recv().await.expect("the watch runs");
            if wanted(&reading) {
                return reading;
            }
        }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("it ends");
    }
}

fn index(entries: &str) -> String {
    format!("kind: Addons\nspec:\n  addons:\n{entries}")
}

fn manifest(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: a}}\n")
}

fn names(reading: &ChannelReading) -> Vec<&str> {
    reading.snapshot.addons.keys().map(|name| &**name).collect()
}

#[tokio::test]
async fn changes_of_files_are_seen_without_the_interval() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("sub")).expect("a folder");
    fs::write(at("sub/one.yaml"), manifest("one")).expect("a manifest");
    fs::write(at("index.yaml"), index("  - {name: one, manifest: sub/one.yaml}\n")).expect("an index");
    let path = at("index.yaml");
    let mut bench = Bench::start(&[path.to_str().expect("a path")], &at("state"));
    let first = bench.until(|reading| reading.snapshot.settled).await;
    assert_eq!((names(&first), first.snapshot.complete), (vec!["one"], true));
    assert_eq!(first.snapshot.addons["one"].policy.drift, crate::addon::source::Drift::Repair);
    fs::write(at("sub/two.yaml"), manifest("two")).expect("a manifest");
    let both = index("  - {name: one, manifest: sub/one.yaml}\n  - {name: two, manifest: sub/two.yaml}\n");
    fs::write(at("next.yaml"), both).expect("an index");
    fs::rename(at("next.yaml"), &path).expect("a swap");
    bench.until(|reading| names(reading) == ["one", "two"] && reading.snapshot.settled).await;
    // A manifest in another folder.
    fs::write(at("sub/two.yaml"), manifest("changed")).expect("a manifest");
    let changed = |reading: &ChannelReading| {
        reading.snapshot.addons.get("two").is_some_and(|addon| &*addon.objects[0].ident.name == "changed")
    };
    bench.until(|reading| changed(reading) && reading.snapshot.settled).await;
    // Gone for good is told, and gone from the index counts once two readings agree.
    fs::write(&path, index("  - {name: two, manifest: sub/two.yaml}\n")).expect("an index");
    let unsettled = bench.until(|reading| names(reading) == ["two"]).await;
    assert!(unsettled.snapshot.complete && !unsettled.snapshot.settled);
    bench.until(|reading| names(reading) == ["two"] && reading.snapshot.settled).await;
    fs::remove_file(&path).expect("removed");
    let lost = bench.until(|reading| !reading.snapshot.complete).await;
    assert_eq!((names(&lost), lost.snapshot.settled), (vec!["two"], false));
    bench.end().await;
}

#[tokio::test]
async fn a_version_that_becomes_known_wakes_the_channels() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("index.yaml");
    fs::write(dir.path().join("m.yaml"), manifest("one")).expect("a manifest");
    fs::write(&path, index("  - {name: one, manifest: m.yaml, kubernetesVersion: '>=1.30.0'}\n")).expect("an index");
    let mut bench = Bench::start(&[path.to_str().expect("a path")], &dir.path().join("state"));
    let wanted = |reading: &ChannelReading| reading.addons.contains_key("one");
    bench.until(|reading| names(reading) == ["one"] && !wanted(reading)).await;
    bench.version.send(Some(Version::new(1, 30, 0))).expect("somebody listens");
    bench.until(wanted).await;
    bench.version.send(Some(Version::new(1, 29, 0))).expect("somebody listens");
    bench.until(|reading| names(reading) == ["one"] && !wanted(reading)).await;
    bench.end().await;
}

/// One server never answers: the other channel is read all the same, and what the silent one said
/// before the restart is in force.
#[tokio::test]
async fn a_silent_channel_holds_up_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("index.yaml");
    fs::write(dir.path().join("m.yaml"), manifest("one")).expect("a manifest");
    fs::write(&path, index("  - {name: one, manifest: m.yaml}\n")).expect("an index");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = format!("http://127.0.0.1:{}/index.yaml", listener.local_addr().expect("an address").port());
    let mut bench = Bench::start(&[&silent, path.to_str().expect("a path")], &dir.path().join("state"));
    let reading = bench.until(|reading| reading.addons.contains_key("one")).await;
    assert!(!reading.snapshot.complete && !reading.channels[0].in_force && reading.channels[1].fresh);
    bench.end().await;
}
