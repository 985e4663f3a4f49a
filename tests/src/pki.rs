//! Keys and certificates of a control plane, kept in its folder so that
//! `hack/cluster` and the Go programs find them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// A certificate authority; its files are `<name>.crt` and `<name>.key`.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// The certificate.
    pub(crate) certificate: String,
    /// The key, PKCS 8.
    pub(crate) key: String,
}

/// The authorities and the service-account key of one control plane.
pub(crate) struct Pki {
    folder: PathBuf,
    /// Signs the certificates of servers and of etcd's clients.
    server: Authority,
    /// Signs the certificates of users.
    client: Authority,
    /// Signs the aggregator's certificate.
    front_proxy: Authority,
}

impl Pki {
    /// Reads the authorities in `folder`, or makes them.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let pki = Self {
            server: Authority::open(folder, "ca")?,
            client: Authority::open(folder, "client-ca")?,
            front_proxy: Authority::open(folder, "front-proxy-ca")?,
            folder: folder.to_owned(),
        };
        if !pki.path("sa.key").exists() {
            let key = KeyPair::generate().context("generating the service-account key")?;
            write(&pki.path("sa.key"), &key.serialize_pem())?;
            write(&pki.path("sa.pub"), &key.public_key_pem())?;
        }
        Ok(pki)
    }

    /// Path of a file in the folder.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Certificate of the servers' authority, PEM.
    pub(crate) fn server_ca(&self) -> &str {
        &self.server.certificate
    }

    /// Writes `<name>.crt` and `<name>.key` of a server that is reached through
    /// these names and addresses. It is good for clients too: etcd's gateway
    /// dials itself with it.
    pub(crate) fn serving(&self, name: &str, reached: &[&str]) -> Result<()> {
        let names: Vec<_> = reached.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).context("names of a server")?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.store(name, &self.server.issue(params)?)
    }

    /// Writes the certificate that the aggregator shows to extension servers.
    pub(crate) fn front_proxy_client(&self, name: &str) -> Result<()> {
        let pair = self.front_proxy.issue(client_params(name, &[])?)?;
        self.store(name, &pair)
    }

    /// A user's certificate: the name is the common name, the groups are
    /// organizations.
    pub(crate) fn user(&self, name: &str, groups: &[&str]) -> Result<Pair> {
        self.client.issue(client_params(name, groups)?)
    }

    /// A certificate for a client of etcd.
    pub(crate) fn etcd_client(&self, name: &str) -> Result<Pair> {
        self.server.issue(client_params(name, &[])?)
    }

    /// Writes a pair as `<name>.crt` and `<name>.key`.
    pub(crate) fn store(&self, name: &str, pair: &Pair) -> Result<()> {
        write(&self.path(&format!("{name}.crt")), &pair.certificate)?;
        write(&self.path(&format!("{name}.key")), &pair.key)
    }
}

impl Authority {
    fn open(folder: &Path, name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("quarterdeck-{name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let (crt, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        if crt.exists() && key.exists() {
            let pem = fs::read_to_string(&key)?;
            let key = KeyPair::from_pem(&pem).with_context(|| format!("in {}", key.display()))?;
            let certificate = fs::read_to_string(&crt)?;
            return Ok(Self { certificate, issuer: Issuer::new(params, key) });
        }
        let pair = KeyPair::generate().context("generating the key of an authority")?;
        let certificate = params.self_signed(&pair).context("signing an authority")?.pem();
        write(&key, &pair.serialize_pem())?;
        write(&crt, &certificate)?;
        Ok(Self { certificate, issuer: Issuer::new(params, pair) })
    }

    fn issue(&self, params: CertificateParams) -> Result<Pair> {
        let mut params = params;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().context("generating a key")?;
        let certificate = params.signed_by(&key, &self.issuer).context("signing a certificate")?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn client_params(name: &str, groups: &[&str]) -> Result<CertificateParams> {
    // rcgen keeps one value for each attribute type; the same type under its
    // number counts as another, which makes two.
    const ORGANIZATION: [u64; 4] = [2, 5, 4, 10];
    let types = [DnType::OrganizationName, DnType::CustomDnType(ORGANIZATION.to_vec())];
    if groups.len() > types.len() {
        bail!("user {name}: a certificate holds at most {} groups", types.len());
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, &group) in types.into_iter().zip(groups) {
        params.distinguished_name.push(kind, group);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// Writes a file that only this user reads.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let file = options.open(path).with_context(|| format!("writing {}", path.display()));
    file?.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_kept_and_a_third_group_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = Pki::open(folder.path()).unwrap();
        let second = Pki::open(folder.path()).unwrap();
        assert_eq!(first.server_ca(), second.server_ca());
        second.user("u", &["a", "b"]).unwrap();
        let error = second.user("u", &["a", "b", "c"]).unwrap_err();
        assert!(error.to_string().contains("at most 2 groups"), "{error}");
    }
}
