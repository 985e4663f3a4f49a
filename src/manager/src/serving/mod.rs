//! Secure serving: what upstream's managers serve on their port, behind the same authentication and
//! authorization.
//!
//! A request passes, outermost first: panic recovery and deadline, log, cache-control, who is asking
//! ([`Trust`], token reviews), what they may ask (open paths, access reviews), and only then a page
//! ([`Endpoints`]). The server is up before any election: replicas that stand by answer everything.
//!
//! Nothing here knows the API server: it is asked through [`Reviews`], and its authentication
//! settings arrive through [`Trust::update`].

mod authn;
mod authz;
mod cache;
mod cert;
mod client_cert;
mod connections;
mod health;
mod metrics;
pub(crate) mod respond;
mod review;
mod routes;
mod server;
mod settings;
mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod tls;
mod trust;
mod user;
pub(crate) mod x509;

pub use cert::{CertError, CertSource};
pub use health::{Checks, Probe};
pub use review::{ReviewError, Reviews};
pub use routes::{ConfigSource, Endpoints, Verbosity};
pub use server::{ServeError, Server};
pub use settings::{Limits, Security, Settings};
pub use status::{Component, StatusSource};
pub use trust::{CLUSTER_SETTINGS, Trust, TrustError};
