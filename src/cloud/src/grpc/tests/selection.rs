//! Flags that ask for plug-ins.

use std::sync::Arc;

use super::scripted::Scripted;
use super::{Served, plugin_at, shared};
use crate::error::CloudError;
use crate::facility::Cloud;
use crate::grpc::{Entry, PluginUri, expand};
use crate::plugins::Folder;
use crate::provider::SharedProvider;

fn plugin(name: &str, uri: &str) -> Entry {
    Entry::Plugin { name: name.to_owned(), uri: uri.to_owned() }
}

#[test]
fn an_entry_names_a_plug_in_and_where_it_is() {
    for (entry, expected) in [
        ("sim", None),
        ("metal=/etc/inventory.yaml", None),
        ("grpc:unix:///run/cloud/acme.sock", Some(("acme", "grpc:unix:///run/cloud/acme.sock"))),
        ("acme=grpc:unix:///run/x.sock", Some(("acme", "grpc:unix:///run/x.sock"))),
        ("grpc:unix:///run/a=b.sock", Some(("a=b", "grpc:unix:///run/a=b.sock"))),
        ("grpc:https://cloud.example:443", Some(("cloud.example", "grpc:https://cloud.example:443"))),
        ("acme=grpc:https://[2001:db8::1]:443/", Some(("acme", "grpc:https://[2001:db8::1]:443/"))),
    ] {
        assert_eq!(expand(entry).unwrap(), expected.map(|(name, uri)| plugin(name, uri)), "{entry}");
    }
}

#[test]
fn an_entry_that_names_no_place_is_refused_by_name() {
    for (entry, complaint) in [
        ("grpc:unix://run/x.sock", "absolute"),
        ("grpc:unix://", "no path"),
        ("a=grpc:http://cloud.example:80", "without TLS"),
        ("a=grpc:https://cloud.example", "no port"),
        ("a=grpc:https://cloud.example:1/path", "nothing may follow"),
        ("a=grpc:tcp://x", "begin with"),
        ("grpc-dir:relative", "absolute"),
        ("grpc-dir:/nowhere/at/all", "/nowhere/at/all"),
    ] {
        let error = expand(entry).expect_err(entry);
        assert_eq!(error.flag, "cloud-provider");
        assert!(error.reason.contains(complaint), "{entry}: {}", error.reason);
    }
    assert_eq!("unix:///x.sock".parse::<PluginUri>().unwrap().to_string(), "unix:///x.sock");
}

#[test]
fn a_folder_has_a_plug_in_a_socket() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().to_owned();
    for (prefix, expected) in [("", ["a", "b"]), ("x=", ["x-a", "x-b"])] {
        let entry = format!("{prefix}grpc-dir:{}", path.display());
        let folder = Folder { prefix: prefix.strip_suffix('=').map(str::to_owned), path: path.clone() };
        assert_eq!(expand(&entry).unwrap(), Some(Entry::Folder(folder.clone())), "also if it is empty");
        for name in ["b.sock", "a.sock", "a.sock.lock", "README"] {
            std::fs::write(path.join(name), "").unwrap();
        }
        let sockets = folder.read().unwrap().sockets;
        assert_eq!(sockets.keys().collect::<Vec<_>>(), expected);
        assert_eq!(sockets[expected[0]], path.join("a.sock"));
    }
    let uri = format!("grpc:unix://{}/a.sock", path.display());
    assert_eq!(Entry::at("a", &path.join("a.sock")), plugin("a", &uri));
}

/// A hybrid cluster: nodes go to the provider of their scheme, also while another one is down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn providers_are_told_apart_by_their_schemes() {
    let with_scheme = |scheme: &str| {
        let provider = Arc::new(Scripted::default());
        provider.info.lock().schemes = vec![scheme.to_owned()];
        provider
    };
    let (red, blue) = (Served::new(shared(&with_scheme("red"))), Served::new(shared(&with_scheme("blue"))));
    let down: SharedProvider = Arc::new(plugin_at(&red.folder.path().join("nobody.sock")));
    let both = vec![("red", Arc::new(red.plugin()) as SharedProvider), ("blue", Arc::new(blue.plugin()))];
    let cloud = Cloud::of(both, "cluster-1");
    let name = |found: Option<&Arc<crate::Guarded>>| found.map(|guarded| guarded.name().to_owned());
    assert_eq!(name(cloud.of_provider_id("blue://1").await.unwrap()).as_deref(), Some("blue"));
    assert_eq!(name(cloud.of_provider_id("red://1").await.unwrap()).as_deref(), Some("red"));
    assert_eq!(name(cloud.of_provider_id("green://1").await.unwrap()), None);

    let hybrid = Cloud::of(vec![("down", down), ("blue", Arc::new(blue.plugin()))], "cluster-1");
    assert_eq!(name(hybrid.of_provider_id("blue://1").await.unwrap()).as_deref(), Some("blue"));
    // It may be of the one that is down: nobody knows.
    assert!(matches!(hybrid.of_provider_id("green://1").await, Err(CloudError::Unavailable(_))));
}
