//! The endpoints controllers on a real server: what wakes them, what they put right, and what they make
//! of much.

mod bay;
mod much;
mod repair;
mod startup;
mod waking;
