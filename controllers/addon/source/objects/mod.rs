//! The source of Addon objects: each is an addon, wherever it is. Mirrors of other sources' addons are
//! passed over.

mod read;
mod selector;
mod watch;

pub use read::Reader;
pub use selector::Selector;
pub use watch::ObjectsWatch;
