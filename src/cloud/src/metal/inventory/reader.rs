//! What is known of the inventory, from one reading to the next.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::parse::{digest, parse};
use super::{Contents, watch as eyes};
use crate::error::{CloudError, Result};

/// How long a new content has to stand still before it counts: a copy that is being written may look like a shorter
/// inventory.
pub const SETTLE: Duration = Duration::from_secs(1);
/// Largest file, bytes.
const LARGEST: u64 = 16 << 20;
/// How long one reading may take before it is told that it does not end.
const PATIENCE: Duration = Duration::from_secs(5);

/// What can be said of the inventory at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The last good content, if there ever was one.
    pub good: Option<Arc<Contents>>,
    /// Why the file as it stands does not count; the last good one does. Names file, line and field.
    pub trouble: Option<String>,
    /// Whether the file has just changed, and is read again once it stands still.
    pub unsettled: bool,
}

impl View {
    /// Whether a machine that `good` lacks is known to be absent.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.good.is_some() && self.trouble.is_none() && !self.unsettled
    }
}

/// One reading of the file: its text, or why there is none.
type Reading = std::result::Result<String, String>;

/// What was seen last that does not count yet.
#[derive(Debug)]
struct Pending {
    reading: Reading,
    since: Instant,
}

#[derive(Debug, Default)]
struct State {
    view: View,
    /// The reading that the view is of.
    last: Option<Reading>,
    pending: Option<Pending>,
    /// While a reading does not end: the trouble there was before.
    hangs: Option<Option<String>>,
}

impl State {
    /// Takes in that a reading does not end.
    fn hang(&mut self, path: &Path) {
        if self.hangs.is_none() {
            let told = format!("{}: reading it has not ended within {PATIENCE:?}, and goes on", path.display());
            self.hangs = Some(self.view.trouble.replace(told));
        }
    }

    /// Takes a reading in; the first counts at once.
    fn take(&mut self, path: &Path, reading: Reading, now: Instant) {
        if let Some(before) = self.hangs.take() {
            self.view.trouble = before;
        }
        if self.last.as_ref() == Some(&reading) {
            self.pending = None;
            self.view.unsettled = false;
            return;
        }
        if self.last.is_some() {
            match &self.pending {
                Some(pending) if pending.reading == reading => {
                    if now.duration_since(pending.since) < SETTLE {
                        return;
                    }
                }
                _ => {
                    self.pending = Some(Pending { reading, since: now });
                    self.view.unsettled = true;
                    return;
                }
            }
        }
        self.pending = None;
        self.view.unsettled = false;
        match &reading {
            // Only its form is new; a file that became good again counts as read anew.
            Ok(text) if self.view.good.as_ref().is_some_and(|good| good.digest == digest(text)) => {
                self.view.trouble = None;
            }
            Ok(text) => match parse(text) {
                Ok(contents) => {
                    self.view.good = Some(Arc::new(contents));
                    self.view.trouble = None;
                }
                Err(fault) => self.view.trouble = Some(format!("{}: {fault}", path.display())),
            },
            Err(error) => self.view.trouble = Some(format!("{}: {error}", path.display())),
        }
        self.last = Some(reading);
    }
}

/// The figures of an inventory.
#[derive(Clone)]
struct Figures {
    instances: IntGauge,
    good: IntGauge,
    faults: IntCounter,
}

impl Figures {
    fn new() -> prometheus::Result<Self> {
        Ok(Self {
            instances: IntGauge::new("quarterdeck_metal_inventory_instances", "Machines of the last good inventory.")?,
            good: IntGauge::new(
                "quarterdeck_metal_inventory_good",
                "1 while the inventory file is readable and makes sense; otherwise the last good one counts.",
            )?,
            faults: IntCounter::new(
                "quarterdeck_metal_inventory_faults_total",
                "Readings of the inventory file that began a time in which it does not count.",
            )?,
        })
    }

    fn register(&self, registry: &prometheus::Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.instances.clone()))?;
        registry.register(Box::new(self.good.clone()))?;
        registry.register(Box::new(self.faults.clone()))
    }
}

/// The inventory of a process.
pub struct Inventory {
    path: PathBuf,
    /// Who reads. One reading at a time: they are taken in in the order in which they were made, and a file system that
    /// hangs has one thread of ours, however often somebody asks.
    turn: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
    views: watch::Sender<View>,
    figures: Figures,
    watched: AtomicBool,
}

impl Inventory {
    /// The inventory in this file, which is not read yet.
    ///
    /// # Errors
    /// When its metrics are registered already.
    pub fn new(path: impl Into<PathBuf>, registry: &prometheus::Registry) -> prometheus::Result<Arc<Self>> {
        let figures = Figures::new()?;
        figures.register(registry)?;
        Ok(Arc::new(Self {
            path: path.into(),
            turn: Arc::default(),
            state: Mutex::default(),
            views: watch::Sender::default(),
            figures,
            watched: AtomicBool::new(false),
        }))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file, off the threads that serve others, and says what is known now.
    ///
    /// # Errors
    /// When the process is stopping.
    pub async fn look(self: &Arc<Self>) -> Result<View> {
        let mut reading = pin!(async {
            let turn = Arc::clone(&self.turn).lock_owned().await;
            let own = Arc::clone(self);
            let reading = tokio::task::spawn_blocking(move || {
                // Also if whoever asked has gone: the thread is in use until it has read.
                let _turn = turn;
                own.read_at(Instant::now())
            });
            reading.await
        });
        let ended = match tokio::time::timeout(PATIENCE, &mut reading).await {
            Ok(ended) => ended,
            Err(_) => {
                self.know(|state| state.hang(&self.path));
                reading.await
            }
        };
        ended.map_err(|error| CloudError::Unavailable(format!("reading {}: {error}", self.path.display())))
    }

    /// Reads the file and says what is known at `now`.
    fn read_at(&self, now: Instant) -> View {
        let reading = read(&self.path);
        self.know(|state| state.take(&self.path, reading, now))
    }

    /// Changes what is known, tells of it, and returns it.
    fn know(&self, change: impl FnOnce(&mut State)) -> View {
        let mut state = self.state.lock();
        let before = state.view.clone();
        change(&mut state);
        let view = state.view.clone();
        drop(state);
        self.tell(&before, &view);
        self.views.send_if_modified(|known| {
            let changed = *known != view;
            if changed {
                known.clone_from(&view);
            }
            changed
        });
        view
    }

    fn tell(&self, before: &View, now: &View) {
        self.figures.instances.set(now.good.as_ref().map_or(0, |good| i64::try_from(good.machines.len()).unwrap_or(0)));
        self.figures.good.set(i64::from(now.good.is_some() && now.trouble.is_none()));
        if before.trouble != now.trouble {
            match &now.trouble {
                Some(trouble) => {
                    self.figures.faults.inc();
                    tracing::warn!(path = %self.path.display(), error = %trouble, "the inventory does not count; the last good one does");
                }
                None => tracing::info!(path = %self.path.display(), "the inventory is good again"),
            }
        }
        if let Some(good) = now.good.as_ref().filter(|_| before.good != now.good) {
            tracing::info!(
                path = %self.path.display(), digest = good.digest, machines = good.machines.len(), "read the inventory"
            );
        }
    }

    /// What is known, now and whenever that changes, as long as the file is watched.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<View> {
        self.views.subscribe()
    }

    /// Reads the file whenever it changes, from now on, on the runtime of the caller; once is enough.
    pub fn watch(self: &Arc<Self>) {
        if !self.watched.swap(true, Ordering::AcqRel) {
            tokio::spawn(eyes::run(Arc::clone(self), CancellationToken::new()));
        }
    }
}

/// A file's text.
fn read(path: &Path) -> Reading {
    let is_file = |known: std::io::Result<std::fs::Metadata>| match known {
        Ok(known) if known.is_file() => Ok(()),
        Ok(_) => Err("it is not a file".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    // Before it is opened: to open a pipe would wait for its other end.
    is_file(std::fs::metadata(path))?;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    is_file(file.metadata())?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("it has more than {LARGEST} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "cluster: a\ninstances:\n- {name: one, addresses: [{InternalIP: 10.0.0.1}]}\n";
    const TWO: &str = "cluster: a\ninstances:\n- {name: one, addresses: [{InternalIP: 10.0.0.1}]}\n\
                       - {name: two, addresses: [{InternalIP: 10.0.0.2}]}\n";

    struct Desk {
        dir: tempfile::TempDir,
        inventory: Arc<Inventory>,
        now: Instant,
    }

    impl Desk {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let inventory =
                Inventory::new(dir.path().join("inventory.yaml"), &prometheus::Registry::new()).expect("metrics");
            Self { dir, inventory, now: Instant::now() }
        }

        fn write(&self, text: &str) {
            std::fs::write(self.dir.path().join("inventory.yaml"), text).expect("written");
        }

        fn read(&self) -> View {
            self.inventory.read_at(self.now)
        }

        fn settled(&mut self) -> View {
            self.read();
            self.now += SETTLE;
            self.read()
        }
    }

    fn names(view: &View) -> Vec<&str> {
        view.good.iter().flat_map(|good| &good.machines).map(|machine| &*machine.name).collect()
    }

    #[test]
    fn the_first_reading_counts_at_once_and_later_ones_when_they_stand_still() {
        let mut desk = Desk::new();
        desk.write(TWO);
        let view = desk.read();
        assert_eq!((names(&view), view.is_certain()), (vec!["one", "two"], true));
        // A copy that is being written: shorter, and good.
        desk.write(ONE);
        let view = desk.read();
        assert_eq!((names(&view), view.is_certain()), (vec!["one", "two"], false));
        desk.now += SETTLE / 2;
        assert!(desk.read().unsettled);
        // It went on: the time begins anew.
        desk.write(&format!("{ONE}# more\n"));
        desk.now += SETTLE;
        assert!(desk.read().unsettled);
        // It is what it was: nothing has changed.
        desk.write(TWO);
        let view = desk.read();
        assert_eq!((names(&view), view.is_certain()), (vec!["one", "two"], true));
        desk.write(ONE);
        let view = desk.settled();
        assert_eq!((names(&view), view.is_certain()), (vec!["one"], true));
    }

    /// A server of files that does not answer.
    #[tokio::test(start_paused = true)]
    async fn a_reading_that_does_not_end_is_told_once_and_the_last_good_one_counts() {
        let mut desk = Desk::new();
        desk.write(TWO);
        assert!(desk.settled().is_certain());
        let hung = Arc::clone(&desk.inventory.turn).lock_owned().await;
        let mut views = desk.inventory.follow();
        let look = |inventory: Arc<Inventory>| tokio::spawn(async move { inventory.look().await });
        let looks: Vec<_> = (0..50).map(|_| look(Arc::clone(&desk.inventory))).collect();
        let trouble = views.wait_for(|view| view.trouble.is_some()).await.expect("it is told").clone();
        assert!(trouble.trouble.as_deref().is_some_and(|trouble| trouble.contains("has not ended")), "{trouble:?}");
        assert_eq!((names(&trouble), trouble.is_certain()), (vec!["one", "two"], false), "the last good one counts");
        drop(hung);
        for look in looks {
            assert!(look.await.expect("it ends").expect("it is read").is_certain());
        }
        assert_eq!(desk.inventory.figures.faults.get(), 1, "told once");
    }

    #[test]
    fn a_pipe_is_refused_and_holds_nobody() {
        let mut desk = Desk::new();
        desk.write(TWO);
        assert!(desk.settled().is_certain());
        std::fs::remove_file(desk.inventory.path()).expect("removed");
        let made = std::process::Command::new("mkfifo").arg(desk.inventory.path()).status().expect("mkfifo");
        assert!(made.success());
        let view = desk.settled();
        assert_eq!((names(&view), view.is_certain()), (vec!["one", "two"], false));
        assert!(view.trouble.is_some_and(|trouble| trouble.contains("not a file")));
    }

    #[test]
    fn a_broken_or_missing_file_keeps_the_last_good_one_and_is_told() {
        let mut desk = Desk::new();
        let view = desk.read();
        assert!(view.good.is_none() && !view.is_certain());
        assert!(view.trouble.as_deref().is_some_and(|trouble| trouble.contains("inventory.yaml: No such file")));
        desk.write(TWO);
        assert!(desk.settled().is_certain());
        for broken in ["", "cluster: a\ninstances: [{name: one}]", "cluster: a"] {
            desk.write(broken);
            let view = desk.settled();
            assert_eq!((names(&view), view.is_certain()), (vec!["one", "two"], false), "{broken:?}");
            let trouble = view.trouble.expect("it is told");
            assert!(trouble.contains("inventory.yaml: line "), "{trouble}");
        }
        std::fs::remove_file(desk.inventory.path()).expect("removed");
        let view = desk.settled();
        assert_eq!((names(&view), view.is_certain()), (vec!["one", "two"], false));
        assert_eq!(desk.inventory.figures.good.get(), 0);
        assert_eq!(desk.inventory.figures.instances.get(), 2);
        std::fs::create_dir(desk.inventory.path()).expect("a folder");
        assert!(desk.settled().trouble.is_some_and(|trouble| trouble.contains("not a file")));
        std::fs::remove_dir(desk.inventory.path()).expect("removed");
        desk.write(TWO);
        assert!(desk.settled().is_certain(), "the same content is good again");
        assert_eq!(desk.inventory.figures.good.get(), 1);
        assert_eq!(desk.inventory.figures.faults.get(), 6);
    }
}
