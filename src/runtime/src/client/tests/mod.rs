//! Tests of the whole stack against a small server.
