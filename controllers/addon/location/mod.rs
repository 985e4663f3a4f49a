//! Reading the files of channels from where they are: bytes within limits of size and time.
//!
//! Whoever can write an index must not make this process read what they cannot: a file is read only
//! below the folder of its index, and over HTTP only from hosts and addresses that [`HostPolicy`]
//! permits, which is checked on the very address that is connected to, for each redirect again.
//! What a location shows in messages has neither credentials nor query.

mod fetch;
mod http;
mod network;
#[cfg(any(feature = "channel-s3", feature = "channel-gs", feature = "channel-azure"))]
mod object;
#[cfg(feature = "channel-oci")]
mod oci;
mod place;
mod policy;
#[cfg(all(test, feature = "store-tests"))]
mod services_tests;
#[cfg(test)]
pub(crate) mod testing;
mod url;

pub use fetch::{Budget, Fetch, FetchError, FetchLimits, Fetcher};
pub use network::{Network, SystemNetwork, system_tls};
pub use place::{FilePlace, Location, LocationError, ObjectPlace, ObjectStore, OciPlace};
pub use policy::{HostPolicy, PolicyError};
pub use url::{HttpUrl, UrlError};
