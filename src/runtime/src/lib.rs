//! What a controller stands on.
