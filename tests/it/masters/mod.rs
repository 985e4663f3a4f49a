//! The deployment that quarterdeck is for, on three real masters (`hack/masters`): static pods, an addon directory each,
//! and masters that are killed, cut off, upgraded.
//!
//! Bringing masters up takes longer than most tests do, so that [`core`] does it once and walks through the whole story.
//! What takes still longer is in [`long`], which `hack/test --all` runs.

mod core;
mod long;
mod story;
mod world;

use std::time::Duration;

/// Time that anything gets on a loaded machine.
const LONG: Duration = Duration::from_secs(180);
