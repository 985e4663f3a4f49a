//! Where a plug-in is.

use std::path::PathBuf;

use tonic::transport::Uri;

/// Where a plug-in is: `unix:///run/x.sock` or `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginUri {
    /// A unix socket; its folder's rights say who may connect.
    Unix(PathBuf),
    /// A TCP port, with mutual TLS.
    Https(Uri),
}

/// A URI that names no place where a plug-in can be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{uri:?} is no place of a plug-in: {reason}")]
pub struct PluginUriError {
    uri: String,
    reason: &'static str,
}

impl std::str::FromStr for PluginUri {
    type Err = PluginUriError;

    fn from_str(text: &str) -> Result<Self, PluginUriError> {
        let refuse = |reason| PluginUriError { uri: text.to_owned(), reason };
        if let Some(path) = text.strip_prefix("unix://") {
            return match path {
                "" | "/" => Err(refuse("it has no path")),
                path if path.starts_with('/') => Ok(Self::Unix(path.into())),
                _ => Err(refuse("the path of a socket has to be absolute: unix:///run/x.sock")),
            };
        }
        if text.starts_with("http://") {
            return Err(refuse("without TLS a plug-in can only be on a unix socket"));
        }
        if !text.starts_with("https://") {
            return Err(refuse("it has to begin with unix:/// or https://"));
        }
        let uri: Uri = text.parse().map_err(|_| refuse("it is no URI"))?;
        if uri.port_u16().is_none() {
            return Err(refuse("it has no port"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(refuse("nothing may follow the port"));
        }
        Ok(Self::Https(uri))
    }
}

impl std::fmt::Display for PluginUri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Https(uri) => write!(f, "{uri}"),
        }
    }
}
