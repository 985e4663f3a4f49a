//! `dashboard` on three real replicas, through a failover.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, COOKIE, HOST, LOCATION, RETRY_AFTER, SET_COOKIE};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use quarterdeck_it::{ControlPlane, Deck, Signal, eventually};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;

use super::{LONG, command};

/// Short leases: a failover is a matter of seconds.
const TIMING: [&str; 3] =
    ["--leader-elect-lease-duration=4s", "--leader-elect-renew-deadline=3s", "--leader-elect-retry-period=500ms"];

/// A browser of few words.
struct Browser {
    address: String,
    cookie: Option<String>,
}

impl Browser {
    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<Response<String>> {
        let stream = TcpStream::connect(&self.address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header(HOST, &self.address);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(cookie) = &self.cookie {
            request = request.header(COOKIE, cookie);
        }
        let sent = tokio::time::timeout(LONG, sender.send_request(request.body(Empty::<Bytes>::new())?));
        let (parts, body) = sent.await.context("no answer")??.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response::from_parts(parts, String::from_utf8_lossy(&body).into_owned()))
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Response<String>> {
        self.send(Method::GET, path, headers).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_goes_on_through_a_failover_and_is_only_ours() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let deck = Deck::builder(&control_plane).args(TIMING).start().await?;
    deck.ready(LONG).await?;
    deck.leader(LONG).await?;
    let home = tempfile::tempdir()?;
    let mut dashboard = command(home.path(), &["dashboard"])?;
    dashboard.arg("--kubeconfig").arg(control_plane.admin_kubeconfig()?).stderr(Stdio::inherit());
    // The replicas' Leases come a moment after the replicas.
    let (mut dashboard, told) = eventually("the dashboard is up", LONG, || {
        let spawned = dashboard.spawn();
        async move {
            let mut child = spawned?;
            let mut told = BufReader::new(child.stdout.take().context("its output")?).lines();
            match tokio::time::timeout(LONG, told.next_line()).await?? {
                Some(url) => Ok((child, url)),
                None => bail!("it ended"),
            }
        }
    })
    .await?;
    let (address, token) = told.strip_prefix("http://").and_then(|url| url.split_once('/')).context("a URL")?;
    assert!(address.starts_with("127.0.0.1:") && token.starts_with("?token="), "{told}");
    let mut browser = Browser { address: address.to_owned(), cookie: None };

    // Strangers: no cookie, a wrong token, another host's name, another site's page.
    for (path, headers, code) in [
        ("/status", &[][..], 401),
        ("/statusz", &[("accept", "application/json")], 401),
        ("/", &[], 401),
        ("/?token=wrong", &[], 403),
        ("/?token=", &[("host", "rebound.example")], 421),
    ] {
        let answer = browser.get(path, headers).await?;
        assert_eq!(answer.status().as_u16(), code, "{path} {headers:?}: {}", answer.body());
        assert!(!answer.body().contains("quarterdeck-0"), "{path}: {}", answer.body());
    }
    let entered = browser.get(&format!("/{token}"), &[("sec-fetch-site", "cross-site")]).await?;
    assert_eq!(entered.status().as_u16(), 200);
    assert!(entered.headers().get(LOCATION).is_none() && entered.body().contains("url=/status"), "{entered:?}");
    let cookie = entered.headers().get(SET_COOKIE).context("a cookie")?.to_str()?.to_owned();
    assert!(cookie.contains("SameSite=Strict") && cookie.contains("HttpOnly"), "{cookie}");
    browser.cookie = cookie.split(';').next().map(str::to_owned);
    for (path, headers, code) in [
        ("/status", &[("host", "rebound.example")][..], 421),
        ("/statusz", &[("sec-fetch-site", "cross-site")], 403),
        ("/metrics", &[], 404),
        ("/configz", &[], 404),
    ] {
        let answer = browser.get(path, headers).await?;
        assert_eq!(answer.status().as_u16(), code, "{path} {headers:?}: {}", answer.body());
    }
    assert_eq!(browser.send(Method::POST, "/status", &[]).await?.status().as_u16(), 405);

    // The page and its data.
    let page = browser.get("/status", &[("accept", "text/html")]).await?;
    assert!(page.status().is_success() && page.body().contains("<html"), "{page:?}");
    assert_eq!(page.headers().get(CACHE_CONTROL).context("a header")?, "no-store");
    assert!(browser.get("/status?part=live", &[]).await?.status().is_success());
    let head = browser.send(Method::HEAD, "/status", &[]).await?;
    assert!(head.status().is_success() && head.body().is_empty());

    // The leader dies; whoever polls sees a survivor, and at worst is told to come again.
    let leader = async || -> Result<Option<String>> {
        let answer = browser.get("/statusz", &[(ACCEPT.as_str(), "application/json")]).await?;
        if answer.status().as_u16() == 503 {
            ensure!(answer.headers().contains_key(RETRY_AFTER), "{answer:?}");
            return Ok(None);
        }
        ensure!(answer.status().is_success(), "{answer:?}");
        let told: Value = serde_json::from_str(answer.body())?;
        let election = &told["status"]["election"];
        Ok((election["leading"] == true).then(|| election["identity"].as_str().unwrap_or_default().to_owned()))
    };
    let (before, first) = eventually("the leader tells, and is one of the replicas", LONG, || async {
        let before = leader().await?.context("nobody leads")?;
        for replica in deck.replicas() {
            if replica.status().await?.identity() == Some(&before) {
                return Ok((before, replica));
            }
        }
        bail!("{before} is none of them")
    })
    .await?;
    first.process().signal(Signal::SIGKILL)?;
    let polled = async {
        loop {
            match leader().await? {
                Some(identity) if identity != before => return Ok::<_, anyhow::Error>(()),
                _ => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    };
    tokio::time::timeout(LONG, polled).await.context("the page does not come to the next leader")??;
    let page = browser.get("/status", &[("accept", "text/html")]).await?;
    assert!(page.status().is_success(), "{page:?}");

    // It ends in order when it is told to.
    let pid = i32::try_from(dashboard.id().context("it runs")?)?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGINT)?;
    let ended = tokio::time::timeout(LONG, dashboard.wait()).await??;
    assert_eq!(ended.code(), Some(0));
    Ok(())
}
