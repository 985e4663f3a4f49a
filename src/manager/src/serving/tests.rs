use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use http::Method;
use tokio::io::AsyncReadExt as _;

use super::testing::{Authority, FakeReviews, Running, start};
use super::*;

fn reviews() -> FakeReviews {
    FakeReviews {
        tokens: BTreeMap::from([("good", ("ann", vec!["readers"])), ("root", ("root", vec!["system:masters"]))]),
        readers: parking_lot::Mutex::new(vec!["ann".into(), "carl".into()]),
        ..FakeReviews::default()
    }
}

fn plain() -> Running {
    start(&[], reviews(), Limits::default())
}

const GOOD: [(&str, &str); 1] = [("authorization", "Bearer good")];

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn anonymous_reads_open_paths_and_nothing_else() {
    let server = plain();
    for path in ["/healthz", "/livez", "/readyz", "/readyz?verbose"] {
        assert_eq!(server.get(path, &[]).await.status, 200, "{path}");
    }
    assert_eq!(server.reviews.access_calls.load(Ordering::Relaxed), 0);
    for path in ["/metrics", "/healthz/ping", "/nothing", "/"] {
        let got = server.get(path, &[]).await;
        assert_eq!(got.status, 403, "{path}");
        let status = json(&got.body);
        assert_eq!(status["message"], format!("forbidden: User \"system:anonymous\" cannot get path {path:?}"));
        assert_eq!(
            (status["kind"].as_str(), status["reason"].as_str(), status["code"].as_i64()),
            (Some("Status"), Some("Forbidden"), Some(403))
        );
        assert_eq!(got.headers["content-type"], "application/json");
        assert_eq!(got.headers["cache-control"], "no-cache, private");
        assert_eq!(got.headers["x-content-type-options"], "nosniff");
    }
    assert_eq!(server.reviews.last.lock()["groups"], serde_json::json!(["system:unauthenticated"]));
    assert_eq!(server.reviews.token_calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn tokens_are_reviewed_once_and_wrong_ones_refused() {
    let server = plain();
    for _ in 0..3 {
        assert_eq!(server.get("/metrics", &GOOD).await.status, 200);
    }
    assert_eq!(server.reviews.token_calls.load(Ordering::Relaxed), 1);
    assert_eq!(server.reviews.access_calls.load(Ordering::Relaxed), 1);
    assert_eq!(
        *server.reviews.last.lock(),
        serde_json::json!({
            "user": "ann",
            "groups": ["readers", "system:authenticated"],
            "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        })
    );
    for _ in 0..2 {
        let got = server.get("/healthz", &[("authorization", "Bearer bad")]).await;
        assert_eq!(got.status, 401);
        assert_eq!(json(&got.body)["reason"], "Unauthorized");
    }
    assert_eq!(server.reviews.token_calls.load(Ordering::Relaxed), 2);
    // Another verb or path is another question.
    assert_eq!(server.get("/version", &GOOD).await.status, 200);
    let mut client = server.connect(false, None).await;
    assert_eq!(client.send(Method::DELETE, "/metrics/slis", &GOOD, "").await.body, "metrics reset\n");
    assert_eq!(server.reviews.last.lock()["nonResourceAttributes"]["verb"], "delete");
    assert_eq!(server.reviews.access_calls.load(Ordering::Relaxed), 3);
    // system:masters is never asked about.
    assert_eq!(server.get("/configz", &[("authorization", "Bearer root")]).await.status, 200);
    assert_eq!(server.reviews.access_calls.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn without_answers_nothing_opens() {
    let server = plain();
    server.reviews.broken.store(true, Ordering::Relaxed);
    assert_eq!(server.get("/metrics", &GOOD).await.status, 401);
    let got = server.get("/metrics", &[]).await;
    assert_eq!((got.status.as_u16(), got.body.contains("the server is away")), (500, true), "{got:?}");
    assert_eq!(server.get("/healthz", &[]).await.status, 200);
    // Errors are not remembered.
    server.reviews.broken.store(false, Ordering::Relaxed);
    assert_eq!(server.get("/metrics", &GOOD).await.status, 200);
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn client_certificates_name_users_and_groups() {
    let dir = tempfile::tempdir().unwrap();
    let (users, strangers) = (Authority::new("users"), Authority::new("strangers"));
    let ca = format!("--client-ca-file={}", write(dir.path(), "ca.crt", &users.pem));
    let server = start(&[ca], reviews(), Limits::default());
    assert!(server.trust.needs_cluster(), "the front proxy is still to be looked up");

    let carl = users.sign(&[], "carl", &["ops", "dev"]);
    assert_eq!(server.get_as(&carl, "/metrics", &[]).await.status, 200);
    let asked = server.reviews.last.lock().clone();
    assert_eq!(asked["user"], "carl");
    assert_eq!(asked["groups"], serde_json::json!(["ops", "dev", "system:authenticated"]));
    let credential = asked["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap();
    assert!(credential.starts_with("X509SHA256=") && credential.len() == 11 + 64, "{credential}");

    let master = users.sign(&[], "root", &["system:masters"]);
    assert_eq!(server.get_as(&master, "/anything", &[]).await.status, 404);
    let dora = users.sign(&[], "dora", &[]);
    let got = server.get_as(&dora, "/metrics", &[]).await;
    assert!(got.status == 403 && got.body.contains("User \\\"dora\\\" cannot get"), "{got:?}");

    // Signed by someone else, no longer valid: refused, also for open paths.
    let stranger = strangers.sign(&[], "carl", &[]);
    let past = users.sign_until(&[], "carl", &[], SystemTime::now() - Duration::from_secs(60));
    for wrong in [&stranger, &past] {
        assert_eq!(server.get_as(wrong, "/healthz", &[]).await.status, 401);
        // Unless another credential is right.
        assert_eq!(server.get_as(wrong, "/metrics", &GOOD).await.status, 200);
    }
    // Without a common name it is no credential.
    let nameless = users.sign(&[], "", &["ops"]);
    assert_eq!(server.get_as(&nameless, "/healthz", &[]).await.status, 200);
}

#[tokio::test]
async fn authorities_change_under_a_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server = start(&[], reviews(), Limits::default());
    let carl = old.sign(&[], "carl", &[]);
    let mut connection = server.connect(true, Some(&carl)).await;
    // Nobody to believe yet: not looked at.
    assert_eq!(connection.send(Method::GET, "/healthz", &[], "").await.status, 200);

    let data = |pem: &str| BTreeMap::from([("client-ca-file".to_owned(), pem.to_owned())]);
    server.trust.update(&data(&old.pem)).unwrap();
    assert_eq!(connection.send(Method::GET, "/metrics", &[], "").await.status, 200);
    // What cannot be used, or is missing, changes nothing.
    assert!(
        server.trust.update(&data("nonsense")).unwrap_err().to_string().contains("client-ca-file: holds no usable")
    );
    server.trust.update(&BTreeMap::new()).unwrap();
    assert_eq!(connection.send(Method::GET, "/metrics", &[], "").await.status, 200);
    server.trust.update(&data(&new.pem)).unwrap();
    assert_eq!(connection.send(Method::GET, "/metrics", &[], "").await.status, 401);

    // A flag wins over the cluster, and a bad file stops the start.
    let ca = format!("--client-ca-file={}", write(dir.path(), "ca.crt", &old.pem));
    let flagged = start(&[ca], reviews(), Limits::default());
    flagged.trust.update(&data(&new.pem)).unwrap();
    assert_eq!(flagged.get_as(&carl, "/metrics", &[]).await.status, 200);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    for (file, reason) in [("none".to_owned(), "No such file"), (write(dir.path(), "bad", "x"), "holds no usable")] {
        let flags = testing::flags(&[format!("--client-ca-file={file}")]);
        let error = Trust::from_flags(&flags, Arc::clone(&provider)).unwrap_err().to_string();
        assert!(error.starts_with("--client-ca-file: ") && error.contains(reason), "{error}");
    }
}

#[tokio::test]
async fn only_the_front_proxy_names_users_in_headers() {
    let (proxies, users) = (Authority::new("proxies"), Authority::new("users"));
    let server = plain();
    let data = BTreeMap::from(
        [
            ("client-ca-file", users.pem.as_str()),
            ("requestheader-client-ca-file", proxies.pem.as_str()),
            ("requestheader-allowed-names", r#"["front-proxy-client"]"#),
            ("requestheader-username-headers", r#"["X-Remote-User"]"#),
            ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
            ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    server.trust.update(&data).unwrap();
    let claims = [("x-remote-user", "carl"), ("x-remote-group", "g"), ("x-remote-extra-a", "b")];
    let proxy = proxies.sign(&[], "front-proxy-client", &[]);
    assert_eq!(server.get_as(&proxy, "/metrics", &claims).await.status, 200);
    let asked = server.reviews.last.lock().clone();
    assert_eq!((asked["user"].as_str(), &asked["extra"]), (Some("carl"), &serde_json::json!({"a": ["b"]})));
    assert_eq!(asked["groups"], serde_json::json!(["g", "system:authenticated"]));

    // Nobody else: not another name, not a user, not a client without a certificate.
    let other = proxies.sign(&[], "someone", &[]);
    assert_eq!(server.get_as(&other, "/metrics", &claims).await.status, 401);
    let dora = users.sign(&[], "dora", &[]);
    assert_eq!(server.get_as(&dora, "/metrics", &claims).await.status, 403);
    assert_eq!(server.get("/metrics", &claims).await.status, 403);

    let broken = BTreeMap::from([
        ("requestheader-client-ca-file".to_owned(), proxies.pem.clone()),
        ("requestheader-allowed-names".to_owned(), "front-proxy-client".to_owned()),
    ]);
    let error = server.trust.update(&broken).unwrap_err().to_string();
    assert!(error.contains("requestheader-allowed-names"), "{error}");
    assert_eq!(server.get_as(&proxy, "/metrics", &claims).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn the_clusters_settings_are_followed() {
    let users = Authority::new("users");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trust = Arc::new(Trust::from_flags(&testing::flags(&[]), provider).unwrap());
    let (fetched, stop) = (Arc::new(AtomicU32::new(0)), tokio_util::sync::CancellationToken::new());
    let (pem, count) = (users.pem.clone(), Arc::clone(&fetched));
    let fetch = move || {
        let (pem, round) = (pem.clone(), count.fetch_add(1, Ordering::Relaxed));
        async move {
            match round {
                0 => Err("the server is away"),
                1 => Ok(Some(BTreeMap::from([("client-ca-file".to_owned(), pem)]))),
                _ => Ok(None),
            }
        }
    };
    let (period, retry) = (Duration::from_secs(60), Duration::from_secs(2));
    let task = tokio::spawn(Arc::clone(&trust).follow_cluster(fetch, period, retry, stop.clone()));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(trust.client_ca().is_none());
    let waits = trust.waits_for_cluster().expect("it is still to be asked");
    assert!(waits.contains("the server is away"), "{waits}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(trust.client_ca().is_some());
    assert_eq!(trust.waits_for_cluster(), None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(trust.client_ca().is_some(), "gone from the cluster is no reason to forget");
    assert_eq!(fetched.load(Ordering::Relaxed), 3);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn health_is_told_as_upstream_does() {
    let server = plain();
    let well = Arc::new(AtomicBool::new(true));
    let check = Arc::clone(&well);
    server.checks.add(&[Probe::Healthz, Probe::Livez], "leaderElection", move || {
        if check.load(Ordering::Relaxed) { Ok(()) } else { Err("failed to renew".into()) }
    });
    let got = server.get("/healthz", &[]).await;
    assert_eq!(
        (got.body.as_str(), &got.headers["content-type"]),
        ("ok", &"text/plain; charset=utf-8".parse().unwrap())
    );
    let body = |path: &'static str| {
        let server = &server;
        async move {
            let got = server.get(path, &GOOD).await;
            (got.status.as_u16(), got.body)
        }
    };
    let told = |code: u16, text: &str| (code, text.to_owned());
    assert_eq!(body("/healthz?verbose").await, told(200, "[+]ping ok\n[+]leaderElection ok\nhealthz check passed\n"));
    assert_eq!(body("/readyz?verbose=true").await, told(200, "[+]ping ok\nreadyz check passed\n"));
    assert_eq!(body("/livez/leaderElection").await, told(200, "ok"));
    assert_eq!(body("/readyz/leaderElection").await.0, 404);
    assert_eq!(body("/healthz/").await.0, 404);

    well.store(false, Ordering::Relaxed);
    assert_eq!(
        body("/healthz").await,
        told(500, "[+]ping ok\n[-]leaderElection failed: reason withheld\nhealthz check failed\n")
    );
    assert_eq!(body("/livez/leaderElection").await, told(500, "internal server error: failed to renew\n"));
    assert_eq!(body("/readyz").await, told(200, "ok"));
    assert_eq!(body("/healthz?exclude=leaderElection").await, told(200, "ok"));
    assert_eq!(
        body("/healthz?verbose&exclude=leaderElection&exclude=no%20such").await,
        told(
            200,
            "[+]ping ok\n[+]leaderElection excluded: ok\n\
             warn: some health checks cannot be excluded: no matches for \"no such\"\nhealthz check passed\n"
        )
    );

    let slis = body("/metrics/slis").await.1;
    assert!(slis.contains("kubernetes_healthcheck{name=\"leaderElection\",type=\"livez\"} 0\n"), "{slis}");
    assert!(
        slis.contains("kubernetes_healthchecks_total{name=\"leaderElection\",status=\"error\",type=\"healthz\"} 1\n")
    );
    assert!(
        slis.contains("kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"readyz\"} 2\n"),
        "{slis}"
    );

    server.checks.add(&[Probe::Healthz], "bad", || panic!("on purpose"));
    assert!(body("/healthz").await.1.contains("[-]bad failed"));
    server.checks.remove("bad");
    server.checks.remove("leaderElection");
    assert_eq!(body("/healthz?verbose").await, told(200, "[+]ping ok\nhealthz check passed\n"));
}

#[tokio::test]
async fn every_page_answers() {
    let server = plain();
    for name in ["quarterdeck_wanted", "quarterdeck_unwanted"] {
        let counter = prometheus::IntCounter::new(name, "Help.").unwrap();
        server.registry.register(Box::new(counter)).unwrap();
    }
    let metrics = server.get("/metrics", &GOOD).await;
    assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert!(metrics.body.contains("quarterdeck_wanted 0\n") && !metrics.body.contains("quarterdeck_unwanted"));
    assert!(metrics.body.contains("quarterdeck_serving_connections 1\n"), "{}", metrics.body);
    assert!(metrics.body.contains("quarterdeck_serving_certificate_expiry_timestamp_seconds "));

    assert_eq!(json(&server.get("/configz", &GOOD).await.body), serde_json::json!({"quarterdeck.dev": {}}));
    let version = json(&server.get("/version", &GOOD).await.body);
    assert_eq!(
        (&version["major"], &version["minor"], &version["gitVersion"]),
        (&"0".into(), &"1".into(), &"v0.1.0".into())
    );

    let page = server.get("/statusz", &GOOD).await.body;
    assert!(page.starts_with("\nquarterdeck statusz\nWarning: "), "{page}");
    assert!(page.contains("Paths: /configz /flagz ") && page.ends_with("\nLeader: one\nState: standby\n"), "{page}");
    let accept = [GOOD[0], ("accept", "application/json;as=Statusz;v=v1beta1;g=config.k8s.io")];
    let object = json(&server.get("/statusz", &accept).await.body);
    assert_eq!((&object["kind"], &object["apiVersion"]), (&"Statusz".into(), &"config.k8s.io/v1beta1".into()));
    assert_eq!((&object["status"]["leader"], &object["binaryVersion"]), (&"one".into(), &"0.1.0".into()));
    assert!(object["startTime"].as_str().unwrap().ends_with('Z'), "{object}");
    assert!(server.get("/flagz", &GOOD).await.body.ends_with("\nleader-elect=true\n"));
    assert_eq!(json(&server.get("/flagz", &accept).await.body)["flags"]["leader-elect"], "true");
    assert_eq!(server.get("/flagz", &[GOOD[0], ("accept", "image/png")]).await.status, 406);

    let got = server.get("/nothing", &GOOD).await;
    assert_eq!((got.status.as_u16(), got.body.as_str()), (404, "404 page not found\n"));
    let mut client = server.connect(true, None).await;
    assert_eq!(client.send(Method::POST, "/metrics", &GOOD, "").await.status, 405);
    let head = client.send(Method::HEAD, "/healthz", &[], "").await;
    assert_eq!((head.status.as_u16(), head.body.as_str()), (200, ""));
    assert_eq!(client.send(Method::PUT, "/debug/flags/v", &GOOD, "5").await.body, "successfully set -v to 5\n");
    assert_eq!(client.send(Method::GET, "/debug/flags/v", &GOOD, "").await.body, "5\n");
    assert_eq!(client.send(Method::PUT, "/debug/flags/v", &GOOD, "x").await.status, 400);
}

#[tokio::test]
async fn certificates_are_reloaded_under_load() {
    let server = plain();
    let (cert, key) = (server.dir.path().join("tls.crt"), server.dir.path().join("tls.key"));
    let done = Arc::new(AtomicBool::new(false));
    let loops = (0..4).map(|at| {
        let (done, server) = (Arc::clone(&done), &server);
        async move {
            let mut served = 0_u32;
            let mut kept = server.connect(true, None).await;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(
                    server.connect(at % 2 == 0, None).await.send(Method::GET, "/healthz", &[], "").await.status,
                    200
                );
                assert_eq!(kept.send(Method::GET, "/healthz", &[], "").await.status, 200);
                served += 2;
            }
            served
        }
    });
    let expiry = || async {
        let page = server.get("/metrics", &GOOD).await.body;
        let line = page.lines().find(|line| line.starts_with("quarterdeck_serving_certificate_expiry")).unwrap();
        line.split(' ').nth(1).unwrap().parse::<f64>().unwrap()
    };
    let swap = async {
        let mut seen = expiry().await;
        for round in 1_u64..=2 {
            // Halfway through a change the pair does not fit together.
            std::fs::write(&cert, "half").unwrap();
            let end = SystemTime::now() + Duration::from_secs(86_400 * round);
            server.serving_authority.sign_until(&["localhost"], "next", &[], end).write(&cert, &key);
            let before = seen;
            while seen <= before {
                seen = expiry().await;
            }
        }
        done.store(true, Ordering::Relaxed);
    };
    let (served, ()) = futures::join!(futures::future::join_all(loops), swap);
    assert!(served.iter().sum::<u32>() > 0);
}

#[tokio::test]
async fn clients_are_kept_within_limits() {
    let limits = Limits { connections: 2, head_bytes: 16 << 10, body_bytes: 100, ..Limits::default() };
    let server = start(&[], reviews(), limits);
    // Connections that say nothing make room for those that do.
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(tokio::net::TcpStream::connect(server.address).await.unwrap());
    }
    assert_eq!(server.get("/healthz", &[]).await.status, 200);
    let mut ended = 0;
    for stream in &mut silent[..4] {
        ended += usize::from(stream.read(&mut [0]).await.is_ok_and(|read| read == 0));
    }
    assert_eq!(ended, 4);
    drop(silent);

    let long = "x".repeat(40 << 10);
    let mut client = server.connect(false, None).await;
    let got = client.try_send(Method::GET, "/healthz", &[("x-long", &long)], "").await;
    assert!(got.as_ref().is_err() || got.as_ref().is_ok_and(|got| got.status == 431), "{got:?}");
    let mut client = server.connect(false, None).await;
    assert_eq!(client.send(Method::PUT, "/debug/flags/v", &GOOD, &long).await.status, 413);
}

#[tokio::test]
async fn the_server_name_chooses_the_certificate() {
    let server = plain();
    for (name, authority, expected) in [
        ("api.example", &server.named_authority, true),
        ("localhost", &server.serving_authority, true),
        ("api.example", &server.serving_authority, false),
        ("localhost", &server.named_authority, false),
    ] {
        let connected = testing::connect(server.address, (name, authority), true, None).await;
        assert_eq!(connected.is_ok(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_panic_costs_one_request() {
    let server = plain();
    for http2 in [false, true] {
        let mut client = server.connect(http2, None).await;
        let got = client.send(Method::GET, "/metrics", &[("authorization", "Bearer panic")], "").await;
        assert_eq!(got.status, 500);
        assert_eq!(client.send(Method::GET, "/metrics", &GOOD, "").await.status, 200);
    }
}

#[tokio::test]
async fn stops_when_told() {
    let server = plain();
    let mut kept = server.connect(true, None).await;
    assert_eq!(kept.send(Method::GET, "/healthz", &[], "").await.status, 200);
    server.stop.cancel();
    server.task.await.unwrap();
    assert!(kept.try_send(Method::GET, "/healthz", &[], "").await.is_err());
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let server = plain();
    let mut settings = Settings::from_flags(
        &testing::flags(&["--bind-address=127.0.0.1".into(), format!("--secure-port={}", server.address.port())]),
        "quarterdeck",
    )
    .unwrap()
    .unwrap();
    assert_eq!(settings.certificate, CertSource::Memory);
    settings.share_port = false;
    let security = || Security {
        trust: Arc::clone(&server.trust),
        reviews: None,
        open_paths: vec!["/healthz".into()],
        keep_token: Duration::ZERO,
        keep_allowed: Duration::ZERO,
        keep_refused: Duration::ZERO,
    };
    let endpoints = || Endpoints {
        component: Component { name: "x".into(), version: "1".into(), started: SystemTime::now() },
        checks: Arc::new(Checks::new()),
        metrics: prometheus::Registry::new(),
        disabled_metrics: Default::default(),
        status: StatusSource::default(),
        flags: BTreeMap::new(),
        config: Arc::new(|| serde_json::json!({})),
        verbosity: None,
    };
    let error = Server::bind(settings.clone(), security(), endpoints()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {}: ", server.address)), "{error}");

    // An unspecified address is both families.
    settings.address = [0, 0, 0, 0].into();
    settings.port = 0;
    let both = Server::bind(settings, security(), endpoints()).unwrap();
    let port = both.local_addr().unwrap().port();
    let task = tokio::spawn(both.run(server.stop.clone()));
    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    server.stop.cancel();
    task.await.unwrap();
    assert_eq!(Settings::from_flags(&testing::flags(&["--secure-port=0".into()]), "x").unwrap().map(|_| ()), None);
}
