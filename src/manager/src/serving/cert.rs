//! The server's certificates: read from files again when those change, or made by ourselves.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use super::tls::NamedPair;

/// How often the files are looked at.
pub(crate) const RELOAD_PERIOD: Duration = Duration::from_secs(2);
/// A certificate of our own is replaced when it has less than this left.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
/// The largest file that is read as a certificate or key, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The file does not hold what it should.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The certificate of our own could not be made.
    #[error("self-signed certificate: {0}")]
    SelfSigned(#[from] rcgen::Error),
    /// rustls refused the pair.
    #[error("certificate: {0}")]
    Tls(#[from] rustls::Error),
}

/// Where the default certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertSource {
    /// These files, which must be there.
    Files {
        /// Certificate and its issuers, PEM.
        cert: PathBuf,
        /// Key, PEM.
        key: PathBuf,
    },
    /// `<dir>/<name>.crt` and `.key`, which are made if they are missing.
    Directory {
        /// The folder.
        dir: PathBuf,
        /// Name of the pair.
        name: String,
    },
    /// Made now, and kept in memory.
    Memory,
}

/// What tells one state of a file from the next.
type Stamp = (SystemTime, u64, u64);

/// A pair of files that is being followed.
struct Followed {
    cert: PathBuf,
    key: PathBuf,
    /// The state that was loaded; `None` if the last try failed.
    loaded: Option<[Stamp; 2]>,
    /// What was last complained about.
    complaint: Option<String>,
}

/// One certificate in use, replaced when its files change.
struct Slot {
    current: ArcSwap<CertifiedKey>,
    /// Server names; empty: those in the certificate, or, for the default, all.
    names: Vec<String>,
    files: Option<Mutex<Followed>>,
}

/// The certificates that the server answers with.
pub(crate) struct Certificates {
    default: Slot,
    named: Vec<Slot>,
    bind: IpAddr,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("named", &self.named.len()).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Loads what the source names, or makes a certificate that is good for `bind`.
    ///
    /// # Errors
    /// When a file cannot be read, does not hold a certificate or key, or the two do not belong together.
    pub(crate) fn load(
        source: &CertSource,
        named: &[NamedPair],
        bind: IpAddr,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, CertError> {
        let default = match source {
            CertSource::Files { cert, key } => Slot::follow(cert, key, Vec::new(), &provider)?,
            CertSource::Directory { dir, name } => {
                let (cert, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
                if !cert.exists() && !key.exists() {
                    write_pair(&SelfSigned::make(bind)?, &cert, &key)?;
                }
                Slot::follow(&cert, &key, Vec::new(), &provider)?
            }
            CertSource::Memory => {
                let current = SelfSigned::make(bind)?.certified(&provider)?;
                Slot { current: ArcSwap::from_pointee(current), names: Vec::new(), files: None }
            }
        };
        let named = named
            .iter()
            .map(|pair| Slot::follow(&pair.cert, &pair.key, pair.names.clone(), &provider))
            .collect::<Result<_, _>>()?;
        Ok(Self { default, named, bind, provider })
    }

    /// Looks at the files once and takes over what has changed. A pair that cannot be used leaves the
    /// old one in place; it is logged once and tried again the next time.
    pub(crate) fn reload(&self) {
        for slot in std::iter::once(&self.default).chain(&self.named) {
            slot.reload(&self.provider);
        }
        let soon = SystemTime::now() + RENEW_BEFORE;
        if self.default.files.is_none() && self.expiry().is_some_and(|expiry| expiry < soon) {
            match SelfSigned::make(self.bind).and_then(|made| made.certified(&self.provider)) {
                Ok(certified) => self.default.current.store(Arc::new(certified)),
                Err(error) => tracing::warn!(error = %error, "cannot renew the self-signed certificate"),
            }
        }
    }

    /// Follows the files until `stop` is cancelled.
    pub(crate) async fn follow(self: Arc<Self>, period: Duration, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let this = Arc::clone(&self);
            if let Err(error) = tokio::task::spawn_blocking(move || this.reload()).await {
                tracing::warn!(error = %error, "certificate reload ended early");
            }
        }
    }

    /// SHA-256 of the default certificate, DER, in hexadecimal digits.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> String {
        let current = self.default.current.load();
        let digest = Sha256::digest(current.cert.first().map_or(&[][..], |leaf| leaf.as_ref()));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// When the default certificate ends.
    #[must_use]
    pub(crate) fn expiry(&self) -> Option<SystemTime> {
        let current = self.default.current.load();
        let (_, cert) = X509Certificate::from_der(current.cert.first()?).ok()?;
        let seconds = u64::try_from(cert.validity().not_after.timestamp()).ok()?;
        Some(UNIX_EPOCH + Duration::from_secs(seconds))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let slot = hello
            .server_name()
            .map(str::to_lowercase)
            .and_then(|name| self.named.iter().find(|slot| slot.serves(&name)))
            .unwrap_or(&self.default);
        Some(slot.current.load_full())
    }
}

impl Slot {
    fn follow(cert: &Path, key: &Path, names: Vec<String>, provider: &CryptoProvider) -> Result<Self, CertError> {
        let stamps = stamps(cert, key)?;
        let current = ArcSwap::from_pointee(read_pair(cert, key, provider)?);
        let followed = Followed { cert: cert.into(), key: key.into(), loaded: Some(stamps), complaint: None };
        Ok(Self { current, names, files: Some(Mutex::new(followed)) })
    }

    fn reload(&self, provider: &CryptoProvider) {
        let Some(files) = &self.files else { return };
        let mut files = files.lock();
        // The stamps are taken before the files are read: a write in between shows the next time.
        let stamps = stamps(&files.cert, &files.key);
        let unchanged = stamps.as_ref().is_ok_and(|stamps| files.loaded == Some(*stamps));
        if unchanged {
            return;
        }
        match stamps.and_then(|stamps| Ok((stamps, read_pair(&files.cert, &files.key, provider)?))) {
            Ok((stamps, certified)) => {
                self.current.store(Arc::new(certified));
                files.loaded = Some(stamps);
                files.complaint = None;
                tracing::info!(file = %files.cert.display(), "serving certificate reloaded");
            }
            Err(error) => {
                files.loaded = None;
                let complaint = error.to_string();
                if files.complaint.as_ref() != Some(&complaint) {
                    tracing::warn!(error = %complaint, "serving certificate not reloaded; the old one stays in use");
                    files.complaint = Some(complaint);
                }
            }
        }
    }

    fn serves(&self, name: &str) -> bool {
        if !self.names.is_empty() {
            return self.names.iter().any(|pattern| matches(pattern, name));
        }
        let current = self.current.load();
        let Some((_, cert)) = current.cert.first().and_then(|der| X509Certificate::from_der(der).ok()) else {
            return false;
        };
        cert.extensions().iter().any(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => names.general_names.iter().any(
                |general| matches!(general, GeneralName::DNSName(pattern) if matches(&pattern.to_lowercase(), name)),
            ),
            _ => false,
        })
    }
}

/// Whether a pattern such as `*.example.org` stands for a name; `*.` stands for one label.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(domain) => name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == domain),
        None => pattern == name,
    }
}

fn stamps(cert: &Path, key: &Path) -> Result<[Stamp; 2], CertError> {
    let stamp = |path: &Path| -> Result<Stamp, CertError> {
        let file = |source| CertError::File { path: path.into(), source };
        let metadata = fs::metadata(path).map_err(file)?;
        Ok((metadata.modified().map_err(file)?, metadata.len(), metadata.ino()))
    };
    Ok([stamp(cert)?, stamp(key)?])
}

/// Reads a small file whole.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CertError> {
    let file = |source| CertError::File { path: path.into(), source };
    let length = fs::metadata(path).map_err(file)?.len();
    if length > MAX_FILE {
        let reason = format!("{length} bytes are too many for certificates");
        return Err(CertError::Content { path: path.into(), reason });
    }
    fs::read(path).map_err(file)
}

fn read_pair(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, CertError> {
    let content = |path: &Path, reason: String| CertError::Content { path: path.into(), reason };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(cert)?)
        .collect::<Result<_, _>>()
        .map_err(|error| content(cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(content(cert, "holds no certificate".into()));
    }
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| content(key, error.to_string()))?;
    CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => content(key, format!("is not the key of {}", cert.display())),
        other => content(cert, other.to_string()),
    })
}

/// A certificate of our own, as upstream makes it (client-go:util/cert, v1.36.3): an authority made
/// for it alone, valid for a year from an hour ago.
struct SelfSigned {
    leaf: rcgen::Certificate,
    authority: rcgen::Certificate,
    key: rcgen::KeyPair,
}

impl SelfSigned {
    fn make(bind: IpAddr) -> Result<Self, CertError> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = SystemTime::now();
        let (start, end) = (now - Duration::from_secs(3600), now + Duration::from_secs(365 * 24 * 3600));
        let named = |name: String| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            (params.not_before, params.not_after) = (start.into(), end.into());
            params
        };
        let authority_key = rcgen::KeyPair::generate()?;
        let mut authority = named(format!("localhost-ca@{seconds}"));
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature, rcgen::KeyUsagePurpose::KeyCertSign];
        let authority_cert = authority.self_signed(&authority_key)?;
        let issuer = rcgen::Issuer::new(authority, authority_key);

        let key = rcgen::KeyPair::generate()?;
        let mut leaf = named(format!("localhost@{seconds}"));
        leaf.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature, rcgen::KeyUsagePurpose::KeyEncipherment];
        leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        leaf.subject_alt_names = vec![
            rcgen::SanType::DnsName("localhost".try_into().expect("plain ASCII")),
            rcgen::SanType::IpAddress(loopback),
        ];
        if !bind.is_unspecified() && bind != loopback {
            leaf.subject_alt_names.push(rcgen::SanType::IpAddress(bind));
        }
        Ok(Self { leaf: leaf.signed_by(&key, &issuer)?, authority: authority_cert, key })
    }

    fn certified(&self, provider: &CryptoProvider) -> Result<CertifiedKey, CertError> {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let chain = vec![self.leaf.der().clone(), self.authority.der().clone()];
        Ok(CertifiedKey::from_der(chain, key.into(), provider)?)
    }
}

/// Writes the pair so that nobody else can read the key, the certificate last.
fn write_pair(made: &SelfSigned, cert: &Path, key: &Path) -> Result<(), CertError> {
    let write = |path: &Path, mode: u32, text: &str| {
        let file = |source| CertError::File { path: path.into(), source };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(file)?;
        }
        let mut target = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(file)?;
        target.write_all(text.as_bytes()).map_err(file)
    };
    write(key, 0o600, &made.key.serialize_pem())?;
    write(cert, 0o644, &format!("{}{}", made.leaf.pem(), made.authority.pem()))
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ring;

    use super::*;

    fn load(source: &CertSource) -> Result<Certificates, CertError> {
        Certificates::load(source, &[], IpAddr::from([10, 1, 2, 3]), Arc::new(ring::default_provider()))
    }

    #[test]
    fn makes_a_certificate_like_upstreams() {
        let certificates = load(&CertSource::Memory).unwrap();
        let current = certificates.default.current.load();
        let (_, leaf) = X509Certificate::from_der(&current.cert[0]).unwrap();
        let (subject, issuer) = (leaf.subject().to_string(), leaf.issuer().to_string());
        assert!(subject.starts_with("CN=localhost@") && issuer.starts_with("CN=localhost-ca@"), "{subject} {issuer}");
        let sans = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(
            sans[..],
            [
                GeneralName::DNSName("localhost"),
                GeneralName::IPAddress(&[127, 0, 0, 1]),
                GeneralName::IPAddress(&[10, 1, 2, 3])
            ]
        );
        let year = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
        assert_eq!(year, 365 * 24 * 3600 + 3600);
    }

    #[test]
    fn a_directory_keeps_its_pair() {
        let dir = tempfile::tempdir().unwrap();
        let source = CertSource::Directory { dir: dir.path().join("new"), name: "quarterdeck".into() };
        let first = load(&source).unwrap().default.current.load().cert.clone();
        assert_eq!(load(&source).unwrap().default.current.load().cert, first);
        let mode = fs::metadata(dir.path().join("new/quarterdeck.key")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_bad_pair_names_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a", "b"] {
            write_pair(
                &SelfSigned::make([127, 0, 0, 1].into()).unwrap(),
                &path(&format!("{name}.crt")),
                &path(&format!("{name}.key")),
            )
            .unwrap();
        }
        fs::write(path("empty"), "").unwrap();
        fs::write(path("huge"), vec![b'x'; usize::try_from(MAX_FILE).unwrap() + 1]).unwrap();
        let cases = [
            ("a.crt", "b.key", "b.key: is not the key of"),
            ("empty", "a.key", "empty: holds no certificate"),
            ("a.crt", "empty", "empty: "),
            ("none", "a.key", "none: No such file"),
            ("huge", "a.key", "huge: 1048577 bytes are too many"),
            ("a.key", "a.key", "a.key: holds no certificate"),
        ];
        for (cert, key, reason) in cases {
            let error = load(&CertSource::Files { cert: path(cert), key: path(key) }).unwrap_err().to_string();
            assert!(error.contains(reason), "{cert} {key}: {error}");
        }
    }

    #[test]
    fn a_bad_change_keeps_the_old_pair() {
        let dir = tempfile::tempdir().unwrap();
        let source = CertSource::Directory { dir: dir.path().into(), name: "x".into() };
        let certificates = load(&source).unwrap();
        let first = certificates.default.current.load_full();
        let (cert, key) = (dir.path().join("x.crt"), dir.path().join("x.key"));

        fs::write(&cert, "nonsense").unwrap();
        certificates.reload();
        assert!(Arc::ptr_eq(&first, &certificates.default.current.load_full()));

        fs::remove_file(&cert).unwrap();
        certificates.reload();
        assert!(Arc::ptr_eq(&first, &certificates.default.current.load_full()));

        fs::remove_file(&key).unwrap();
        write_pair(&SelfSigned::make([127, 0, 0, 1].into()).unwrap(), &cert, &key).unwrap();
        let print = certificates.fingerprint();
        certificates.reload();
        assert_ne!(first.cert, certificates.default.current.load().cert);
        assert_ne!(print, certificates.fingerprint());
        assert_eq!(print.len(), 64);
    }

    #[test]
    fn names_match_one_label() {
        let cases = [
            ("a.example", "a.example", true),
            ("*.example", "a.example", true),
            ("*.example", "a.b.example", false),
            ("*.example", "example", false),
            ("*.example", ".example", false),
            ("b.example", "a.example", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
