//! Lease election, the write gate and the epoch fence.
//!
//! This crate decides *who may write*, and knows nothing of what is written. It has three lines of defence:
//!
//! * the **elector** ([`elector::Elector`], driven by [`Election`]) holds one Lease and counts its deadline from the *sending*
//!   of the last successful renewal, so that a slow answer never makes a tenure longer than its followers believe;
//! * the **gate** ([`Gate`]) stands nearest the wire and admits a write only if its answer is due well before that deadline;
//! * the **fence** ([`fence`]) makes the server refuse the writes of a past epoch, which a pause may have let out.
//!
//! Everything but [`driver`], [`kube_lease`] and [`fence::probe`] is free of I/O, and the state machine is free of clocks.
//!
//! ```text
//! Timing ─┬─> Elector (pure) <── Event / Action ──> driver ──> LeaseApi ──> kube-apiserver
//!         └─> GateKeeper ── opens, extends, shuts ──> Gate ── Permit ──> write client
//! ```

pub mod clock;
pub mod driver;
pub mod elector;
pub mod epoch;
pub mod fence;
pub mod gate;
pub mod kube_lease;
pub mod leadership;
pub mod lease_api;
pub mod observer;
pub mod record;
pub mod seed;
pub mod timing;

pub use clock::{BootClock, BootInstant, Clock, ManualClock, TokioClock};
pub use driver::{Election, ElectionConfig};
pub use epoch::{DOMAIN, Epoch, EpochToken, NAMESPACE_DELETION_KEY};
pub use fence::{FenceMode, FenceProver, FenceRefusal, FenceState};
pub use gate::{Gate, GateCounts, GateKeeper, Permit, Refused, WriteTooSlow};
pub use kube_lease::KubeLeases;
pub use leadership::{ElectionStatus, Leadership, Tenure, WorkGuard};
pub use lease_api::{LeaseApi, LeaseError, LeaseSight};
pub use observer::{Observer, Verdict};
pub use record::{LeaseView, Record};
pub use timing::{Timing, TimingError};
