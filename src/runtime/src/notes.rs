//! What a replica says of itself to the others. Controllers pin notes here, whether this replica
//! leads or not; the manager keeps them as annotations of the replica's own Lease, which it also renews.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// Namespace of the replicas' own Leases; made for them, and holding nothing else.
pub const REPLICAS_NAMESPACE: &str = "quarterdeck-replicas";
/// What the key of every note begins with.
pub const NOTE_PREFIX: &str = "quarterdeck.dev/";
/// Most bytes of one note. All annotations of an object may have 256 KiB together.
pub const NOTE_BYTES: usize = 64 * 1024;

/// The notes by key.
pub type Texts = BTreeMap<String, String>;

/// Where a replica's notes are pinned. Clones are the same board.
#[derive(Clone, Debug)]
pub struct Notes {
    replica: Arc<str>,
    texts: watch::Sender<Texts>,
}

impl Notes {
    /// An empty board of the replica of this name, which is made fit for the name of a Lease.
    #[must_use]
    pub fn new(replica: &str) -> Self {
        Self { replica: lease_name(replica).into(), texts: watch::Sender::default() }
    }

    /// Name of the replica, and of its Lease in [`REPLICAS_NAMESPACE`].
    #[must_use]
    pub fn replica(&self) -> &str {
        &self.replica
    }

    /// Pins a note in the place of the one with the same name; its key is [`NOTE_PREFIX`] and the
    /// name. A note longer than [`NOTE_BYTES`] is not pinned.
    pub fn pin(&self, name: &str, text: String) {
        let key = format!("{NOTE_PREFIX}{name}");
        if text.len() > NOTE_BYTES {
            tracing::warn!(key, bytes = text.len(), "a note for the other replicas is too long; it stays as it was");
            return;
        }
        self.texts.send_if_modified(|texts| {
            let changed = texts.get(&key) != Some(&text);
            if changed {
                texts.insert(key, text);
            }
            changed
        });
    }

    /// The notes, now and whenever one changes.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Texts> {
        self.texts.subscribe()
    }
}

/// A host's name as the name of an object: lower case letters, digits, `-` and `.`. A name that had to
/// be changed gets a hash of what it was, so that two hosts never share a Lease.
fn lease_name(host: &str) -> String {
    /// What an object's name may have, less the hash.
    const LONGEST: usize = 253 - 9;
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fit: String = host
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if good(c) || c == '-' || c == '.' { c } else { '-' })
        .take(LONGEST)
        .collect();
    let labels = fit.split('.').map(|label| label.trim_matches('-')).filter(|label| !label.is_empty());
    let fit = labels.collect::<Vec<_>>().join(".");
    if fit == host && !fit.is_empty() {
        return fit;
    }
    // FNV-1a: short, stable across versions, and nothing depends on nobody finding a collision.
    let hash = host.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    if fit.is_empty() { format!("replica-{hash:08x}") } else { format!("{fit}-{hash:08x}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_become_names_of_leases() {
        assert_eq!(lease_name("master-1.example.com"), "master-1.example.com");
        // kubernetes#88214: an underscore in a host's name.
        let named: Vec<String> =
            ["master_1", "Master-1", "master-1.", "", "___", "ä", &"x".repeat(300)].map(lease_name).into();
        for (index, name) in named.iter().enumerate() {
            assert!(name.len() <= 253 && !name.starts_with(['-', '.']) && !name.ends_with(['-', '.']), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.'));
            assert!(!named[..index].contains(name), "{name} twice");
        }
        assert!(named[0].starts_with("master-1-"));
    }

    #[test]
    fn a_note_wakes_its_reader_when_it_changes() {
        let notes = Notes::new("host");
        let mut reader = notes.follow();
        reader.mark_unchanged();
        notes.pin("a", "one".to_owned());
        assert!(reader.has_changed().expect("the board is there"));
        assert_eq!(reader.borrow_and_update().get("quarterdeck.dev/a").map(String::as_str), Some("one"));
        notes.pin("a", "one".to_owned());
        notes.pin("b", "x".repeat(NOTE_BYTES + 1));
        assert!(!reader.has_changed().expect("the board is there"));
    }
}
