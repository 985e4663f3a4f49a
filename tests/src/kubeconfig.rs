//! Kubeconfigs and the clients made from them.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::pki::Pair;

/// Who a kubeconfig is for.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A client certificate with this user name and at most two groups.
    User {
        /// The user's name.
        name: String,
        /// The user's groups.
        groups: Vec<String>,
    },
    /// A bearer token, as [`crate::ControlPlane::token`] makes them.
    Token(String),
    /// Nobody: `system:anonymous`.
    Anonymous,
}

impl Credentials {
    /// A user with a client certificate.
    pub fn user(name: &str, groups: &[&str]) -> Self {
        Self::User { name: name.to_owned(), groups: groups.iter().map(|&group| group.to_owned()).collect() }
    }

    /// A user who may do everything.
    pub fn admin() -> Self {
        Self::user("admin", &["system:masters"])
    }
}

/// The credentials as they stand in a kubeconfig.
pub(crate) enum Proof {
    Certificate(Pair),
    Token(String),
    None,
}

/// Text of a kubeconfig for `server` (a URL).
pub(crate) fn text(server: &str, ca: &str, proof: &Proof) -> String {
    let user = match proof {
        Proof::Certificate(pair) => format!(
            "    client-certificate-data: {}\n    client-key-data: {}\n",
            STANDARD.encode(&pair.certificate),
            STANDARD.encode(&pair.key)
        ),
        Proof::Token(token) => format!("    token: {token}\n"),
        Proof::None => String::new(),
    };
    let user = if user.is_empty() { " {}\n".to_owned() } else { format!("\n{user}") };
    let ca = STANDARD.encode(ca);
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: local\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\n\
         users:\n\
         - name: local\n  user:{user}\
         contexts:\n\
         - name: local\n  context:\n    cluster: local\n    user: local\n\
         current-context: local\n"
    )
}

/// A client that says what it sees: no retries, errors at once.
pub(crate) async fn client(text: &str) -> Result<kube::Client> {
    let kubeconfig = Kubeconfig::from_yaml(text).context("reading our own kubeconfig")?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    config.default_retry = false;
    // Nothing in the environment of a test stands between it and its server.
    config.proxy_url = None;
    kube::Client::try_from(config).context("making a client")
}
