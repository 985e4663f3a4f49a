use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::super::testing::{Stream, TestNetwork, serve};
use super::super::{Budget, FetchLimits, HostPolicy, Location};
use super::*;

fn sha(text: &str) -> String {
    format!("sha256:{}", Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// A registry of one artifact, `a/b`, with its blobs behind a redirect to a second host.
struct Registry {
    network: Arc<TestNetwork>,
    pages: Arc<Mutex<BTreeMap<String, String>>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    /// `wants` is the challenge to whoever comes without `accepted`.
    async fn new(wants: &'static str, accepted: &'static str) -> Self {
        let pages: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let (served, noted) = (Arc::clone(&pages), Arc::clone(&heads));
        let to = serve(None, move |head: String, mut stream: Box<dyn Stream>| {
            noted.lock().push(head.clone());
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let path = target.split('?').next().unwrap_or_default().to_owned();
            let page = served.lock().get(&path).cloned();
            async move {
                let at_registry = head.contains("host: r\r\n") && path.starts_with("/v2/");
                let answer = match page {
                    _ if at_registry && !head.contains(accepted) => {
                        format!("HTTP/1.1 401 Unauthorized\r\nwww-authenticate: {wants}\r\ncontent-length: 0\r\n\r\n")
                    }
                    Some(_) if at_registry && path.contains("/blobs/") => {
                        format!("HTTP/1.1 307 Temporary\r\nlocation: http://blobs{path}\r\ncontent-length: 0\r\n\r\n")
                    }
                    Some(body) => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
                    None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        let network = Arc::new(TestNetwork::default());
        for (number, host) in ["r", "blobs", "auth"].into_iter().enumerate() {
            network.host(host, &format!("203.0.114.{}:80", number + 1), to);
        }
        Self { network, pages, heads }
    }

    fn page(&self, path: &str, text: &str) {
        self.pages.lock().insert(path.to_owned(), text.to_owned());
    }

    /// Pushes files as one artifact, tagged `v1`; the manifest.
    fn push(&self, files: &[(&str, &str)]) -> String {
        let layer = |(name, text): &(&str, &str)| {
            self.page(&format!("/v2/a/b/blobs/{}", sha(text)), text);
            json!({"mediaType": "application/yaml", "digest": sha(text), "size": text.len(), "annotations": {TITLE: name}})
        };
        let manifest = json!({"schemaVersion": 2, "layers": files.iter().map(layer).collect::<Vec<_>>()}).to_string();
        self.page("/v2/a/b/manifests/v1", &manifest);
        self.page(&format!("/v2/a/b/manifests/{}", sha(&manifest)), &manifest);
        manifest
    }

    async fn fetch(&self, location: &str, etag: Option<&str>) -> Result<Fetch, FetchError> {
        let location = Location::parse(location).expect(location);
        let limits =
            FetchLimits { bytes: 1000, attempts: 1, first_wait: Duration::from_millis(1), ..FetchLimits::default() };
        let policy = HostPolicy::new([&location], []).expect("a policy");
        let fetched = Fetcher::on(Arc::clone(&self.network) as _, policy, limits, None);
        let fetched = fetched.fetch(&location, etag, &Budget::new(1 << 20)).await;
        if let Err(error) = &fetched {
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
        fetched
    }

    async fn error(&self, location: &str) -> String {
        self.fetch(location, None).await.expect_err(location).to_string()
    }
}

fn content(text: &str) -> Fetch {
    Fetch::Content { bytes: text.to_owned().into(), etag: Some(sha(text)) }
}

#[tokio::test]
async fn files_are_found_by_their_titles() {
    let registry = Registry::new("", "").await;
    let manifest = registry.push(&[("addons.yaml", "index"), ("x/a.yaml", "a")]);
    for (location, text) in [
        ("oci+http://r/a/b:v1", "index"),
        ("oci+http://r/a/b:v1#addons.yaml", "index"),
        ("oci+http://r/a/b:v1#x/a.yaml", "a"),
        (format!("oci+http://r/a/b@{}#x/a.yaml", sha(&manifest)).as_str(), "a"),
    ] {
        assert_eq!(registry.fetch(location, None).await.expect(location), content(text), "{location}");
    }
    // The index names its manifests by their titles.
    let index = Location::parse("oci+http://r/a/b:v1").expect("a location");
    assert_eq!(index.join("x/a.yaml").expect("a file").to_string(), "oci+http://r/a/b:v1#x/a.yaml");
    registry.heads.lock().clear();
    let again = registry.fetch("oci+http://r/a/b:v1#x/a.yaml", Some(&sha("a"))).await;
    assert_eq!(again.expect("an answer"), Fetch::Unchanged);
    assert_eq!(registry.heads.lock().len(), 1, "only the manifest was asked for");
    assert!(registry.error("oci+http://r/a/b:v1#none").await.contains("(there are: addons.yaml, x/a.yaml)"));
    assert!(registry.error("oci+http://r/a/b:v2").await.contains("404"));
}

#[tokio::test]
async fn every_digest_is_checked() {
    let registry = Registry::new("", "").await;
    let manifest = registry.push(&[("a.yaml", "a")]);
    registry.page(&format!("/v2/a/b/blobs/{}", sha("a")), "evil");
    assert!(registry.error("oci+http://r/a/b:v1").await.contains("the layer has the digest"));
    registry.page(&format!("/v2/a/b/manifests/{}", sha(&manifest)), "{}");
    let by_digest = format!("oci+http://r/a/b@{}", sha(&manifest));
    assert!(registry.error(&by_digest).await.contains("the artifact's manifest has the digest"));
    for (layer, message) in [
        (json!({"digest": "md5:1", "size": 1}), "404"),
        (json!({"digest": sha("a"), "size": 5000}), "larger than the 1000 bytes"),
        (
            json!({"digest": sha("a"), "size": 1, "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}),
            "an archive",
        ),
    ] {
        registry.page("/v2/a/b/manifests/v1", &json!({"layers": [layer]}).to_string());
        assert!(registry.error("oci+http://r/a/b:v1").await.contains(message), "{message}");
    }
    for (manifest, message) in [("{}", "no layer"), ("[", "not one of an image"), ("{\"layers\": 1}", "not one of")] {
        registry.page("/v2/a/b/manifests/v1", manifest);
        assert!(registry.error("oci+http://r/a/b:v1").await.contains(message), "{message}");
    }
}

#[tokio::test]
async fn a_token_is_asked_for_and_goes_to_the_registry_only() {
    let wants = r#"Bearer realm="http://auth/token?x=1",service="the service",scope="ignored""#;
    let registry = Registry::new(wants, "authorization: Bearer good").await;
    registry.push(&[("a.yaml", "a")]);
    registry.page("/token", r#"{"token": "good"}"#);
    assert_eq!(registry.fetch("oci+http://user:secret@r/a/b:v1", None).await.expect("a file"), content("a"));
    let heads = registry.heads.lock().clone();
    let basic = format!("authorization: Basic {}", base64::engine::general_purpose::STANDARD.encode("user:secret"));
    let token = heads.iter().find(|head| head.starts_with("GET /token")).expect("a token was asked for");
    assert!(token.starts_with("GET /token?x=1&scope=repository:a/b:pull&service=the%20service "), "{token}");
    assert!(token.contains(&basic), "{token}");
    let elsewhere: Vec<_> = heads.iter().filter(|head| head.contains("host: blobs")).collect();
    assert!(elsewhere.len() == 1 && !elsewhere[0].contains("authorization"), "{elsewhere:?}");
    // Anonymous.
    registry.heads.lock().clear();
    assert_eq!(registry.fetch("oci+http://r/a/b:v1", None).await.expect("a file"), content("a"));
    assert!(!registry.heads.lock().iter().any(|head| head.contains("Basic")));
    registry.page("/token", "{}");
    assert!(registry.error("oci+http://r/a/b:v1").await.contains("auth gave no token"));
    registry.page("/token", r#"{"token": "bad"}"#);
    assert!(registry.error("oci+http://r/a/b:v1").await.contains("401"));
}

#[tokio::test]
async fn passwords_work_where_no_token_is_wanted() {
    let registry = Registry::new("Basic realm=x", "authorization: Basic dXNlcjpzZWNyZXQ=").await;
    registry.push(&[("a.yaml", "a")]);
    assert_eq!(registry.fetch("oci+http://user:secret@r/a/b:v1", None).await.expect("a file"), content("a"));
    assert!(registry.error("oci+http://r/a/b:v1").await.contains("401"));
    assert!(!registry.heads.lock().iter().any(|head| head.contains("host: blobs") && head.contains("authorization")));
}

#[tokio::test]
async fn a_realm_may_not_lead_inside() {
    let registry = Registry::new(r#"Bearer realm="http://169.254.169.254/token""#, "never").await;
    assert!(registry.error("oci+http://r/a/b:v1").await.contains("not a public address"));
    let registry = Registry::new("Bearer service=x", "never").await;
    assert!(registry.error("oci+http://r/a/b:v1").await.contains("does not say where"));
}

#[test]
fn challenges_are_read() {
    let text = r#"realm="https://a/b?c=d,e", service=x, scope="repository:a/b:pull""#;
    for (name, value) in [("realm", "https://a/b?c=d,e"), ("SERVICE", "x"), ("scope", "repository:a/b:pull")] {
        assert_eq!(parameter(text, name).as_deref(), Some(value));
    }
    for text in ["", "realm", "realm=\"", "=,=,"] {
        assert!(parameter(text, "other").is_none(), "{text}");
    }
}
