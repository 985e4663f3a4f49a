//! `--cloud-provider=sim`: the server of a made-up cloud, reached as any other plug-in.

use std::sync::Arc;

use quarterdeck_runtime::controller::SetupError;

use super::DEFAULT_SOCKET;
use crate::facility::{MakeProvider, ProviderKind};
use crate::grpc::{Plugin, PluginUri};
use crate::provider::SharedProvider;

/// The made-up cloud.
pub(crate) const KIND: ProviderKind =
    ProviderKind { name: "sim", make, load_balancer_grants: Vec::new, route_grants: Vec::new };

fn make(making: &MakeProvider<'_>) -> Result<SharedProvider, SetupError> {
    let refuse = |reason: String| SetupError { flag: "cloud-provider", reason };
    let place = making.uri.unwrap_or(DEFAULT_SOCKET);
    let place: PluginUri = place.parse().map_err(|error| refuse(format!("{}: {error}", making.name)))?;
    if !matches!(place, PluginUri::Unix(_)) {
        return Err(refuse(format!("{}: a made-up cloud is on a unix socket, not at {place}", making.name)));
    }
    tracing::warn!(
        provider = making.name,
        %place,
        "THIS CLOUD IS MADE UP: for tests and demonstrations alone; no machine, load balancer or route of it is real"
    );
    Ok(Arc::new(Plugin::new(place, None)))
}
