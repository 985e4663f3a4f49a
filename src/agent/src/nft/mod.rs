//! Our table in nftables: what it should hold, what it holds, and the one transaction between.
//!
//! `Ruleset` → (`diff` against an `Observed`) → text → `nft -f -`. Elements and rules that stay are not touched, so
//! that a change of one backend costs a few elements, and counters, timeouts and connections live on. What changes elements
//! alone goes to the kernel without `nft`: [`batch`].

mod diff;
mod elements;
mod observe;
mod ruleset;
mod run;

pub use diff::{change, elements_between, full, removal, update};
pub use elements::{ElementChange, ElementChanges, batch, send};
pub use observe::{Observed, ObservedSet, UnreadableTable};
pub use ruleset::{Chain, Rule, Ruleset, Set};
pub use run::{Nft, NftError, generation};

/// Family and name of our table. Nothing outside it is ever read or changed.
pub const TABLE: &str = "inet quarterdeck";
