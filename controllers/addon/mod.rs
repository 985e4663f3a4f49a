//! The addon controller.

pub mod applyset;
pub mod brake;
pub mod fields;
pub mod ident;
pub mod kinds;
pub mod manifest;
pub mod parent;
pub mod source;
