//! Addons from a directory of manifests, one addon a file.
//!
//! Every replica reads the directory of its own master: on changes (inotify) and, in case an event
//! is missed, once a minute. A removal counts only when two readings a second apart agree.

mod read;
mod scan;
mod watch;

pub use read::{FileText, ReadFault, Root};
pub(crate) use scan::hex;
pub use scan::{Folder, SOURCE, Scanner};
pub use watch::{DirectoryWatch, RESCAN};
