//! The fault proxy between a client and the apiserver.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, WatchParams};
use quarterdeck_it::proxy::{Connection, Faults};
use quarterdeck_it::{Credentials, Proxy, eventually, shared};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::LONG;

async fn proxied() -> (Proxy, Api<Namespace>) {
    let control_plane = shared().await;
    let proxy = Proxy::start(control_plane.apiserver(0).address()).await.unwrap();
    let client = fresh_client(&proxy).await;
    (proxy, Api::all(client))
}

/// A client with no connection yet.
async fn fresh_client(proxy: &Proxy) -> Client {
    shared().await.client(&proxy.url(), &Credentials::admin()).await.unwrap()
}

/// The only connection.
fn connection(proxy: &Proxy) -> Connection {
    let open = proxy.connections();
    assert_eq!(open.len(), 1, "{open:?}");
    open[0]
}

/// Sends a request and returns it, unanswered, once its bytes are in the proxy.
async fn sent(proxy: &Proxy, api: &Api<Namespace>) -> tokio::task::JoinHandle<kube::Result<Namespace>> {
    let before = connection(proxy).from_client;
    let api = api.clone();
    let request = tokio::spawn(async move { api.get("default").await });
    eventually("bytes from the client", LONG, async || {
        ensure!(connection(proxy).from_client > before, "none");
        Ok(())
    })
    .await
    .unwrap();
    request
}

#[tokio::test]
async fn held_bytes_arrive_later() {
    let (proxy, api) = proxied().await;
    api.get("default").await.unwrap();
    proxy.set(Faults::partition());
    let before = connection(&proxy);
    let request = sent(&proxy, &api).await;
    assert_eq!(connection(&proxy).from_server, before.from_server);
    assert!(!request.is_finished());
    proxy.set(Faults::none());
    request.await.unwrap().unwrap();
    assert_eq!(connection(&proxy).id, before.id);
}

#[tokio::test]
async fn a_black_hole_swallows_requests_and_the_connection_is_cut_when_it_ends() {
    let (proxy, api) = proxied().await;
    api.get("default").await.unwrap();
    proxy.set(Faults::black_hole());
    let before = connection(&proxy);
    let request = sent(&proxy, &api).await;
    assert_eq!(connection(&proxy).from_server, before.from_server);
    proxy.set(Faults::none());
    request.await.unwrap().unwrap_err();
    api.get("default").await.unwrap();
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn lost_answers_belong_to_requests_that_were_carried_out() {
    let (proxy, api) = proxied().await;
    api.get("default").await.unwrap();
    proxy.set(Faults::lost_answers());
    let before = connection(&proxy);
    let request = sent(&proxy, &api).await;
    eventually("the answer that gets lost", LONG, async || {
        ensure!(connection(&proxy).from_server > before.from_server, "none");
        Ok(())
    })
    .await
    .unwrap();
    assert!(!request.is_finished());
    request.abort();
}

#[tokio::test]
async fn one_connection_fails_alone() {
    let (proxy, api) = proxied().await;
    api.get("default").await.unwrap();
    let first = connection(&proxy);
    assert!(proxy.set_one(first.id, Faults::black_hole()));
    let request = sent(&proxy, &api).await;
    let other: Api<Namespace> = Api::all(fresh_client(&proxy).await);
    other.get("default").await.unwrap();
    assert!(!request.is_finished());
    assert!(proxy.cut_one(first.id));
    request.await.unwrap().unwrap_err();
    assert!(!proxy.cut_one(1000));
}

#[tokio::test]
async fn answers_are_late() {
    let (proxy, api) = proxied().await;
    api.get("default").await.unwrap();
    let delay = Duration::from_millis(300);
    proxy.set(Faults::slow_answers(delay));
    let begun = Instant::now();
    api.get("default").await.unwrap();
    assert!(begun.elapsed() >= delay);
}

#[tokio::test]
async fn connections_are_refused_and_cut() {
    let (proxy, api) = proxied().await;
    let params = WatchParams::default();
    let mut events = Box::pin(api.watch(&params, "0").await.unwrap());
    events.try_next().await.unwrap();
    let mut raw = TcpStream::connect(proxy.address()).await.unwrap();
    eventually("the second connection", LONG, async || {
        ensure!(proxy.connections().len() == 2, "{:?}", proxy.connections());
        Ok(())
    })
    .await
    .unwrap();

    // Refusing leaves what is open.
    proxy.refuse().await.unwrap();
    let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(proxy.connections().len(), 2);

    proxy.cut();
    let reset = raw.read(&mut [0]).await.unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    // The watch ends, too: with an error, or (kube forgives) as if complete.
    while let Ok(Some(_)) = events.try_next().await {}
    proxy.accept().await.unwrap();
    api.get("default").await.unwrap();
}

/// A server that answers with `answer` and closes.
async fn one_answer(answer: Vec<u8>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&answer).await.unwrap();
    });
    address
}

#[tokio::test]
async fn everything_arrives_before_an_orderly_end() {
    let answer: Vec<u8> = (0..4_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let server = one_answer(answer.clone()).await;
    let proxy = Proxy::start(server).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let mut read = Vec::new();
    client.read_to_end(&mut read).await.unwrap();
    assert!(read == answer, "{} bytes of {}", read.len(), answer.len());
}
