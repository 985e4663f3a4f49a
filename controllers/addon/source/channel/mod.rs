//! Addons from channels: indexes of `kind: Addons` behind paths and URLs, and the manifests they
//! name.
//!
//! Every replica reads every channel: when a file changes, and at an interval, which costs a request
//! that is answered with "unchanged" where the server has ETags. What a channel said last, index and
//! verified manifests, is kept on disk and in the cluster ([`GoodStore`]) and stays in force while the
//! channel cannot be read, is broken or empty.
//!
//! The source only reads. Whether what is offered takes the place of what is installed, is decided by
//! whoever has the annotations ([`ChannelAddon::offer`], `quarterdeck_api::channel::required`).

mod cluster;
mod flags;
mod in_force;
mod merge;
mod read;
mod store;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use quarterdeck_api::channel::{Entry, Offer};

use super::Snapshot;

pub use cluster::{CHANNEL_LABEL, ClusterStore};
pub use flags::{ChannelConfig, ChannelFlags, FlagError};
pub use in_force::{Channel, ChannelLimits};

pub use store::{DiskStore, Good, GoodStore, StoreError, Stores};
pub use watch::ChannelWatch;

/// Name of this source.
pub const SOURCE: &str = "channel";

/// What stands behind an addon of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelAddon {
    /// The entry that was chosen.
    pub entry: Entry,
    /// The channel's location, without credentials.
    pub channel: Arc<str>,
    /// What would be noted once it is installed; compare it to the note of what is.
    pub offer: Offer,
    /// Whether channel and manifest were read just now. An offer that is only the last good one may
    /// be older than what is installed: it may be installed where nothing is, but never updates.
    pub fresh: bool,
}

/// How a channel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelState {
    /// Its location, without credentials.
    pub channel: Arc<str>,
    /// Whether it was read just now, whole and without an error: only then does an addon's absence
    /// mean that it left.
    pub fresh: bool,
    /// Whether something of it is in force, be it read now or kept from before.
    pub in_force: bool,
    /// What is wrong, each with its field or addon.
    pub problems: Vec<String>,
}

/// All channels at one time.
#[derive(Clone, Debug, Default)]
pub struct ChannelReading {
    /// The addons for the engine. Their names are the addons' own, with `<namespace>/` before where
    /// that is not `kube-system`.
    pub snapshot: Snapshot,
    /// What stands behind each; addons without an entry that fits have none.
    pub addons: BTreeMap<Arc<str>, Arc<ChannelAddon>>,
    /// The channels in the order of the command line.
    pub channels: Vec<ChannelState>,
}
