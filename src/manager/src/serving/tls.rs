//! TLS settings from flags: versions, cipher suites, key exchanges, and certificates by server name.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion, version};

use crate::flags::{ServingFlags, elements};

/// TLS 1.2 suites that Go knows and rustls, for good reasons, does not offer.
const NOT_OFFERED: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

/// Suites of TLS 1.3, which are always all on, as in Go.
const TLS13: &[&str] = &["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// A TLS flag that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{flag}: {reason}")]
pub struct TlsFlagError {
    /// The flag, without dashes.
    pub flag: &'static str,
    /// What is wrong.
    pub reason: String,
}

/// What the server offers to its clients.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Suites and key exchanges.
    pub provider: Arc<CryptoProvider>,
    /// Versions.
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// What was asked for but is not offered.
    pub warnings: Vec<String>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            provider: Arc::new(ring::default_provider()),
            versions: vec![&version::TLS13, &version::TLS12],
            warnings: Vec::new(),
        }
    }
}

impl Profile {
    /// Reads the flags about TLS.
    ///
    /// # Errors
    /// When a name or number does not exist, or nothing is left to offer.
    pub fn from_flags(flags: &ServingFlags) -> Result<Self, TlsFlagError> {
        let mut warnings = Vec::new();
        let mut versions = versions(&flags.tls_min_version, &mut warnings)?;
        let mut provider = ring::default_provider();
        let asked = elements(&flags.tls_cipher_suites);
        if !asked.is_empty() {
            let suites = suites(&provider.cipher_suites, &asked, &mut warnings)?;
            if !suites.iter().any(|suite| suite.tls13().is_none()) {
                versions.retain(|offered| offered.version == rustls::ProtocolVersion::TLSv1_3);
            }
            provider.cipher_suites = suites;
        }
        let asked = elements(&flags.tls_curve_preferences);
        if !asked.is_empty() {
            provider.kx_groups = kx_groups(&provider.kx_groups, &asked, &mut warnings)?;
        }
        Ok(Self { provider: Arc::new(provider), versions, warnings })
    }
}

fn versions(oldest: &str, warnings: &mut Vec<String>) -> Result<Vec<&'static SupportedProtocolVersion>, TlsFlagError> {
    match oldest {
        "" | "VersionTLS12" => {}
        "VersionTLS10" | "VersionTLS11" => {
            warnings.push(format!("--tls-min-version: {oldest} is not offered; VersionTLS12 is the oldest"));
        }
        "VersionTLS13" => return Ok(vec![&version::TLS13]),
        _ => {
            let reason = format!("{oldest:?} is unknown; write VersionTLS12 or VersionTLS13");
            return Err(TlsFlagError { flag: "tls-min-version", reason });
        }
    }
    Ok(vec![&version::TLS13, &version::TLS12])
}

/// Go's name of a suite of TLS 1.2.
fn matches_name(suite: CipherSuite, name: &str) -> bool {
    // Go also has the ChaCha20 suites under their names without the hash.
    let ours = suite.as_str().unwrap_or_default();
    ours == name || ours.strip_suffix("_SHA256").is_some_and(|short| short == name && name.contains("CHACHA20"))
}

fn suites(
    offered: &[SupportedCipherSuite],
    asked: &[&str],
    warnings: &mut Vec<String>,
) -> Result<Vec<SupportedCipherSuite>, TlsFlagError> {
    let mut chosen: Vec<SupportedCipherSuite> =
        offered.iter().copied().filter(|suite| suite.tls13().is_some()).collect();
    for name in asked {
        if TLS13.contains(name) {
            continue;
        }
        if let Some(suite) = offered.iter().find(|suite| matches_name(suite.suite(), name)) {
            if !chosen.contains(suite) {
                chosen.push(*suite);
            }
        } else if NOT_OFFERED.contains(name) {
            warnings.push(format!("--tls-cipher-suites: {name} is not offered"));
        } else {
            let reason = format!("{name:?} is unknown");
            return Err(TlsFlagError { flag: "tls-cipher-suites", reason });
        }
    }
    Ok(chosen)
}

fn kx_groups(
    offered: &[&'static dyn SupportedKxGroup],
    asked: &[&str],
    warnings: &mut Vec<String>,
) -> Result<Vec<&'static dyn SupportedKxGroup>, TlsFlagError> {
    let flag = "tls-curve-preferences";
    let mut numbers = Vec::new();
    for number in asked {
        let id: u16 = number
            .trim()
            .parse()
            .map_err(|_| TlsFlagError { flag, reason: format!("{number:?} is not the number of a named group") })?;
        if offered.iter().any(|group| u16::from(group.name()) == id) {
            numbers.push(id);
        } else {
            warnings.push(format!("--{flag}: group {id} is not offered"));
        }
    }
    // The order of the flag means nothing, as upstream.
    let chosen: Vec<_> = offered.iter().copied().filter(|group| numbers.contains(&u16::from(group.name()))).collect();
    if chosen.is_empty() {
        return Err(TlsFlagError { flag, reason: "none of these groups is offered (there are 23, 24 and 29)".into() });
    }
    Ok(chosen)
}

/// A certificate for some server names: the value of `--tls-sni-cert-key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPair {
    /// File of the certificate and its issuers.
    pub cert: PathBuf,
    /// File of the key.
    pub key: PathBuf,
    /// Names it serves, `*.` in front of a name stands for one label; empty: those in the certificate.
    pub names: Vec<String>,
}

impl NamedPair {
    /// Parses `cert,key` or `cert,key:name,*.name`.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Self, TlsFlagError> {
        let wrong = |reason: String| TlsFlagError { flag: "tls-sni-cert-key", reason };
        let (files, names) = text.split_once(':').unwrap_or((text, ""));
        let (cert, key) = match files.split(',').map(str::trim).collect::<Vec<_>>()[..] {
            [cert, key] if !cert.is_empty() && !key.is_empty() => (cert, key),
            _ => return Err(wrong(format!("{text:?} must start with a certificate file, a comma and a key file"))),
        };
        let names: Vec<String> =
            names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_lowercase).collect();
        for name in &names {
            let plain = name.strip_prefix("*.").unwrap_or(name);
            if plain.contains('*') || (plain.parse::<IpAddr>().is_err() && plain.contains([' ', '/'])) {
                return Err(wrong(format!("{name:?} is no server name")));
            }
        }
        Ok(Self { cert: cert.into(), key: key.into(), names })
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn profile(args: &[&str]) -> Result<Profile, TlsFlagError> {
        let command = ServingFlags::augment_args(clap::Command::new("test").no_binary_name(true));
        let matches = command.try_get_matches_from(args).unwrap();
        Profile::from_flags(&ServingFlags::from_arg_matches(&matches).unwrap())
    }

    fn suites_of(profile: &Profile) -> Vec<&'static str> {
        profile.provider.cipher_suites.iter().filter_map(|suite| suite.suite().as_str()).collect()
    }

    #[test]
    fn offers_what_was_asked_for() {
        let all = profile(&[]).unwrap();
        assert_eq!((all.versions.len(), all.provider.cipher_suites.len()), (2, 9));
        assert_eq!(profile(&["--tls-min-version=VersionTLS13"]).unwrap().versions.len(), 1);
        let old = profile(&["--tls-min-version=VersionTLS10"]).unwrap();
        assert_eq!((old.versions.len(), old.warnings.len()), (2, 1));

        let one = profile(&["--tls-cipher-suites=TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"]).unwrap();
        assert!(suites_of(&one).contains(&"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"));
        assert_eq!((one.provider.cipher_suites.len(), one.versions.len()), (4, 2));

        let only_13 = profile(&["--tls-cipher-suites=TLS_AES_128_GCM_SHA256,TLS_RSA_WITH_RC4_128_SHA"]).unwrap();
        assert_eq!((only_13.versions.len(), only_13.warnings.len()), (1, 1));

        let curves = profile(&["--tls-curve-preferences=29,4588"]).unwrap();
        assert_eq!((curves.provider.kx_groups.len(), curves.warnings.len()), (1, 1));
    }

    #[test]
    fn refuses_what_does_not_exist() {
        let cases = [
            ("--tls-min-version=1.2", "--tls-min-version: \"1.2\" is unknown"),
            ("--tls-cipher-suites=TLS_FOO", "--tls-cipher-suites: \"TLS_FOO\" is unknown"),
            ("--tls-curve-preferences=x", "--tls-curve-preferences: \"x\" is not the number"),
            ("--tls-curve-preferences=25", "none of these groups is offered"),
        ];
        for (arg, reason) in cases {
            let error = profile(&[arg]).expect_err(arg).to_string();
            assert!(error.contains(reason), "{arg}: {error}");
        }
    }

    #[test]
    fn reads_named_pairs() {
        let pair = NamedPair::parse("a.crt,a.key:Foo.example,*.bar.example,10.0.0.1").unwrap();
        assert_eq!(pair.names, ["foo.example", "*.bar.example", "10.0.0.1"]);
        assert_eq!(NamedPair::parse("a.crt, a.key").unwrap().key, PathBuf::from("a.key"));
        for wrong in ["", "a.crt", "a.crt,", "a,b,c", "a,b:foo.*.example", "a,b:fo o"] {
            assert!(NamedPair::parse(wrong).is_err(), "{wrong}");
        }
    }
}
