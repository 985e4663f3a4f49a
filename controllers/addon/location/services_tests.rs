//! Against services as they are run: `hack/test-stores` starts them, says where they are, and runs
//! these tests.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::url::HttpUrl;
use super::{Budget, Fetch, FetchError, FetchLimits, Fetcher, HostPolicy, Location};

fn fetcher(location: &Location) -> Fetcher {
    let limits = FetchLimits { bytes: 1000, ..FetchLimits::default() };
    Fetcher::new(HostPolicy::new([location], []).expect("a policy"), limits)
}

async fn fetch(fetcher: &Fetcher, location: &Location, etag: Option<&str>) -> Result<Fetch, FetchError> {
    fetcher.fetch(location, etag, &Budget::new(1 << 20)).await
}

async fn store_keeps_its_promises(bucket: &str) {
    let index = Location::parse(&format!("{bucket}/c/index.yaml")).expect("a location");
    let Location::Object(place) = &index else { panic!("{index}") };
    let fetcher = fetcher(&index);
    let put = async |key: &str, text: &str| {
        let store = fetcher.stores.open(place).expect("a store");
        store.put(&Path::from(key), PutPayload::from(text.to_owned())).await.expect("an object is put");
    };
    put("c/index.yaml", "index").await;
    put("c/a b/ü.yaml", "manifest").await;
    put("large.yaml", &"x".repeat(2000)).await;
    let Ok(Fetch::Content { bytes, etag: Some(etag) }) = fetch(&fetcher, &index, None).await else {
        panic!("no content and ETag");
    };
    assert_eq!(bytes, "index");
    assert_eq!(fetch(&fetcher, &index, Some(&etag)).await.expect("an answer"), Fetch::Unchanged);
    put("c/index.yaml", "another").await;
    let changed = fetch(&fetcher, &index, Some(&etag)).await.expect("an answer");
    assert!(matches!(changed, Fetch::Content { ref bytes, .. } if bytes == "another"), "{changed:?}");
    let manifest = index.join("a b/ü.yaml").expect("a location");
    let found = fetch(&fetcher, &manifest, None).await.expect("an answer");
    assert!(matches!(found, Fetch::Content { ref bytes, .. } if bytes == "manifest"), "{found:?}");
    let large = index.join("../large.yaml").expect("a location");
    let error = fetch(&fetcher, &large, None).await.expect_err("too large");
    assert!(matches!(error, FetchError::TooLarge { limit: 1000 }), "{error}");
    let missing = index.join("none.yaml").expect("a location");
    let error = fetch(&fetcher, &missing, None).await.expect_err("missing");
    assert!(!error.is_transient() && error.to_string().contains("none.yaml"), "{error}");
}

#[tokio::test]
async fn s3_keeps_its_promises() {
    store_keeps_its_promises("s3://channels").await;
}

#[tokio::test]
async fn google_keeps_its_promises() {
    store_keeps_its_promises("gs://channels").await;
}

#[tokio::test]
async fn azure_keeps_its_promises() {
    store_keeps_its_promises("azureblob://channels").await;
}

#[tokio::test]
async fn a_registry_keeps_its_promises() {
    let address = std::env::var("QUARTERDECK_TEST_REGISTRY").expect("hack/test-stores says where the registry is");
    let index = Location::parse(&format!("oci+http://{address}/a/channel:v1")).expect("a location");
    let fetcher = fetcher(&index);
    let push = async |method: Method, target: &str, media_type: &str, text: &str| {
        let url = HttpUrl::parse(&format!("http://{address}{target}")).expect("a URL");
        let request = Request::builder().method(method).uri(url.target()).header("host", url.authority());
        let request = request.header("content-type", media_type).header("content-length", text.len());
        let request = request.body(Full::new(Bytes::from(text.to_owned()))).expect("a request");
        let open = fetcher.http.exchange(&url, request).await.expect("an answer");
        assert_eq!(open.head.status, StatusCode::CREATED, "{target}");
    };
    let digest = |text: &str| {
        format!("sha256:{}", Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    let files = [("addons.yaml", "index"), ("a.yaml", "manifest"), ("config", "{}")];
    for (_, text) in files {
        let target = format!("/v2/a/channel/blobs/uploads/?digest={}", digest(text));
        push(Method::POST, &target, "application/octet-stream", text).await;
    }
    let layer = |(name, text): &(&str, &str)| {
        json!({
            "mediaType": "application/yaml", "digest": digest(text), "size": text.len(),
            "annotations": {"org.opencontainers.image.title": name},
        })
    };
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest("{}"), "size": 2},
        "layers": files[..2].iter().map(layer).collect::<Vec<_>>(),
    });
    push(Method::PUT, "/v2/a/channel/manifests/v1", media_type, &manifest.to_string()).await;
    let expected = |text: &str| Fetch::Content { bytes: text.to_owned().into(), etag: Some(digest(text)) };
    assert_eq!(fetch(&fetcher, &index, None).await.expect("the index"), expected("index"));
    let named = index.join("a.yaml").expect("a location");
    assert_eq!(fetch(&fetcher, &named, None).await.expect("a manifest"), expected("manifest"));
    let pinned = format!("oci+http://{address}/a/channel@{}#a.yaml", digest(&manifest.to_string()));
    let pinned = Location::parse(&pinned).expect("a location");
    assert_eq!(fetch(&fetcher, &pinned, None).await.expect("a manifest"), expected("manifest"));
    assert_eq!(fetch(&fetcher, &index, Some(&digest("index"))).await.expect("an answer"), Fetch::Unchanged);
    let missing = Location::parse(&format!("oci+http://{address}/a/channel:v2")).expect("a location");
    assert!(fetch(&fetcher, &missing, None).await.expect_err("missing").to_string().contains("404"));
}
