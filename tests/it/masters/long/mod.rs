//! What takes minutes: `hack/test --all`.

mod disk;
mod failovers;
mod memory;
mod rotation;
mod upgrade;
