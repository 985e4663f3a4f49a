//! Who owns which field of an object (`metadata.managedFields`), and what follows from it.

mod compare;
mod left;
mod owners;
mod set;

pub use compare::{differences, fingerprint, is_within, without};
pub use left::{LEAVE_ANNOTATION, as_left};
pub use owners::{Operation, Overrides, Owner, applied_by, owners, take_back, yielded};
pub use set::FieldSet;
