//! The cluster's authority for client certificates, as files on a master: it signs the certificate of the replica there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SignatureAlgorithm, SigningKey,
};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// For how long a certificate is good: as long as those of kubeadm (kubernetes:cmd/kubeadm/app/constants, v1.36.3).
const VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);
/// A certificate begins so long before it is made: clocks differ.
const BACKDATED: Duration = Duration::from_secs(5 * 60);

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// A file of it cannot be read as what it should be.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The certificate could not be made.
    #[error("signing a client certificate: {0}")]
    Sign(#[from] rcgen::Error),
}

/// An authority, loaded.
pub(crate) struct Authority {
    issuer: Issuer<'static, Key>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// A signed certificate and its key, both PEM.
pub(crate) struct Signed {
    /// The certificate.
    pub(crate) cert: String,
    /// Its key, PKCS #8.
    pub(crate) key: String,
}

impl Authority {
    /// Reads both files; the key may be of any form that TLS servers take (PKCS #1, PKCS #8, SEC 1).
    ///
    /// # Errors
    /// When one cannot be read, or the two do not belong together.
    pub(crate) fn load(cert_file: &Path, key_file: &Path) -> Result<Self, AuthorityError> {
        let fault = |path: &Path, reason: String| AuthorityError::File { path: path.to_owned(), reason };
        let cert = CertificateDer::from_pem_file(cert_file).map_err(|error| fault(cert_file, error.to_string()))?;
        let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| fault(key_file, error.to_string()))?;
        let signer = ring::sign::any_supported_type(&key)
            .map_err(|error| fault(key_file, format!("no key of a use: {error}")))?;
        if let Err(error) = CertifiedKey::new(vec![cert.clone()], Arc::clone(&signer)).keys_match() {
            return Err(fault(key_file, format!("not the key of {}: {error}", cert_file.display())));
        }
        let public = X509Certificate::from_der(&cert)
            .map(|(_, cert)| cert.public_key().subject_public_key.data.to_vec())
            .map_err(|error| fault(cert_file, error.to_string()))?;
        let key = Key::of(signer, public).ok_or_else(|| fault(key_file, "a key of an unknown kind".to_owned()))?;
        let mut roots = RootCertStore::empty();
        roots.add(cert.clone()).map_err(|error| fault(cert_file, error.to_string()))?;
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| fault(cert_file, error.to_string()))?;
        Ok(Self { issuer: Issuer::from_ca_cert_der(&cert, key)?, verifier })
    }

    /// Makes a key and a certificate that names this user.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub(crate) fn sign(&self, user: &str, now: SystemTime) -> Result<Signed, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = ((now - BACKDATED).into(), (now + VALIDITY).into());
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Signed { cert: cert.pem(), key: key.serialize_pem() })
    }

    /// Whether a certificate is this authority's, and still good for a third of its time.
    pub(crate) fn vouches_for(&self, cert: &CertificateDer<'_>, now: SystemTime) -> bool {
        let later = now + VALIDITY / 3;
        [now, later].into_iter().all(|time| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.verifier.verify_client_cert(cert, &[], UnixTime::since_unix_epoch(since)).is_ok()
        })
    }
}

/// A key that rustls can sign with, for rcgen, which reads fewer forms.
struct Key {
    signer: Arc<dyn rustls::sign::SigningKey>,
    scheme: rustls::SignatureScheme,
    algorithm: &'static SignatureAlgorithm,
    public: Vec<u8>,
}

impl Key {
    /// `None` for a kind of key that no certificate here is signed by.
    fn of(signer: Arc<dyn rustls::sign::SigningKey>, public: Vec<u8>) -> Option<Self> {
        use rustls::SignatureScheme as Scheme;
        let known = [
            (Scheme::RSA_PKCS1_SHA256, &rcgen::PKCS_RSA_SHA256),
            (Scheme::ECDSA_NISTP256_SHA256, &rcgen::PKCS_ECDSA_P256_SHA256),
            (Scheme::ECDSA_NISTP384_SHA384, &rcgen::PKCS_ECDSA_P384_SHA384),
            (Scheme::ED25519, &rcgen::PKCS_ED25519),
        ];
        let (scheme, algorithm) = known.into_iter().find(|(scheme, _)| signer.choose_scheme(&[*scheme]).is_some())?;
        Some(Self { signer, scheme, algorithm, public })
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signer = self.signer.choose_scheme(&[self.scheme]).ok_or(rcgen::Error::RemoteKeyError)?;
        signer.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A key as kubeadm writes it (PKCS #1), and its certificate; it signs for nobody.
    const RSA: (&str, &str) = (include_str!("testdata/ca.crt"), include_str!("testdata/ca.key"));

    fn load(cert: &str, key: &str) -> Result<Authority, AuthorityError> {
        let folder = tempfile::tempdir().expect("a folder");
        let (cert_file, key_file) = (folder.path().join("ca.crt"), folder.path().join("ca.key"));
        std::fs::write(&cert_file, cert).expect("written");
        std::fs::write(&key_file, key).expect("written");
        Authority::load(&cert_file, &key_file)
    }

    fn elliptic_files() -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a cluster");
        (params.self_signed(&key).expect("signed").pem(), key.serialize_pem())
    }

    /// A new authority.
    pub(in super::super) fn elliptic() -> Authority {
        let (cert, key) = elliptic_files();
        load(&cert, &key).expect("good files")
    }

    #[test]
    fn keys_of_kubeadm_and_of_others_sign_what_a_server_takes() {
        for authority in [load(RSA.0, RSA.1).unwrap(), elliptic()] {
            let now = SystemTime::now();
            let signed = authority.sign("deck", now).unwrap();
            let cert = CertificateDer::from_pem_slice(signed.cert.as_bytes()).unwrap();
            assert_eq!(crate::serving::x509::subject(&cert).unwrap().common_name, "deck");
            assert!(PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).is_ok());
            assert!(authority.vouches_for(&cert, now));
            let months = |count: u32| Duration::from_secs(30 * 24 * 3600) * count;
            assert!(authority.vouches_for(&cert, now + months(7)));
            assert!(!authority.vouches_for(&cert, now + months(9)), "less than a third of its time is left");
            assert!(!elliptic().vouches_for(&cert, now), "somebody else");
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let (cert, key) = elliptic_files();
        for (cert, key, named) in [
            (RSA.0, key.as_str(), "ca.key: not the key of"),
            ("none", key.as_str(), "ca.crt: "),
            (cert.as_str(), "none", "ca.key: "),
        ] {
            let error = load(cert, key).err().expect("refused").to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
