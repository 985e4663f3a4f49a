//! Flags of the HTTPS server: its socket and certificate, who may ask, and what.

use std::net::IpAddr;
use std::time::Duration;

use quarterdeck_api::duration::parse as go_duration;

use super::elements;
use crate::serving::tls;

/// The HTTPS server's socket and certificate.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "secure serving")]
pub struct ServingFlags {
    /// Address to listen on; 0.0.0.0 and :: mean every address of both families.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Port to serve HTTPS on; 0 serves nothing.
    #[arg(long, default_value_t = 10267)]
    pub secure_port: u16,
    /// Directory for the server's own certificate and key, made when they are missing. Without it, and without certificate
    /// files, they are made at each start and kept in memory.
    #[arg(long, default_value = "")]
    pub cert_dir: String,
    /// File with the server's certificate, followed by those of its issuers. Read again when it changes.
    #[arg(long, default_value = "")]
    pub tls_cert_file: String,
    /// File with the key of --tls-cert-file. Read again when it changes.
    #[arg(long, default_value = "")]
    pub tls_private_key_file: String,
    /// Certificate and key for some server names: 'cert,key' or 'cert,key:name,*.name'; without names, those in the certificate.
    /// May be given more than once.
    #[arg(long, value_name = "namedCertKey", action = clap::ArgAction::Append)]
    pub tls_sni_cert_key: Vec<String>,
    /// Cipher suites of TLS 1.2, by their IANA names; without it, all that are offered here.
    #[arg(long, value_delimiter = ',')]
    pub tls_cipher_suites: Vec<String>,
    /// Key exchanges, by the numbers of their named groups: 23, 24 or 29.
    #[arg(long, value_name = "int32Slice", value_delimiter = ',')]
    pub tls_curve_preferences: Vec<String>,
    /// Oldest version of TLS: VersionTLS12 or VersionTLS13. (VersionTLS10 and VersionTLS11 are taken as VersionTLS12.)
    #[arg(long, default_value = "")]
    pub tls_min_version: String,
    /// Requests that one HTTP/2 connection may carry at a time; 0 means 250.
    #[arg(long, value_name = "int", default_value_t = 0)]
    pub http2_max_streams_per_connection: u32,
    /// Serve HTTP/1.1 only.
    #[arg(long)]
    pub disable_http2_serving: bool,
    /// Listen with SO_REUSEADDR.
    #[arg(long)]
    pub permit_address_sharing: bool,
    /// Listen with SO_REUSEPORT.
    #[arg(long)]
    pub permit_port_sharing: bool,
}

/// Who is asking.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "authentication")]
pub struct AuthenticationFlags {
    /// Kubeconfig of the API server that reviews bearer tokens and holds the authentication settings. Without it, the main
    /// kubeconfig is used.
    #[arg(long, default_value = "")]
    pub authentication_kubeconfig: String,
    /// Do not read missing authentication settings from the cluster.
    #[arg(long)]
    pub authentication_skip_lookup: bool,
    /// Be ready even if the authentication settings cannot be read from the cluster. Without it, /readyz fails until they have
    /// been read once; they are asked for all the time, and no client certificate that they would vouch for is believed before.
    #[arg(long)]
    pub authentication_tolerate_lookup_failure: bool,
    /// How long the answer to a token review is used again.
    #[arg(long, value_parser = go_duration, default_value = "10s")]
    pub authentication_token_webhook_cache_ttl: Duration,
    /// File with the authorities whose client certificates name users: the common name is the user, the organisations are the
    /// groups. Without it, those of the cluster. Read again when it changes.
    #[arg(long, default_value = "")]
    pub client_ca_file: String,
    /// File with the authorities whose client certificates may name users in headers. Read again when it changes.
    #[arg(long, default_value = "")]
    pub requestheader_client_ca_file: String,
    /// Common names of the client certificates that may do so; without it, any that the authorities signed.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers that name the user.
    #[arg(long, value_delimiter = ',', default_value = "x-remote-user")]
    pub requestheader_username_headers: Vec<String>,
    /// Headers that hold the user's unique id.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers that name the user's groups.
    #[arg(long, value_delimiter = ',', default_value = "x-remote-group")]
    pub requestheader_group_headers: Vec<String>,
    /// Prefixes of headers that say more about the user.
    #[arg(long, value_delimiter = ',', default_value = "x-remote-extra-")]
    pub requestheader_extra_headers_prefix: Vec<String>,
}

/// What they may ask.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "authorization")]
pub struct AuthorizationFlags {
    /// Kubeconfig of the API server that reviews access. Without it, the main kubeconfig is used.
    #[arg(long, default_value = "")]
    pub authorization_kubeconfig: String,
    /// Paths that anyone may read; a * at the end stands for any rest.
    #[arg(long, value_delimiter = ',', default_values = ["/healthz", "/readyz", "/livez"])]
    pub authorization_always_allow_paths: Vec<String>,
    /// How long a granted access is used again.
    #[arg(long, value_parser = go_duration, default_value = "10s")]
    pub authorization_webhook_cache_authorized_ttl: Duration,
    /// How long a refused access is used again.
    #[arg(long, value_parser = go_duration, default_value = "10s")]
    pub authorization_webhook_cache_unauthorized_ttl: Duration,
}

impl ServingFlags {
    pub(super) fn validate(&self) -> Vec<String> {
        let mut errors = Vec::new();
        if self.tls_cert_file.is_empty() != self.tls_private_key_file.is_empty() {
            errors.push("--tls-cert-file and --tls-private-key-file: give both or neither".to_owned());
        }
        if let Err(error) = tls::Profile::from_flags(self) {
            errors.push(error.to_string());
        }
        for pair in &self.tls_sni_cert_key {
            if let Err(error) = tls::NamedPair::parse(pair) {
                errors.push(error.to_string());
            }
        }
        errors
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        tls::Profile::from_flags(self).map(|profile| profile.warnings).unwrap_or_default()
    }
}

impl AuthorizationFlags {
    pub(super) fn validate(&self) -> Vec<String> {
        elements(&self.authorization_always_allow_paths)
            .into_iter()
            .filter(|path| path.trim_end_matches('*').contains('*') || path.ends_with("**"))
            .map(|path| format!("--authorization-always-allow-paths: {path:?} may hold a * only at its end"))
            .collect()
    }
}
