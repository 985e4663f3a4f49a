//! The namespace controller.
