//! The addon controller.
