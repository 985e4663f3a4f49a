//! What a user shows to a manager: the certificate or the token that the kubeconfig has for kube-apiserver.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use http_body_util::Empty;
use kube::Config;
use kube::client::ConfigExt as _;
use kube::client::middleware::AuthLayer;
use rustls::ClientConfig;
use tower::{BoxError, Layer as _, ServiceExt as _};

use super::error::ReachError;
use super::verify::Trust;

/// The user's own.
pub(crate) struct Credentials {
    /// With the client certificate, if there is one; whom it believes is set for each connection.
    tls: ClientConfig,
    /// Makes the header with the token, if there is one.
    token: Option<AuthLayer>,
}

impl Credentials {
    /// Those of a kubeconfig. May run the program that the kubeconfig names for them.
    ///
    /// # Errors
    /// When they cannot be read, or the program fails.
    pub(crate) async fn of(config: &Config) -> Result<Self, ReachError> {
        let mut config = config.clone();
        // Whom kube-apiserver is known by says nothing of managers: no connection is made with this as it is.
        config.root_cert = Some(Vec::new());
        config.root_cert_file = None;
        config.accept_invalid_certs = false;
        let made = tokio::task::spawn_blocking(move || {
            let tls = config.rustls_client_config()?;
            Ok::<_, kube::Error>((tls, config.auth_layer()?))
        });
        let made = made.await.map_err(|error| ReachError::Credentials(error.to_string()))?;
        let (mut tls, token) = made.map_err(|error| ReachError::Credentials(error.to_string()))?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls, token })
    }

    /// Those of nobody.
    pub(crate) fn none() -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("the provider has suites of every version");
        let mut tls = builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { tls, token: None }
    }

    /// How to talk to a server that has to be who `trust` says. The certificate is shown after the server's was verified.
    ///
    /// # Errors
    /// When the authority cannot be used.
    pub(super) fn tls(&self, trust: &Trust) -> Result<ClientConfig, ReachError> {
        let mut tls = self.tls.clone();
        tls.enable_sni = !trust.is_pinned();
        // A resumed session is not verified anew.
        tls.resumption = rustls::client::Resumption::disabled();
        tls.dangerous().set_certificate_verifier(trust.verifier()?);
        Ok(tls)
    }

    /// The headers that say who asks. Only for requests on a connection whose server was verified.
    ///
    /// # Errors
    /// When the token cannot be had.
    pub(super) async fn headers(&self) -> Result<HeaderMap, ReachError> {
        let Some(layer) = &self.token else { return Ok(HeaderMap::new()) };
        let echo = tower::service_fn(|request: Request<Empty<Bytes>>| async move {
            Ok::<_, BoxError>(Response::new(request.headers().clone()))
        });
        let said: BoxFuture<'static, Result<_, BoxError>> =
            Box::pin(layer.layer(echo).oneshot(Request::new(Empty::new())));
        let said = said.await;
        let mut headers = said.map_err(|error| ReachError::Credentials(error.to_string()))?.into_body();
        let token = headers.remove(AUTHORIZATION).into_iter().map(|token| (AUTHORIZATION, token));
        Ok(token.collect())
    }
}

#[cfg(test)]
mod tests {
    use kube::config::AuthInfo;

    use super::*;

    fn config(auth: serde_json::Value) -> Config {
        let mut config = Config::new(http::Uri::from_static("https://127.0.0.1:1"));
        config.auth_info = serde_json::from_value::<AuthInfo>(auth).expect("credentials");
        config
    }

    #[tokio::test]
    async fn tokens_become_a_header() {
        let credentials = Credentials::of(&config(serde_json::json!({"token": "secret"}))).await.expect("credentials");
        let headers = credentials.headers().await.expect("headers");
        assert_eq!(headers.get(AUTHORIZATION).map(http::HeaderValue::as_bytes), Some(&b"Bearer secret"[..]));
        assert_eq!(headers.len(), 1);
        assert!(Credentials::none().headers().await.expect("headers").is_empty());
    }

    #[tokio::test]
    async fn programs_are_run_for_tokens() {
        let says =
            r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"made"}}"#;
        let exec = serde_json::json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "echo", "args": [says], "interactiveMode": "Never",
        }});
        let credentials = Credentials::of(&config(exec)).await.expect("credentials");
        let headers = credentials.headers().await.expect("headers");
        assert_eq!(headers.get(AUTHORIZATION).map(http::HeaderValue::as_bytes), Some(&b"Bearer made"[..]));
        let missing = serde_json::json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "/none/such", "interactiveMode": "Never",
        }});
        let error = Credentials::of(&config(missing)).await.err().expect("no such program").to_string();
        assert!(error.starts_with("your credentials: "), "{error}");
    }
}
