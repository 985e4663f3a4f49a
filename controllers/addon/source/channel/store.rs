//! What a channel said last, kept where a restart finds it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::addon::source::directory::{ReadFault, Root};

/// The last good reading of a channel: an index all of whose chosen manifests could be read and
/// verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Good {
    /// When it was read, seconds since 1970: of two stores the later one counts.
    pub read_at: u64,
    /// The index.
    pub index: Bytes,
    /// The manifests, by location without credentials.
    pub manifests: BTreeMap<String, Bytes>,
}

impl Good {
    /// All bytes in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len() + self.manifests.values().map(Bytes::len).sum::<usize>()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why something was not kept, or not found again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system said no.
    #[error("{0}")]
    System(#[from] io::Error),
    /// A file could not be read.
    #[error("{0}")]
    Read(#[from] ReadFault),
    /// What was found is not what was kept.
    #[error("{0} is damaged")]
    Damaged(String),
    /// Larger than is kept.
    #[error("{size} bytes; at most {most} are kept")]
    TooLarge {
        /// How large, bytes.
        size: usize,
        /// The limit, bytes.
        most: usize,
    },
    /// Another store's own reason.
    #[error("{0}")]
    Other(String),
}

/// Keeps last good readings. `channel` is the key of a channel: a digest of its location, the same in
/// every process.
pub trait GoodStore: Send + Sync + 'static {
    /// What was kept, `None` if nothing was.
    fn load<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Result<Option<Good>, StoreError>>;
    /// Keeps a reading in place of the one before.
    fn save<'a>(&'a self, channel: &'a str, good: Good) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// Several stores as one: saved in all of them, loaded from the one with the latest.
pub struct Stores(pub Vec<Arc<dyn GoodStore>>);

impl GoodStore for Stores {
    fn load<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Result<Option<Good>, StoreError>> {
        Box::pin(async move {
            let mut latest: Option<Good> = None;
            let mut fault = None;
            for store in &self.0 {
                match store.load(channel).await {
                    Ok(Some(good)) if latest.as_ref().is_none_or(|other| other.read_at < good.read_at) => {
                        latest = Some(good);
                    }
                    Ok(_) => {}
                    Err(error) => fault = Some(error),
                }
            }
            // One of them is enough.
            match (latest, fault) {
                (None, Some(error)) => Err(error),
                (latest, _) => Ok(latest),
            }
        })
    }

    fn save<'a>(&'a self, channel: &'a str, good: Good) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut result = Ok(());
            for store in &self.0 {
                if let Err(error) = store.save(channel, good.clone()).await {
                    result = Err(error);
                }
            }
            result
        })
    }
}

/// A folder of the state directory: `channels/<key>/`, with one file a text, named by its SHA-256,
/// and `state.json`, which names them and is replaced last. Whoever is interrupted leaves the state
/// of before.
#[derive(Debug)]
pub struct DiskStore {
    dir: PathBuf,
    most: usize,
    warned: Arc<AtomicBool>,
}

/// `state.json`.
#[derive(Serialize, Deserialize)]
struct State {
    read_at: u64,
    index: String,
    manifests: BTreeMap<String, String>,
}

const STATE: &str = "state.json";
/// Largest `state.json`, bytes.
const STATE_BYTES: u64 = 8 << 20;

impl DiskStore {
    /// A store below the state directory that keeps at most `most` bytes a channel.
    #[must_use]
    pub fn new(state_dir: &Path, most: usize) -> Self {
        Self::of("channels", state_dir, most)
    }

    /// The same for another kind of source, in a folder of its own.
    #[must_use]
    pub fn of(folder: &'static str, state_dir: &Path, most: usize) -> Self {
        Self { dir: state_dir.join(folder), most, warned: Arc::default() }
    }

    fn load_now(dir: &Path, most: usize) -> Result<Option<Good>, StoreError> {
        let root = match Root::open(dir) {
            Ok(root) => root,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let text = match root.read(STATE, STATE_BYTES) {
            Ok(text) => text.bytes,
            Err(ReadFault::System(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(fault) => return Err(fault.into()),
        };
        let damaged = |name: &str| StoreError::Damaged(dir.join(name).display().to_string());
        let state: State = serde_json::from_slice(&text).map_err(|_| damaged(STATE))?;
        let mut left = most as u64;
        let mut read = |name: &String| {
            if !is_digest(name) {
                return Err(damaged(STATE));
            }
            let bytes = root.read(name, left)?.bytes;
            left -= bytes.len() as u64;
            if hex(&bytes) == *name { Ok(Bytes::from(bytes)) } else { Err(damaged(name)) }
        };
        let index = read(&state.index)?;
        let manifests = state.manifests.iter().map(|(location, name)| Ok((location.clone(), read(name)?)));
        let manifests = manifests.collect::<Result<_, StoreError>>()?;
        Ok(Some(Good { read_at: state.read_at, index, manifests }))
    }

    fn save_now(dir: &Path, most: usize, good: &Good) -> Result<(), StoreError> {
        if good.len() > most {
            return Err(StoreError::TooLarge { size: good.len(), most });
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let keep = |bytes: &Bytes| -> io::Result<String> {
            let name = hex(bytes);
            let path = dir.join(&name);
            if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() == bytes.len() as u64) {
                replace(&path, bytes)?;
            }
            Ok(name)
        };
        let index = keep(&good.index)?;
        let manifests = good.manifests.iter().map(|(location, bytes)| Ok((location.clone(), keep(bytes)?)));
        let manifests = manifests.collect::<io::Result<_>>()?;
        let state = State { read_at: good.read_at, index, manifests };
        let text = serde_json::to_vec(&state).map_err(io::Error::other)?;
        replace(&dir.join(STATE), &text)?;
        tidy(dir, &state);
        Ok(())
    }

    /// A directory that cannot be written is told once: sources work without it.
    fn warn(dir: &Path, warned: &AtomicBool, error: &StoreError) {
        if !warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(dir = %dir.display(), %error, "what was read last cannot be kept; after a restart its source has to be read before anything is done");
        }
    }
}

impl GoodStore for DiskStore {
    fn load<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Result<Option<Good>, StoreError>> {
        let (dir, most) = (self.dir.join(channel), self.most);
        Box::pin(
            async move { tokio::task::spawn_blocking(move || Self::load_now(&dir, most)).await.unwrap_or(Ok(None)) },
        )
    }

    fn save<'a>(&'a self, channel: &'a str, good: Good) -> BoxFuture<'a, Result<(), StoreError>> {
        let (dir, most, warned) = (self.dir.join(channel), self.most, Arc::clone(&self.warned));
        Box::pin(async move {
            let work = move || Self::save_now(&dir, most, &good).inspect_err(|error| Self::warn(&dir, &warned, error));
            tokio::task::spawn_blocking(work).await.unwrap_or(Ok(()))
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Writes a file that is there whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let _ = fs::remove_file(&part);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)
}

/// Removes what the state does not name any more.
fn tidy(dir: &Path, state: &State) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let named = name == STATE || name == state.index || state.manifests.values().any(|kept| kept == name);
        let ours = is_digest(name.trim_end_matches(".part")) || name == "state.part";
        if ours && !named {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const KEY: &str = "0123";

    fn good(read_at: u64, manifests: &[(&str, &str)]) -> Good {
        let manifests = manifests.iter().map(|&(at, text)| (at.to_owned(), Bytes::from(text.to_owned()))).collect();
        Good { read_at, index: Bytes::from_static(b"index"), manifests }
    }

    #[tokio::test]
    async fn what_is_saved_is_loaded_and_the_rest_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = DiskStore::new(dir.path(), 1000);
        assert_eq!(store.load(KEY).await.expect("nothing"), None);
        let first = good(1, &[("s3://b/a", "one"), ("s3://b/b", "two")]);
        store.save(KEY, first.clone()).await.expect("saved");
        assert_eq!(store.load(KEY).await.expect("loaded"), Some(first));
        let second = good(2, &[("s3://b/a", "three")]);
        store.save(KEY, second.clone()).await.expect("saved");
        // Another process finds it as well.
        assert_eq!(DiskStore::new(dir.path(), 1000).load(KEY).await.expect("loaded"), Some(second));
        assert_eq!(fs::read_dir(dir.path().join("channels").join(KEY)).expect("files").count(), 3);
    }

    #[tokio::test]
    async fn what_is_damaged_is_not_used() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = DiskStore::new(dir.path(), 1000);
        let at = |name: &str| dir.path().join("channels").join(KEY).join(name);
        let save = async || store.save(KEY, good(1, &[("a", "one")])).await.expect("saved");
        save().await;
        fs::write(at(&hex(b"one")), "two").expect("damage");
        assert!(store.load(KEY).await.expect_err("damaged").to_string().contains("is damaged"));
        fs::remove_file(at(&hex(b"one"))).expect("damage");
        assert!(store.load(KEY).await.is_err());
        save().await;
        fs::write(at(STATE), "{").expect("damage");
        assert!(store.load(KEY).await.expect_err("damaged").to_string().contains(STATE));
        fs::write(at(STATE), r#"{"read_at":1,"index":"../../../secret","manifests":{}}"#).expect("damage");
        fs::write(dir.path().join("secret"), "hidden").expect("a file");
        assert!(store.load(KEY).await.is_err());
        save().await;
        fs::write(dir.path().join("other"), "one").expect("a file");
        fs::remove_file(at(&hex(b"one"))).expect("damage");
        symlink("../../other", at(&hex(b"one"))).expect("a link");
        assert!(store.load(KEY).await.expect_err("a link").to_string().contains("leads out"));
    }

    /// Interrupted before the state was replaced: the state of before holds.
    #[tokio::test]
    async fn an_interrupted_save_changes_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = DiskStore::new(dir.path(), 1000);
        let first = good(1, &[("a", "one")]);
        store.save(KEY, first.clone()).await.expect("saved");
        let at = |name: &str| dir.path().join("channels").join(KEY).join(name);
        fs::write(at(&hex(b"two")), "two").expect("a file of the next state");
        fs::write(at("state.part"), "{\"half\":").expect("half a state");
        assert_eq!(store.load(KEY).await.expect("loaded"), Some(first));
        store.save(KEY, good(2, &[("a", "three")])).await.expect("saved over it");
        assert!(!at("state.part").exists() && !at(&hex(b"two")).exists());
    }

    #[tokio::test]
    async fn sizes_are_bounded() {
        let dir = tempfile::tempdir().expect("a directory");
        let large = good(1, &[("a", &"x".repeat(100))]);
        assert!(matches!(
            DiskStore::new(dir.path(), 50).save(KEY, large.clone()).await,
            Err(StoreError::TooLarge { .. })
        ));
        DiskStore::new(dir.path(), 500).save(KEY, large).await.expect("saved");
        assert!(DiskStore::new(dir.path(), 50).load(KEY).await.is_err());
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_written_is_told_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("a file");
        // A file in the directory's place: even root cannot write below it.
        let store = DiskStore::new(&file, 1000);
        assert!(store.save(KEY, good(1, &[])).await.is_err() && store.warned.load(Ordering::Relaxed));
        assert!(store.save(KEY, good(1, &[])).await.is_err());
        assert!(store.load(KEY).await.is_err());
    }

    #[tokio::test]
    async fn of_several_stores_the_latest_counts() {
        let dirs = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
        let disks: Vec<Arc<DiskStore>> = dirs.iter().map(|dir| Arc::new(DiskStore::new(dir.path(), 1000))).collect();
        let both = Stores(disks.iter().map(|disk| Arc::clone(disk) as Arc<dyn GoodStore>).collect());
        assert_eq!(both.load(KEY).await.expect("nothing"), None);
        both.save(KEY, good(1, &[])).await.expect("saved");
        disks[1].save(KEY, good(5, &[])).await.expect("saved");
        assert_eq!(both.load(KEY).await.expect("loaded").map(|good| good.read_at), Some(5));
        fs::write(dirs[1].path().join("channels").join(KEY).join(STATE), "").expect("damage");
        assert_eq!(both.load(KEY).await.expect("loaded").map(|good| good.read_at), Some(1));
    }
}
