//! Files of artifacts in registries, by the distribution protocol (OCI distribution-spec v1.1): a
//! manifest, and the blob of the layer that has the file's name as its title.
//!
//! Whatever is read is held to its digest. Registries are asked anonymously, or with the user and
//! password of the location; a token is asked for where the registry wants one.

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::fetch::{Fetch, FetchError, Fetcher};
use super::http::{Answer, Ask, basic, header};
use super::place::OciPlace;
use super::url::HttpUrl;

/// Largest manifest of an artifact, bytes.
const MANIFEST_BYTES: u64 = 4 << 20;
/// Largest answer with a token, bytes.
const TOKEN_BYTES: u64 = 64 << 10;
/// Manifests that are understood.
const MANIFESTS: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
/// Annotation of a layer with the name of its file.
const TITLE: &str = "org.opencontainers.image.title";
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Fetcher {
    /// `etag` is the digest of the layer that was read last.
    pub(super) async fn oci(&self, place: &OciPlace, etag: Option<&str>, limit: u64) -> Result<Fetch, FetchError> {
        let mut authorization = None;
        let manifest = format!("manifests/{}", place.reference);
        let answer = self.registry(place, &manifest, MANIFEST_BYTES, &mut authorization).await?;
        let wanted = place.reference.strip_prefix("sha256:").map(|_| place.reference.as_str());
        if let Some(digest) = wanted.or_else(|| header(&answer.headers, &CONTENT_DIGEST)) {
            check(&answer.body, digest, "the artifact's manifest")?;
        }
        let parsed: Manifest = serde_json::from_slice(&answer.body).map_err(|_| {
            FetchError::Registry("the artifact's manifest is not one of an image or artifact".to_owned())
        })?;
        let layer = layer(&parsed.layers, &place.file)?;
        if etag == Some(layer.digest.as_str()) {
            return Ok(Fetch::Unchanged);
        }
        if layer.size > limit {
            return Err(FetchError::TooLarge { limit });
        }
        let blob = format!("blobs/{}", layer.digest);
        let answer = self.registry(place, &blob, limit, &mut authorization).await?;
        check(&answer.body, &layer.digest, "the layer")?;
        Ok(Fetch::Content { bytes: answer.body, etag: Some(layer.digest.clone()) })
    }

    /// Asks a registry, and once more with what it wants to be asked with.
    async fn registry(
        &self,
        place: &OciPlace,
        what: &str,
        limit: u64,
        authorization: &mut Option<HeaderValue>,
    ) -> Result<Answer, FetchError> {
        let url = HttpUrl { path: format!("/v2/{}/{what}", place.repository), ..place.registry.clone() };
        for first in [true, false] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(MANIFESTS));
            if let Some(value) = authorization.as_ref() {
                headers.insert(AUTHORIZATION, value.clone());
            }
            let answer = self.http.get(&Ask { url: &url, headers, limit }).await?;
            match answer.status {
                StatusCode::OK => return Ok(answer),
                StatusCode::UNAUTHORIZED if first => {
                    let challenge = header(&answer.headers, &WWW_AUTHENTICATE).unwrap_or_default();
                    *authorization = Some(self.answer_challenge(place, challenge).await?);
                }
                status => return Err(FetchError::Status(status)),
            }
        }
        Err(FetchError::Status(StatusCode::UNAUTHORIZED))
    }

    async fn answer_challenge(&self, place: &OciPlace, challenge: &str) -> Result<HeaderValue, FetchError> {
        let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            let credentials = place.registry.basic_credentials().ok_or(FetchError::Status(StatusCode::UNAUTHORIZED))?;
            return Ok(basic(&credentials));
        }
        let parameter = |name: &str| parameter(parameters, name);
        let no_realm = || FetchError::Registry("the registry asks for a token and does not say where".to_owned());
        let mut realm = HttpUrl::parse(&parameter("realm").ok_or_else(no_realm)?).map_err(|_| no_realm())?;
        if place.registry.secure && !realm.secure {
            return Err(FetchError::Downgrade { from: place.registry.host.clone(), to: realm.host });
        }
        let scope = format!("repository:{}:pull", place.repository);
        let mut query = realm.query.take().map(|query| format!("{query}&")).unwrap_or_default();
        query.push_str(&format!("scope={}", escaped(&scope)));
        if let Some(service) = parameter("service") {
            query.push_str(&format!("&service={}", escaped(&service)));
        }
        realm.query = Some(query);
        realm.credentials.clone_from(&place.registry.credentials);
        let answer = self.http.get(&Ask { url: &realm, headers: HeaderMap::new(), limit: TOKEN_BYTES }).await?;
        if answer.status != StatusCode::OK {
            return Err(FetchError::Status(answer.status));
        }
        let no_token = || FetchError::Registry(format!("{} gave no token", realm.host));
        let token: Token = serde_json::from_slice(&answer.body).map_err(|_| no_token())?;
        let token = token.token.or(token.access_token).ok_or_else(no_token)?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| no_token())?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// The layer with a file; without a name the first.
fn layer<'a>(layers: &'a [Layer], file: &str) -> Result<&'a Layer, FetchError> {
    let title = |layer: &Layer| layer.annotations.as_ref().and_then(|annotations| annotations.get(TITLE)).cloned();
    let found = match file {
        "" => layers.first(),
        file => layers.iter().find(|layer| title(layer).as_deref() == Some(file)),
    };
    let layer = found.ok_or_else(|| match file {
        "" => FetchError::Registry("the artifact has no layer".to_owned()),
        file => {
            let titles: Vec<String> = layers.iter().filter_map(title).take(10).collect();
            FetchError::Registry(format!(
                "no layer of the artifact is called {file:?} (there are: {})",
                titles.join(", ")
            ))
        }
    })?;
    let is_archive = ["gzip", "zstd", "tar"].iter().any(|packed| layer.media_type.contains(packed));
    if is_archive {
        let message = format!("the layer is an archive ({}); push the file as it is, as oras does", layer.media_type);
        return Err(FetchError::Registry(message));
    }
    Ok(layer)
}

fn check(bytes: &Bytes, digest: &str, what: &str) -> Result<(), FetchError> {
    let actual: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    match digest.strip_prefix("sha256:") {
        Some(wanted) if wanted.eq_ignore_ascii_case(&actual) => Ok(()),
        Some(wanted) => Err(FetchError::Registry(format!("{what} has the digest {actual}, not {wanted}"))),
        None => {
            let algorithm: String = digest.chars().take(20).collect();
            Err(FetchError::Registry(format!("{what} is named by {algorithm:?}, which is no SHA-256")))
        }
    }
}

/// A parameter of a challenge: `name="value"` or `name=value`.
fn parameter(text: &str, name: &str) -> Option<String> {
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_start_matches([',', ' ']).trim();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(value.trim().to_owned());
        }
        rest = next;
    }
    None
}

/// For a query's value.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/' | b':') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
#[path = "oci_tests.rs"]
mod tests;
