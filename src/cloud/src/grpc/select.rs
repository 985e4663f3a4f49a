//! Which entries of `--cloud-provider` are plug-ins.

use std::path::Path;
use std::sync::Arc;

use quarterdeck_runtime::controller::SetupError;

use super::channel::TlsFiles;
use super::client::Plugin;
use super::uri::PluginUri;
use crate::facility::{CloudConfig, MakeProvider, ProviderKind};
use crate::provider::SharedProvider;

const ONE: &str = "grpc:";
const FOLDER: &str = "grpc-dir:";
/// How the sockets in a folder of plug-ins end.
const ENDING: &str = "sock";

/// Plug-ins, whatever they are called.
pub(crate) const KIND: ProviderKind =
    ProviderKind { name: "grpc", make, load_balancer_grants: Vec::new, route_grants: Vec::new };

fn refuse(flag: &'static str, reason: String) -> SetupError {
    SetupError { flag, reason }
}

/// The plug-ins that an entry of `--cloud-provider` asks for, as names and URIs; `None` if it asks for none.
///
/// # Errors
/// When a folder of plug-ins cannot be read, or has none.
pub(crate) fn expand(entry: &str) -> Result<Option<Vec<(String, String)>>, SetupError> {
    // A `=` of the URI's own does not end a name.
    let (name, uri) = match entry.split_once('=') {
        Some((name, uri)) if !name.contains(':') => (Some(name), uri),
        _ => (None, entry),
    };
    if let Some(folder) = uri.strip_prefix(FOLDER) {
        return in_folder(name, Path::new(folder)).map(Some);
    }
    let Some(place) = uri.strip_prefix(ONE) else { return Ok(None) };
    let place: PluginUri = place.parse().map_err(|error| refuse("cloud-provider", format!("{entry}: {error}")))?;
    let name = name.filter(|name| !name.is_empty()).map_or_else(|| name_of(&place), str::to_owned);
    Ok(Some(vec![(name, uri.to_owned())]))
}

/// A plug-in's name, if nobody gave it one.
fn name_of(place: &PluginUri) -> String {
    let name = match place {
        PluginUri::Unix(path) => path.file_stem().and_then(|stem| stem.to_str()),
        PluginUri::Https(uri) => uri.host(),
    };
    name.unwrap_or("grpc").to_owned()
}

/// One plug-in a socket, named after it. The folder is read once, at the start: a plug-in that is down must not be
/// taken for one that was never asked for.
fn in_folder(prefix: Option<&str>, folder: &Path) -> Result<Vec<(String, String)>, SetupError> {
    let refuse = |reason: String| refuse("cloud-provider", format!("{FOLDER}{}: {reason}", folder.display()));
    if !folder.is_absolute() {
        return Err(refuse("the folder has to be given by an absolute path".to_owned()));
    }
    let mut found = Vec::new();
    for item in std::fs::read_dir(folder).map_err(|error| refuse(error.to_string()))? {
        let path = item.map_err(|error| refuse(error.to_string()))?.path();
        if path.extension().is_none_or(|ending| ending != ENDING) {
            continue;
        }
        let name = path.file_stem().and_then(|stem| stem.to_str());
        let (Some(name), Some(text)) = (name, path.to_str()) else {
            return Err(refuse(format!("{} is no name", path.display())));
        };
        let name = prefix.map_or_else(|| name.to_owned(), |prefix| format!("{prefix}-{name}"));
        found.push((name, format!("{ONE}unix://{text}")));
    }
    if found.is_empty() {
        return Err(refuse(format!("no plug-in is there: a plug-in NAME listens at NAME.{ENDING}")));
    }
    found.sort();
    Ok(found)
}

fn make(making: &MakeProvider<'_>) -> Result<SharedProvider, SetupError> {
    let place = making.uri.and_then(|uri| uri.strip_prefix(ONE)).unwrap_or_default();
    let place: PluginUri =
        place.parse().map_err(|error| refuse("cloud-provider", format!("{}: {error}", making.name)))?;
    let tls = match place {
        PluginUri::Unix(_) => None,
        PluginUri::Https(_) => Some(tls_of(making.config)?),
    };
    Ok(Arc::new(Plugin::new(place, tls)))
}

/// The files of mutual TLS, which a plug-in off this machine needs.
fn tls_of(config: &CloudConfig) -> Result<TlsFiles, SetupError> {
    let given = |flag, path: &str| {
        if path.is_empty() {
            return Err(refuse(flag, "a plug-in at https://… needs it".to_owned()));
        }
        Ok(path.into())
    };
    Ok(TlsFiles {
        ca: given("cloud-grpc-ca", &config.cloud_grpc_ca)?,
        cert: given("cloud-grpc-cert", &config.cloud_grpc_cert)?,
        key: given("cloud-grpc-key", &config.cloud_grpc_key)?,
    })
}
