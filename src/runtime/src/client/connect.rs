//! Where the API server is, and how this process proves who it is: loaded from a kubeconfig or the
//! pod's environment, and loaded again when the files behind it change.
//!
//! Bearer tokens from files and exec plugins are refreshed by kube's own layer. Client
//! certificates, the CA and the kubeconfig itself are not; those are ours. A change makes a new
//! generation: new requests go on new connections, and streams on the old ones run out.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::Empty;
use kube::client::ConfigExt;
use kube::config::{Kubeconfig, KubeconfigError};
use rustls::pki_types::ServerName;
use tokio::sync::Notify;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt};

/// A boxed error from below.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How often the files behind the connection are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// After a 401, credentials are loaded again; not more often than this.
const LEAST_BETWEEN_LOADS: Duration = Duration::from_secs(10);

/// Where the API server's address and our credentials come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A kubeconfig file.
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The context in it; the file's current one if `None`.
        context: Option<String>,
    },
    /// The pod's service account.
    InCluster,
    /// A ready configuration, which is never loaded again.
    Config(Box<kube::Config>),
}

impl Source {
    /// A kubeconfig file and its current context.
    pub fn kubeconfig(path: impl Into<PathBuf>) -> Self {
        Self::Kubeconfig { path: path.into(), context: None }
    }
}

impl From<kube::Config> for Source {
    fn from(config: kube::Config) -> Self {
        Self::Config(Box::new(config))
    }
}

/// Why no client could be made. Nothing has been sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be read.
    #[error("kubeconfig {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The kubeconfig is not one. What the parser shows of the file is left out: it may be a key.
    #[error("kubeconfig {}: not a kubeconfig in YAML{place}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where the mistake is, with what stands before it in the message; empty if that is not known.
        place: String,
    },
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {}: {source}", .path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// The kubeconfig asks for something that is not supported.
    #[error("kubeconfig {}: {what}", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it asks for.
        what: String,
    },
    /// The pod's service account cannot be used.
    #[error("no kubeconfig is given, and the pod's service account cannot be used: {0}")]
    InCluster(#[from] kube::config::InClusterError),
    /// Certificates or credentials cannot be used.
    #[error("credentials for {server}: {source}")]
    Credentials {
        /// The API server.
        server: String,
        /// What is wrong.
        source: Box<kube::Error>,
    },
    /// The server's address cannot be used.
    #[error("server address {server:?}: {reason}")]
    Address {
        /// The address as given.
        server: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A metric of that name exists already.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The User-Agent cannot be a header's value.
    #[error("user agent {0:?} is not a header value")]
    UserAgent(String),
    /// Loading did not end.
    #[error("loading of the configuration was interrupted")]
    Interrupted,
}

/// A file's state, as far as is needed to see that it changed.
type Stamp = Option<(SystemTime, u64)>;

/// What a source yields, with the files that it was made of.
struct Loaded {
    config: kube::Config,
    files: Vec<(PathBuf, Stamp)>,
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// Reads files; may run an exec plugin later on. Blocks.
fn load(source: &Source) -> Result<Loaded, ConnectError> {
    match source {
        Source::Config(config) => Ok(Loaded { config: (**config).clone(), files: Vec::new() }),
        // kube reads this CA and this token again by itself.
        Source::InCluster => Ok(Loaded { config: kube::Config::incluster()?, files: Vec::new() }),
        Source::Kubeconfig { path, context } => load_kubeconfig(path, context.as_deref()),
    }
}

fn load_kubeconfig(path: &Path, context: Option<&str>) -> Result<Loaded, ConnectError> {
    let broken = |source| ConnectError::Kubeconfig { path: path.to_owned(), source };
    let unsupported = |what: String| ConnectError::Unsupported { path: path.to_owned(), what };
    // Stamped before they are read: a change while reading is seen at the next look.
    let mut files = vec![(path.to_owned(), stamp(path))];
    let mut kubeconfig = read_kubeconfig(path)?;
    if let Some(context) = context {
        kubeconfig.current_context = Some(context.to_owned());
    }
    let users = kubeconfig.auth_infos.iter().filter_map(|named| named.auth_info.as_ref());
    let clusters = kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref());
    let named = users
        .flat_map(|user| [user.client_certificate.as_ref(), user.client_key.as_ref()])
        .chain(clusters.map(|cluster| cluster.certificate_authority.as_ref()))
        .flatten();
    files.extend(named.map(|file| (PathBuf::from(file), stamp(Path::new(file)))));
    if let Some(proxy) = chosen_proxy(&kubeconfig) {
        return Err(unsupported(format!("proxy-url {proxy:?} is not supported: the API server is reached directly")));
    }
    let mut config = kube::Config::try_from(kubeconfig).map_err(broken)?;
    if config.auth_info.impersonate.is_some() {
        return Err(unsupported(
            "the user impersonates (`as`), which leaves no way to act as a controller's account".into(),
        ));
    }
    // From the environment's HTTPS_PROXY: a control plane talks to its own API server directly.
    config.proxy_url = None;
    Ok(Loaded { config, files })
}

fn read_kubeconfig(path: &Path) -> Result<Kubeconfig, ConnectError> {
    let path_buf = || path.to_owned();
    let bytes = std::fs::read(path).map_err(|source| ConnectError::Unreadable { path: path_buf(), source })?;
    if std::str::from_utf8(&bytes).is_err() {
        // kube would take some such files for UTF-16, and may panic.
        return Err(ConnectError::Malformed { path: path_buf(), place: ": it is not UTF-8 text".to_owned() });
    }
    Kubeconfig::read_from(path).map_err(|error| match error {
        KubeconfigError::Parse(error) => {
            let place = error.location().map(|at| format!(": line {}, column {}", at.line(), at.column()));
            ConnectError::Malformed { path: path_buf(), place: place.unwrap_or_default() }
        }
        source => ConnectError::Kubeconfig { path: path_buf(), source },
    })
}

fn chosen_proxy(kubeconfig: &Kubeconfig) -> Option<String> {
    let current = kubeconfig.current_context.as_ref()?;
    let context = kubeconfig.contexts.iter().find(|named| &named.name == current)?.context.as_ref()?;
    let cluster = kubeconfig.clusters.iter().find(|named| named.name == context.cluster)?.cluster.as_ref()?;
    cluster.proxy_url.clone().filter(|url| !url.is_empty())
}

type AuthService = BoxCloneSyncService<Request<Empty<Bytes>>, Response<()>, BoxError>;

/// One generation of address and credentials.
pub(crate) struct Wire {
    /// Grows with each load.
    pub(crate) generation: u64,
    /// Scheme, authority and path prefix of the server.
    base: Uri,
    /// Host name or address, without brackets.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// TLS without ALPN; `None` for plain HTTP.
    pub(crate) tls: Option<rustls::ClientConfig>,
    /// The name that the server's certificate must carry.
    pub(crate) server_name: ServerName<'static>,
    auth: AuthService,
}

impl Wire {
    /// May run an exec plugin. Blocks.
    fn build(config: &kube::Config, generation: u64) -> Result<Self, ConnectError> {
        let base = config.cluster_url.clone();
        let address = |reason: String| ConnectError::Address { server: base.to_string(), reason };
        let secure = match base.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            other => return Err(address(format!("scheme {:?} is neither https nor http", other.unwrap_or_default()))),
        };
        let host = base.host().ok_or_else(|| address("no host".into()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = config.tls_server_name.clone().unwrap_or_else(|| host.clone());
        let server_name = ServerName::try_from(name.clone()).map_err(|error| address(format!("{name:?}: {error}")))?;
        let credentials = |source| ConnectError::Credentials { server: base.to_string(), source: Box::new(source) };
        let tls = secure.then(|| config.rustls_client_config()).transpose().map_err(credentials)?;
        let headers = config.extra_headers_layer().map_err(credentials)?.layer(tower::service_fn(echo));
        let auth: AuthService = match config.auth_layer().map_err(credentials)? {
            Some(layer) => BoxCloneSyncService::new(layer.layer(headers).map_err(BoxError::from)),
            None => BoxCloneSyncService::new(headers),
        };
        let port = base.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Self { generation, host, port, tls, server_name, auth, base })
    }

    /// The headers that authenticate a request; refreshes tokens where they are due.
    pub(crate) async fn auth_headers(&self) -> Result<HeaderMap, BoxError> {
        let mut auth = self.auth.clone();
        let decorated = auth.ready().await?.call(Request::new(Empty::new())).await?;
        Ok(decorated.into_parts().0.headers)
    }

    /// The full address of a path on this server.
    pub(crate) fn uri(&self, path_and_query: &PathAndQuery) -> Result<Uri, http::Error> {
        let prefix = self.base.path().trim_end_matches('/');
        Uri::builder()
            .scheme(self.base.scheme_str().unwrap_or("https"))
            .authority(self.authority())
            .path_and_query(format!("{prefix}{path_and_query}"))
            .build()
    }

    /// `host:port` as given, for the Host header and the metrics.
    pub(crate) fn authority(&self) -> &str {
        self.base.authority().map_or("", http::uri::Authority::as_str)
    }
}

/// Answers a request with its own headers, so that kube's layers can be asked what they add.
async fn echo(request: Request<Empty<Bytes>>) -> Result<Response<()>, BoxError> {
    let mut response = Response::new(());
    *response.headers_mut() = request.into_parts().0.headers;
    Ok(response)
}

/// The present generation, kept fresh by a task that ends with it.
pub(crate) struct Wires {
    current: ArcSwap<Wire>,
    source: Source,
    doubt: Arc<Notify>,
}

impl Wires {
    /// Loads the source for the first time.
    pub(crate) async fn load(source: Source) -> Result<Arc<Self>, ConnectError> {
        let (wire, files) = load_wire(source.clone(), 0).await?;
        let doubt = Arc::new(Notify::new());
        let wires = Arc::new(Self { current: ArcSwap::from_pointee(wire), source, doubt: Arc::clone(&doubt) });
        if !matches!(wires.source, Source::Config(_)) {
            tokio::spawn(keep_fresh(Arc::downgrade(&wires), doubt, files));
        }
        Ok(wires)
    }

    /// What new connections are made with.
    pub(crate) fn current(&self) -> Arc<Wire> {
        self.current.load_full()
    }

    /// The server did not know us: credentials may have been replaced.
    pub(crate) fn unauthorized(&self) {
        self.doubt.notify_one();
    }
}

async fn load_wire(source: Source, generation: u64) -> Result<(Wire, Vec<(PathBuf, Stamp)>), ConnectError> {
    let work = move || {
        let loaded = load(&source)?;
        Ok((Wire::build(&loaded.config, generation)?, loaded.files))
    };
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ConnectError::Interrupted))
}

async fn keep_fresh(wires: Weak<Wires>, doubt: Arc<Notify>, mut files: Vec<(PathBuf, Stamp)>) {
    loop {
        let doubted = tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => false,
            () = doubt.notified() => true,
        };
        let Some(wires) = wires.upgrade() else { return };
        if !doubted && files.iter().all(|(path, seen)| stamp(path) == *seen) {
            continue;
        }
        match load_wire(wires.source.clone(), wires.current().generation + 1).await {
            Ok((wire, now)) => {
                tracing::info!(server = wire.authority(), generation = wire.generation, "credentials loaded again");
                wires.current.store(Arc::new(wire));
                files = now;
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "new credentials cannot be used; keeping the old ones"
                );
            }
        }
        drop(wires);
        tokio::time::sleep(LEAST_BETWEEN_LOADS).await;
    }
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;

    fn kubeconfig(server: &str, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {server}}}]\nusers: [{{name: u, user: {user}}}]\n"
        )
    }

    async fn load_text(text: &str) -> Result<Arc<Wires>, ConnectError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Wires::load(Source::kubeconfig(file.path())).await
    }

    async fn token(wires: &Wires) -> String {
        wires.current().auth_headers().await.unwrap()[AUTHORIZATION].to_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_kubeconfig_that_changes_is_loaded_again_and_a_broken_one_is_not_used() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let server = "{server: 'http://127.0.0.1:1/prefix'}";
        std::fs::write(file.path(), kubeconfig(server, "{token: first}")).unwrap();
        let wires = Wires::load(Source::kubeconfig(file.path())).await.unwrap();
        assert_eq!(token(&wires).await, "Bearer first");
        assert_eq!(
            wires.current().uri(&PathAndQuery::from_static("/api?x=y")).unwrap(),
            "http://127.0.0.1:1/prefix/api?x=y"
        );
        std::fs::write(file.path(), "no kubeconfig").unwrap();
        tokio::time::sleep(LOOK_EVERY * 3).await;
        assert_eq!(token(&wires).await, "Bearer first");
        std::fs::write(file.path(), kubeconfig(server, "{token: second}")).unwrap();
        while wires.current().generation == 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        assert_eq!(token(&wires).await, "Bearer second");
    }

    #[tokio::test(start_paused = true)]
    async fn a_401_makes_credentials_be_loaded_at_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), kubeconfig("{server: 'http://127.0.0.1:1'}", "{token: first}")).unwrap();
        let wires = Wires::load(Source::kubeconfig(file.path())).await.unwrap();
        let start = tokio::time::Instant::now();
        wires.unauthorized();
        while wires.current().generation == 0 {
            tokio::task::yield_now().await;
        }
        assert!(start.elapsed() < LOOK_EVERY);
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_named() {
        let http = "{server: 'http://127.0.0.1:1'}";
        let cases = [
            ("no: kubeconfig".to_owned(), "current context"),
            (kubeconfig("{server: 'ftp://a'}", "{}"), "neither https nor http"),
            (kubeconfig("{server: 'https://a', certificate-authority: /nowhere/ca.crt}", "{}"), "/nowhere/ca.crt"),
            (
                kubeconfig("{server: 'https://a'}", "{client-certificate: /nowhere/c, client-key: /nowhere/k}"),
                "/nowhere",
            ),
            (kubeconfig(http, "{tokenFile: /nowhere/token}"), "/nowhere/token"),
            (kubeconfig(http, "{as: somebody}"), "impersonates"),
            (kubeconfig("{server: 'https://a', proxy-url: 'http://p'}", "{}"), "proxy-url"),
        ];
        for (text, expected) in cases {
            let error = load_text(&text).await.map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error:?} {error}");
        }
        let secret =
            load_text("users:\n- user:\n    token: [\n    client-key-data: c2VjcmV0\n").await.map(|_| ()).unwrap_err();
        assert!(secret.to_string().contains(": line ") && !format!("{secret:?}").contains("c2V"), "{secret:?}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\xff\xfe\0").unwrap();
        let binary = Wires::load(Source::kubeconfig(file.path())).await.map(|_| ()).unwrap_err();
        assert!(binary.to_string().contains("not UTF-8"), "{binary}");
        let missing = Wires::load(Source::kubeconfig("/nowhere/config")).await.map(|_| ()).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/config"), "{missing}");
    }
}
