//! The endpoints controller.
