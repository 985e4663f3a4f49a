//! Which entries of `--cloud-provider` are plug-ins.

use std::path::Path;
use std::sync::Arc;

use quarterdeck_runtime::controller::SetupError;

use super::channel::TlsFiles;
use super::client::Plugin;
use super::uri::PluginUri;
use crate::facility::{CloudConfig, MakeProvider, ProviderKind};
use crate::plugins::Folder;
use crate::provider::SharedProvider;

const ONE: &str = "grpc:";
const FOLDER: &str = "grpc-dir:";

/// Plug-ins, whatever they are called.
pub(crate) const KIND: ProviderKind =
    ProviderKind { name: "grpc", make, load_balancer_grants: Vec::new, route_grants: Vec::new };

fn refuse(flag: &'static str, reason: String) -> SetupError {
    SetupError { flag, reason }
}

/// What an entry of `--cloud-provider` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// One plug-in.
    Plugin {
        /// Its name.
        name: String,
        /// Where it is, as [`KIND`] takes it.
        uri: String,
    },
    /// All plug-ins of a folder, those that come later as well.
    Folder(Folder),
}

impl Entry {
    /// The plug-in at a socket.
    pub(crate) fn at(name: &str, socket: &Path) -> Self {
        Self::Plugin { name: name.to_owned(), uri: format!("{ONE}unix://{}", socket.display()) }
    }
}

/// The plug-ins that an entry of `--cloud-provider` asks for; `None` if it asks for none.
///
/// # Errors
/// When it names no place, or a folder that cannot be read.
pub(crate) fn expand(entry: &str) -> Result<Option<Entry>, SetupError> {
    // A `=` of the URI's own does not end a name.
    let (name, uri) = match entry.split_once('=') {
        Some((name, uri)) if !name.contains(':') => (Some(name), uri),
        _ => (None, entry),
    };
    let name = name.filter(|name| !name.is_empty());
    if let Some(path) = uri.strip_prefix(FOLDER) {
        let refuse = |reason: String| refuse("cloud-provider", format!("{FOLDER}{path}: {reason}"));
        if !Path::new(path).is_absolute() {
            return Err(refuse("the folder has to be given by an absolute path".to_owned()));
        }
        let folder = Folder { prefix: name.map(str::to_owned), path: path.into() };
        folder.read().map_err(|error| refuse(error.to_string()))?;
        return Ok(Some(Entry::Folder(folder)));
    }
    let Some(place) = uri.strip_prefix(ONE) else { return Ok(None) };
    let place: PluginUri = place.parse().map_err(|error| refuse("cloud-provider", format!("{entry}: {error}")))?;
    let name = name.map_or_else(|| name_of(&place), str::to_owned);
    Ok(Some(Entry::Plugin { name, uri: uri.to_owned() }))
}

/// A plug-in's name, if nobody gave it one.
fn name_of(place: &PluginUri) -> String {
    let name = match place {
        PluginUri::Unix(path) => path.file_stem().and_then(|stem| stem.to_str()),
        PluginUri::Https(uri) => uri.host(),
    };
    name.unwrap_or("grpc").to_owned()
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
