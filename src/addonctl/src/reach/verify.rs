//! Who a server has to be before anything is shown to it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};

use super::error::ReachError;

/// SHA-256 of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pin([u8; 32]);

impl Pin {
    /// A checksum in hexadecimal digits, in either case, also with colons between the bytes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits: String = text.trim().chars().filter(|c| *c != ':').collect();
        if digits.len() != 64 || !digits.is_ascii() {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok().filter(|_| !digits.contains('+'))?;
        }
        Some(Self(bytes))
    }

    /// The checksum of a certificate.
    pub(crate) fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

/// A certificate that is none of those that are awaited.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the server shows {shown}")]
pub(super) struct NotPinned {
    /// What it shows.
    pub(super) shown: Pin,
}

/// Whom to believe.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// Who shows one of these certificates, and has its key.
    Pins(Vec<Pin>),
    /// Whose certificate these authorities signed, for the name that is asked for.
    Authority(Arc<RootCertStore>),
}

impl Trust {
    /// The authorities in a file (`--certificate-authority`).
    ///
    /// # Errors
    /// When it cannot be read, or holds none.
    pub(crate) fn authority(path: &Path) -> Result<Self, ReachError> {
        let wrong = |reason: String| ReachError::Flag { flag: "certificate-authority", reason };
        let certificates =
            CertificateDer::pem_file_iter(path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            let added = certificate.map_err(|error| error.to_string());
            let added = added.and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
            added.map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        }
        if roots.is_empty() {
            return Err(wrong(format!("{}: there is no certificate in it", path.display())));
        }
        Ok(Self::Authority(Arc::new(roots)))
    }

    /// The verifier that holds a server to this.
    pub(super) fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, ReachError> {
        let provider = Arc::new(ring::default_provider());
        match self {
            Self::Pins(pins) => Ok(Arc::new(Pinned { pins: pins.clone(), provider })),
            Self::Authority(roots) => {
                let built = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider).build();
                let built = built
                    .map_err(|error| ReachError::Flag { flag: "certificate-authority", reason: error.to_string() });
                Ok(built?)
            }
        }
    }

    /// Whether the server is known by its certificate alone: then it is told no name, so that it shows the one it
    /// always shows.
    pub(super) fn is_pinned(&self) -> bool {
        matches!(self, Self::Pins(_))
    }
}

/// Believes certificates by their checksum, whatever names and times they carry: the Lease is newer than they are.
#[derive(Debug)]
struct Pinned {
    pins: Vec<Pin>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = Pin::of(end_entity);
        if self.pins.contains(&shown) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(NotPinned { shown })))))
    }

    // Certificates are public: only who signs with the key is who the certificate says.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a failed handshake means.
pub(super) fn explain(error: &std::io::Error, place: &str, trust: &Trust) -> ReachError {
    let place = place.to_owned();
    let Some(tls) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        return ReachError::Unreachable { place, reason: format!("during the TLS handshake: {error}") };
    };
    match (tls, trust) {
        (Error::InvalidCertificate(CertificateError::Other(other)), Trust::Pins(pins)) => {
            let Some(wrong) = other.0.downcast_ref::<NotPinned>() else {
                return ReachError::Unverified { place, reason: tls.to_string() };
            };
            let wanted: Vec<String> = pins.iter().map(Pin::to_string).collect();
            ReachError::WrongPin { place, shown: wrong.shown.to_string(), wanted: wanted.join(" or ") }
        }
        (Error::InvalidCertificate(_), _) => ReachError::Unverified { place, reason: tls.to_string() },
        _ => ReachError::Unreachable { place, reason: format!("during the TLS handshake: {tls}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_written_in_several_ways() {
        let digits = "0123456789abcdef".repeat(4);
        let pin = Pin::parse(&digits).expect("a pin");
        let bytes: Vec<String> =
            digits.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase()).collect();
        assert_eq!(Pin::parse(&bytes.join(":")), Some(pin));
        assert_eq!(Pin::parse(&format!(" {digits}\n")), Some(pin));
        assert_eq!(pin.to_string(), digits);
        let signs = "+1".repeat(32);
        for wrong in ["", "ab", &digits[1..], &format!("{digits}0"), &"gg".repeat(32), &signs, &"é".repeat(32)] {
            assert_eq!(Pin::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_pin_is_the_checksum_of_the_certificate() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Pin::of(b"").to_string(), empty);
    }

    #[test]
    fn only_the_pinned_certificate_is_believed() {
        let trust = Trust::Pins(vec![Pin::of(b"one"), Pin::of(b"two")]);
        let verifier = trust.verifier().expect("a verifier");
        let verify = |certificate: &[u8]| {
            let name = ServerName::try_from("any.name").expect("a name");
            let now = UnixTime::since_unix_epoch(std::time::Duration::ZERO);
            verifier.verify_server_cert(&CertificateDer::from(certificate.to_vec()), &[], &name, &[], now)
        };
        assert!(verify(b"one").is_ok() && verify(b"two").is_ok());
        let error = std::io::Error::other(verify(b"three").expect_err("another certificate"));
        let said = explain(&error, "there", &trust).to_string();
        assert!(said.contains(&Pin::of(b"three").to_string()) && said.contains("nothing was sent to it"), "{said}");
    }
}
