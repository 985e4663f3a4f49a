//! Locations: what may stand behind `--channel` and in the `manifest` of an index.

use std::fmt;
use std::path::{Path, PathBuf};

use super::url::{HttpUrl, UrlError, decode, without_dots};

/// Why a text is no location that could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Nothing was given.
    #[error("the location is empty")]
    Empty,
    /// A word alone, which was once the name of a well-known addon.
    #[error("{0:?} is neither a URL nor a path; write ./{0} for a file")]
    BareName(String),
    /// A scheme that is not read.
    #[error("locations of {0}:// are not read; there are paths, file, http, https, s3, gs, azureblob and oci")]
    Scheme(String),
    /// A URL that is none.
    #[error("{url:?}: {source}")]
    Url {
        /// The text up to its path.
        url: String,
        /// Why.
        source: UrlError,
    },
    /// A `file:` URL with a host, or a path that is not UTF-8.
    #[error("a file location is file:///path, without a host")]
    FileHost,
    /// A path without a file's name.
    #[error("{0:?} names no file")]
    NoFile(String),
    /// No bucket or key.
    #[error("{0:?} lacks a bucket or a key; write {1}://bucket/key")]
    Object(String, &'static str),
    /// No repository.
    #[error("{0:?} is no artifact; write oci://registry/repository:tag or …@sha256:digest")]
    Oci(String),
    /// An index elsewhere names a file of this machine.
    #[error("only an index that is a file itself may name files, relative to its own folder")]
    NamesFile,
    /// An index elsewhere names an object that would be read with this machine's credentials.
    #[error("only an index that is a file, or in the same kind of store, may name {0}:// locations")]
    NamesStore(&'static str),
    /// It leads out of the folder of the index.
    #[error("{0:?} leads out of the folder of the index")]
    LeadsOut(String),
}

/// A file below a folder; nothing out of the folder can be read through it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FilePlace {
    /// The folder of the index.
    pub root: PathBuf,
    /// Path below it.
    pub path: String,
}

/// Stores of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectStore {
    /// Amazon S3 and what speaks like it.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure blob storage; the bucket is the container, the account comes from the environment.
    Azure,
}

impl ObjectStore {
    /// The scheme of its locations, as kOps names it.
    #[must_use]
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Azure => "azureblob",
        }
    }
}

/// An object in a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectPlace {
    /// Which store.
    pub store: ObjectStore,
    /// Bucket or container.
    pub bucket: String,
    /// Key, without a leading slash.
    pub key: String,
}

/// A file of an artifact in a registry.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OciPlace {
    /// The registry; its path is unused. Plain http where the location says `oci+http`.
    pub registry: HttpUrl,
    /// Repository.
    pub repository: String,
    /// Tag, or digest with its `sha256:`.
    pub reference: String,
    /// Title of the layer that holds the file; empty for the first layer.
    pub file: String,
}

impl fmt::Debug for OciPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Location::Oci(self.clone()), f)
    }
}

/// Where a file is. Shown without credentials and query.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// A file of this machine.
    File(FilePlace),
    /// Behind http or https.
    Http(HttpUrl),
    /// In a store of objects.
    Object(ObjectPlace),
    /// In a registry of images.
    Oci(OciPlace),
}

impl Location {
    /// Reads the location of an index.
    ///
    /// # Errors
    /// When it is none, or of a kind that is not read.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(LocationError::Empty);
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return Self::with_scheme(scheme, rest, text);
        }
        if !text.contains('/') {
            return Err(LocationError::BareName(text.to_owned()));
        }
        file(Path::new(text))
    }

    fn with_scheme(scheme: &str, rest: &str, text: &str) -> Result<Self, LocationError> {
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => HttpUrl::parse(text)
                .map(Self::Http)
                .map_err(|source| LocationError::Url { url: format!("{scheme}://…"), source }),
            "file" => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                let path = path.split_once(['?', '#']).map_or(path, |(path, _)| path);
                let decoded = String::from_utf8(decode(path)).ok().filter(|path| path.starts_with('/'));
                file(Path::new(&decoded.ok_or(LocationError::FileHost)?))
            }
            "s3" => object(ObjectStore::S3, rest),
            "gs" => object(ObjectStore::Gs, rest),
            "azureblob" => object(ObjectStore::Azure, rest),
            "oci" => oci(true, rest, text),
            "oci+http" => oci(false, rest, text),
            other => Err(LocationError::Scheme(other.chars().take(20).collect())),
        }
    }

    /// What `reference` means in an index that was read here.
    ///
    /// # Errors
    /// When it is no location, or one that an index here may not name.
    pub fn join(&self, reference: &str) -> Result<Self, LocationError> {
        let reference = reference.trim();
        if reference.is_empty() {
            return Err(LocationError::Empty);
        }
        if let Some((scheme, rest)) = reference.split_once("://")
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
        {
            return match Self::with_scheme(scheme, rest, reference)? {
                Self::File(_) => Err(LocationError::NamesFile),
                Self::Object(place) if !self.may_name(place.store) => {
                    Err(LocationError::NamesStore(place.store.scheme()))
                }
                other => Ok(other),
            };
        }
        match self {
            Self::File(place) => below(place, reference),
            Self::Http(url) => url
                .join(reference)
                .map(Self::Http)
                .map_err(|source| LocationError::Url { url: reference.chars().take(80).collect(), source }),
            Self::Object(place) => {
                let folder = place.key.rfind('/').map_or("", |end| &place.key[..=end]);
                let path =
                    if reference.starts_with('/') { reference.to_owned() } else { format!("/{folder}{reference}") };
                let key = without_dots(&path).trim_start_matches('/').to_owned();
                if key.is_empty() || key.ends_with('/') {
                    return Err(LocationError::NoFile(reference.to_owned()));
                }
                Ok(Self::Object(ObjectPlace { key, ..place.clone() }))
            }
            Self::Oci(place) => {
                let file = reference.strip_prefix("./").unwrap_or(reference).to_owned();
                Ok(Self::Oci(OciPlace { file, ..place.clone() }))
            }
        }
    }

    /// Stores are read with credentials of this machine: not for whoever writes a page somewhere.
    fn may_name(&self, store: ObjectStore) -> bool {
        match self {
            Self::File(_) => true,
            Self::Object(place) => place.store == store,
            Self::Http(_) | Self::Oci(_) => false,
        }
    }

    /// The host that is asked, of those that are reached by a name in the location.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Http(url) => Some(&url.host),
            Self::Oci(place) => Some(&place.registry.host),
            Self::File(_) | Self::Object(_) => None,
        }
    }

    /// Whether nobody between here and there can change what is read.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        match self {
            Self::Http(url) => url.secure,
            Self::Oci(place) => place.registry.secure,
            Self::File(_) | Self::Object(_) => true,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(place) => place.root.join(&place.path).display().fmt(f),
            Self::Http(url) => url.fmt(f),
            Self::Object(place) => write!(f, "{}://{}/{}", place.store.scheme(), place.bucket, place.key),
            Self::Oci(place) => {
                let scheme = if place.registry.secure { "oci" } else { "oci+http" };
                let sign = if place.reference.starts_with("sha256:") { '@' } else { ':' };
                let OciPlace { registry, repository, reference, file } = place;
                write!(f, "{scheme}://{}/{repository}{sign}{reference}", registry.authority())?;
                if file.is_empty() { Ok(()) } else { write!(f, "#{file}") }
            }
        }
    }
}

/// What is said of a store that this build cannot read.
#[cfg_attr(
    all(feature = "channel-s3", feature = "channel-gs", feature = "channel-azure"),
    expect(dead_code, reason = "this build can read every store")
)]
pub(super) const fn not_built(store: ObjectStore) -> super::FetchError {
    let feature = match store {
        ObjectStore::S3 => "channel-s3",
        ObjectStore::Gs => "channel-gs",
        ObjectStore::Azure => "channel-azure",
    };
    super::FetchError::NotBuilt { scheme: store.scheme(), feature }
}

fn file(path: &Path) -> Result<Location, LocationError> {
    let no_file = || LocationError::NoFile(path.display().to_string());
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(no_file)?;
    let root = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(Location::File(FilePlace { root: root.to_owned(), path: name.to_owned() }))
}

/// A file below the folder of an index; the system checks it once more when it is opened.
fn below(index: &FilePlace, reference: &str) -> Result<Location, LocationError> {
    let leads_out = reference.starts_with('/') || reference.split('/').any(|part| part == "..");
    if leads_out {
        return Err(LocationError::LeadsOut(reference.chars().take(80).collect()));
    }
    let parts: Vec<&str> = reference.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.is_empty() {
        return Err(LocationError::NoFile(reference.to_owned()));
    }
    Ok(Location::File(FilePlace { root: index.root.clone(), path: parts.join("/") }))
}

fn object(store: ObjectStore, rest: &str) -> Result<Location, LocationError> {
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    let key = without_dots(&format!("/{key}")).trim_start_matches('/').to_owned();
    let is_bucket = |bucket: &str| {
        !bucket.is_empty()
            && bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'$'))
    };
    if !is_bucket(bucket) || key.is_empty() || key.ends_with('/') {
        return Err(LocationError::Object(rest.chars().take(80).collect(), store.scheme()));
    }
    Ok(Location::Object(ObjectPlace { store, bucket: bucket.to_owned(), key }))
}

fn oci(secure: bool, rest: &str, text: &str) -> Result<Location, LocationError> {
    let bad = || LocationError::Oci(text.rsplit_once('@').map_or(text, |(_, rest)| rest).chars().take(80).collect());
    let (rest, file) = rest.split_once('#').unwrap_or((rest, ""));
    let (authority, name) = rest.split_once('/').ok_or_else(bad)?;
    let scheme = if secure { "https" } else { "http" };
    let registry = HttpUrl::parse(&format!("{scheme}://{authority}/")).map_err(|_| bad())?;
    let (repository, reference) = match name.split_once('@') {
        Some((name, digest)) => (name.split_once(':').map_or(name, |(name, _)| name), digest),
        None => name.rsplit_once(':').unwrap_or((name, "latest")),
    };
    let is_repository = |text: &str| {
        !text.is_empty()
            && text.split('/').all(|part| {
                part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
                    && part
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_'))
            })
    };
    let is_tag = |text: &str| {
        (1..=128).contains(&text.len())
            && !text.starts_with(['.', '-'])
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    let is_digest = |text: &str| {
        text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    if !is_repository(repository) || !(is_tag(reference) || is_digest(reference)) {
        return Err(bad());
    }
    Ok(Location::Oci(OciPlace {
        registry,
        repository: repository.to_owned(),
        reference: reference.to_owned(),
        file: file.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Location {
        Location::parse(text).expect(text)
    }

    #[test]
    fn locations_are_read_and_shown() {
        for (text, shown) in [
            ("/etc/channels/index.yaml", "/etc/channels/index.yaml"),
            ("./index.yaml", "./index.yaml"),
            ("file:///etc/a%20b/index.yaml", "/etc/a b/index.yaml"),
            ("file://localhost/etc/index.yaml", "/etc/index.yaml"),
            ("https://user:secret@example.com/a/index.yaml?token=secret", "https://example.com/a/index.yaml"),
            ("s3://bucket/addons/bootstrap-channel.yaml", "s3://bucket/addons/bootstrap-channel.yaml"),
            ("gs://bucket//a/./b", "gs://bucket/a/b"),
            ("azureblob://container/key", "azureblob://container/key"),
            ("oci://r.example.com/a/b", "oci://r.example.com/a/b:latest"),
            ("oci+http://u:p@localhost:5000/a/b:v1#x.yaml", "oci+http://localhost:5000/a/b:v1#x.yaml"),
        ] {
            assert_eq!(parse(text).to_string(), shown, "{text}");
            assert!(!format!("{:?}", parse(text)).contains("secret"), "{text}");
        }
        let digest = format!("oci://r/a:v1@sha256:{}", "a".repeat(64));
        assert!(parse(&digest).to_string().starts_with("oci://r/a@sha256:aaa"));
    }

    #[test]
    fn what_is_no_location_is_told() {
        for (text, message) in [
            ("", "empty"),
            ("dashboard", "write ./dashboard for a file"),
            ("swift://a/b", "locations of swift:// are not read"),
            ("memfs://a/b", "locations of memfs:// are not read"),
            ("http://:secret@/x", "no host"),
            ("file://host/etc/x", "without a host"),
            ("/", "names no file"),
            ("/etc/..", "names no file"),
            ("s3://bucket", "write s3://bucket/key"),
            ("s3:///key", "write s3://bucket/key"),
            ("s3://bucket/folder/", "write s3://bucket/key"),
            ("oci://registry", "write oci://"),
            ("oci://u:secret@registry/UPPER", "write oci://"),
            ("oci://registry/a@sha256:12", "write oci://"),
        ] {
            let error = Location::parse(text).expect_err(text).to_string();
            assert!(error.contains(message) && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn manifests_are_relative_to_their_index() {
        for (index, reference, expected) in [
            ("/etc/c/index.yaml", "a/b.yaml", "/etc/c/a/b.yaml"),
            ("/etc/c/index.yaml", "./a//b.yaml", "/etc/c/a/b.yaml"),
            ("/etc/c/index.yaml", "https://h/x", "https://h/x"),
            ("https://u:p@h/c/index.yaml", "a.yaml", "https://h/c/a.yaml"),
            ("https://h/c/index.yaml", "../a.yaml", "https://h/a.yaml"),
            ("/etc/c/index.yaml", "s3://b/k", "s3://b/k"),
            ("s3://a/index.yaml", "s3://b/k", "s3://b/k"),
            ("s3://a/index.yaml", "https://h/k", "https://h/k"),
            ("s3://b/c/index.yaml", "a/b.yaml", "s3://b/c/a/b.yaml"),
            ("s3://b/c/index.yaml", "../../../b.yaml", "s3://b/b.yaml"),
            ("s3://b/index.yaml", "/x/y", "s3://b/x/y"),
            ("oci://r/a:v1", "./b.yaml", "oci://r/a:v1#b.yaml"),
        ] {
            assert_eq!(parse(index).join(reference).expect(reference).to_string(), expected, "{index} {reference}");
        }
    }

    #[test]
    fn no_index_leads_out_of_its_folder_or_into_this_machine() {
        for (index, reference) in [
            ("/etc/c/index.yaml", "../secret"),
            ("/etc/c/index.yaml", "a/../../secret"),
            ("/etc/c/index.yaml", "/etc/shadow"),
            ("/etc/c/index.yaml", "file:///etc/shadow"),
            ("/etc/c/index.yaml", "."),
            ("https://h/index.yaml", "file:///etc/shadow"),
            ("https://h/index.yaml", "FILE:///etc/shadow"),
            ("s3://b/index.yaml", "file:///etc/shadow"),
            ("oci://r/a", "file:///etc/shadow"),
            ("s3://b/index.yaml", ".."),
            ("https://h/index.yaml", "s3://b/k"),
            ("oci://r/a", "gs://b/k"),
            ("gs://b/index.yaml", "s3://b/k"),
            ("https://h/index.yaml", "gopher://h/x"),
        ] {
            assert!(parse(index).join(reference).is_err(), "{index} {reference}");
        }
        // Of this host, not of this machine.
        assert_eq!(
            parse("https://h/c/i").join("/etc/shadow").map(|l| l.to_string()),
            Ok("https://h/etc/shadow".into())
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_files_stay_below(text in "\\PC{0,40}", reference in "[./a:%]{0,12}") {
            let _ = Location::parse(&text);
            if let Ok(Location::File(place)) = parse("/c/index.yaml").join(&reference) {
                proptest::prop_assert_eq!(place.root, Path::new("/c"));
                proptest::prop_assert!(!place.path.starts_with('/') && !place.path.split('/').any(|part| part == ".."));
            }
        }
    }
}
