use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::sync::atomic::AtomicUsize;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;

use super::super::testing::{Stream, TestNetwork, certified, serve};
use super::*;

const LIMIT: u64 = 10_000;

fn limits() -> FetchLimits {
    // Attempts follow each other at once; nothing here depends on how long they take.
    FetchLimits { bytes: LIMIT, time: Duration::from_secs(60), attempts: 3, first_wait: Duration::from_millis(1) }
}

struct Bench {
    network: Arc<TestNetwork>,
    policy: HostPolicy,
    limits: FetchLimits,
    tls: Option<Arc<ClientConfig>>,
}

impl Bench {
    /// A network on which this channel is configured.
    fn new(channel: &str) -> Self {
        let channel = Location::parse(channel).expect(channel);
        let policy = HostPolicy::new([&channel], []).expect("a policy");
        Self { network: Arc::default(), policy, limits: limits(), tls: None }
    }

    fn fetcher(&self) -> Fetcher {
        let network: Arc<dyn Network> = Arc::clone(&self.network) as _;
        Fetcher::on(network, self.policy.clone(), self.limits, self.tls.clone())
    }

    async fn fetch(&self, location: &str) -> Result<Fetch, FetchError> {
        self.fetch_with(location, None).await
    }

    async fn fetch_with(&self, location: &str, etag: Option<&str>) -> Result<Fetch, FetchError> {
        let location = Location::parse(location).expect(location);
        let fetched = self.fetcher().fetch(&location, etag, &Budget::new(1 << 30)).await;
        if let Err(error) = &fetched {
            let told = format!("{error} {error:?}");
            assert!(!told.contains("secret"), "{told}");
        }
        fetched
    }

    async fn text(&self, location: &str) -> String {
        match self.fetch(location).await {
            Ok(Fetch::Content { bytes, .. }) => String::from_utf8_lossy(&bytes).into_owned(),
            other => panic!("{location}: {other:?}"),
        }
    }

    async fn error(&self, location: &str) -> String {
        match self.fetch(location).await {
            Err(error) => error.to_string(),
            other => panic!("{location}: {other:?}"),
        }
    }
}

/// Answers each path with a fixed text, and notes the requests.
async fn pages(pages: &[(&'static str, String)]) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    pages_with(None, pages).await
}

async fn pages_with(
    tls: Option<Arc<rustls::ServerConfig>>,
    pages: &[(&'static str, String)],
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (pages, noted) = (Arc::new(pages.to_vec()), Arc::clone(&seen));
    let address = serve(tls, move |head: String, mut stream: Box<dyn Stream>| {
        noted.lock().push(head.clone());
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let found = pages.iter().find(|(page, _)| *page == path).map(|(_, answer)| answer.clone());
        let answer = found.unwrap_or_else(|| "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into());
        async move {
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    (address, seen)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\netag: \"e1\"\r\n\r\n{body}", body.len())
}

fn moved(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
}

#[tokio::test]
async fn files_are_read_below_their_folder_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("channel/sub")).expect("folders");
    fs::write(at("secret.yaml"), "hidden").expect("a file");
    fs::write(at("channel/index.yaml"), "index").expect("a file");
    fs::write(at("channel/sub/a.yaml"), "a").expect("a file");
    symlink("../secret.yaml", at("channel/out.yaml")).expect("a link");
    symlink("sub/a.yaml", at("channel/in.yaml")).expect("a link");
    File::create(at("channel/huge.yaml")).and_then(|file| file.set_len(1 << 30)).expect("a file");
    nix::unistd::mkfifo(&at("channel/pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let bench = Bench::new("/unused/x");
    let index = Location::parse(at("channel/index.yaml").to_str().expect("a path")).expect("a location");
    let read = async |reference: &str| {
        let location = index.join(reference).expect(reference);
        bench.fetcher().fetch(&location, None, &Budget::new(1 << 30)).await
    };
    assert_eq!(bench.text(&index.to_string()).await, "index");
    for (reference, expected) in [("sub/a.yaml", "a"), ("in.yaml", "a")] {
        let content = read(reference).await.expect(reference);
        assert_eq!(content, Fetch::Content { bytes: expected.into(), etag: None });
    }
    for (reference, message) in [
        ("out.yaml", "leads out"),
        ("huge.yaml", "1073741824 bytes; at most 10000"),
        ("pipe.yaml", "not a regular file"),
        ("sub", "not a regular file"),
        ("none.yaml", "No such file"),
    ] {
        let error = read(reference).await.expect_err(reference).to_string();
        assert!(error.contains(message), "{reference}: {error}");
    }
}

#[tokio::test]
async fn an_etag_saves_the_body() {
    let (to, seen) = pages(&[("/a", ok("text")), ("/same", "HTTP/1.1 304 Not Modified\r\n\r\n".into())]).await;
    let bench = Bench::new("http://h/a");
    bench.network.host("h", "203.0.114.1:80", to);
    let content = Fetch::Content { bytes: "text".into(), etag: Some("\"e1\"".into()) };
    assert_eq!(bench.fetch("http://h/a").await.expect("content"), content);
    assert_eq!(bench.fetch_with("http://h/same", Some("\"e1\"")).await.expect("no content"), Fetch::Unchanged);
    // Nobody asked: it says nothing.
    assert!(bench.error("http://h/same").await.contains("304"));
    let requests = seen.lock().clone();
    assert!(requests[1].contains("if-none-match: \"e1\"") && !requests[0].contains("if-none-match"), "{requests:?}");
    assert!(requests[0].contains("accept-encoding: identity") && requests[0].contains("host: h\r\n"), "{requests:?}");
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_stays_is_not() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let to = serve(None, move |head: String, mut stream: Box<dyn Stream>| {
        let turn = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let answer = match turn {
                _ if head.starts_with("GET /gone ") => "HTTP/1.1 404 Not Found\r\n\r\n".to_owned(),
                // A connection that breaks, an error, and a body that is cut off.
                0 => return,
                1 => "HTTP/1.1 503 Busy\r\n\r\n".to_owned(),
                2 => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_owned(),
                _ => ok("whole"),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let mut bench = Bench::new("http://h/a");
    bench.network.host("h", "203.0.114.1:80", to);
    assert!(bench.error("http://h/a").await.contains("broke off"));
    assert_eq!(count.load(Ordering::SeqCst), 3);
    count.store(0, Ordering::SeqCst);
    bench.limits.attempts = 5;
    assert_eq!(bench.text("http://h/a").await, "whole");
    count.store(0, Ordering::SeqCst);
    assert!(bench.error("http://h/gone").await.contains("404"));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn bodies_are_bounded() {
    let to = serve(None, |head: String, mut stream: Box<dyn Stream>| async move {
        let chunk = "400\r\n".to_owned() + &"x".repeat(0x400) + "\r\n";
        if head.starts_with("GET /declared?") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n").await;
            std::future::pending::<()>().await;
        } else if head.starts_with("GET /packed?") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nzz").await;
        } else if head.starts_with("GET /headers?") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
            while stream.write_all(format!("x: {}\r\n", "y".repeat(1000)).as_bytes()).await.is_ok() {}
        } else if head.starts_with("GET /open?") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(&[b'x'; 1000]).await.is_ok() {}
        } else {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            while stream.write_all(chunk.as_bytes()).await.is_ok() {}
        }
    })
    .await;
    let bench = Bench::new("http://h/a");
    bench.network.host("h", "203.0.114.1:80", to);
    for (path, message) in [
        ("declared", "larger than the 10000 bytes"),
        ("chunked", "larger than the 10000 bytes"),
        ("open", "larger than the 10000 bytes"),
        ("packed", "encoded as \"gzip\""),
        ("headers", "no answer from h"),
    ] {
        let error = bench.error(&format!("http://user:secret@h/{path}?secret")).await;
        assert!(error.contains(message), "{path}: {error}");
    }
}

#[tokio::test]
async fn slow_servers_are_given_up() {
    let to = serve(None, |head: String, mut stream: Box<dyn Stream>| async move {
        if head.starts_with("GET /head ") {
            std::future::pending::<()>().await;
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n").await;
        // A byte now and then, for ever.
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let mut bench = Bench::new("http://h/a");
    bench.network.host("h", "203.0.114.1:80", to);
    bench.limits.time = Duration::from_millis(300);
    for path in ["head", "body"] {
        let error = bench.error(&format!("http://h/{path}")).await;
        assert!(error.contains("not read within 300ms"), "{error}");
    }
    // Nobody there at all: the last attempt is told.
    bench.limits = FetchLimits { attempts: 1000, first_wait: Duration::from_millis(20), ..bench.limits };
    let error = bench.error("http://203.0.114.9/x").await;
    assert!(error.contains("the last attempt: no connection to 203.0.114.9"), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_where_they_may_lead() {
    let (other, seen_other) = pages(&[("/b", ok("there"))]).await;
    let loops = moved("/loop");
    let (to, seen) = pages(&[
        ("/a", moved("http://other/b")),
        ("/c", moved("d")),
        ("/d", ok("here")),
        ("/loop", loops),
        ("/bad", moved("http://a b/")),
        ("/file", moved("file:///etc/passwd")),
        ("/none", "HTTP/1.1 302 Found\r\n\r\n".into()),
    ])
    .await;
    let bench = Bench::new("http://h/a");
    bench.network.host("h", "203.0.114.1:80", to);
    bench.network.host("other", "203.0.114.2:80", other);
    assert_eq!(bench.text("http://user:secret@h/c").await, "here");
    assert_eq!(bench.text("http://user:secret@h/a").await, "there");
    let sent = "authorization: Basic dXNlcjpzZWNyZXQ=";
    assert!(seen.lock().iter().all(|head| head.contains(sent)), "{seen:?}");
    assert!(seen_other.lock().iter().all(|head| !head.contains("authorization")), "{seen_other:?}");
    seen.lock().clear();
    assert!(bench.error("http://h/loop").await.contains("more than 5 redirects"));
    assert_eq!(seen.lock().len(), 6);
    for path in ["bad", "file", "none"] {
        assert!(bench.error(&format!("http://h/{path}")).await.contains("no URL"), "{path}");
    }
}

/// A server that may be asked cannot make us ask one inside the network.
#[tokio::test]
async fn redirects_to_inside_addresses_are_refused() {
    let (inside, asked) = pages(&[("/x", ok("hidden"))]).await;
    let bench = Bench::new("http://h/a");
    let targets = [
        ("169.254.169.254", "169.254.169.254:80"),
        ("127.0.0.1", "127.0.0.1:80"),
        ("[::1]", "[::1]:80"),
        ("[::ffff:127.0.0.1]", "[::ffff:127.0.0.1]:80"),
        ("[fe80::1]", "[fe80::1]:80"),
        ("[fd00::1]", "[fd00::1]:80"),
        ("0.0.0.0", "0.0.0.0:80"),
        ("10.0.0.1", "10.0.0.1:80"),
        ("2130706433", "127.0.0.1:80"),
        ("0x7f.1", "127.0.0.1:80"),
        ("inside.example", "192.168.0.1:80"),
        ("h.", "127.0.0.1:80"),
    ];
    for (host, address) in targets {
        bench.network.route(address, inside);
        bench.network.name("inside.example", &[&["192.168.0.1:80"]]);
        bench.network.name("h.", &[&["127.0.0.1:80"]]);
        let (to, _) = pages(&[("/a", moved(&format!("http://{host}/x")))]).await;
        bench.network.host("h", "203.0.114.1:80", to);
        let error = bench.error("http://h/a").await;
        assert!(error.contains("not a public address"), "{host}: {error}");
    }
    assert_eq!(asked.lock().len(), 0);
    assert!(bench.network.connected.lock().iter().all(|address| address.ip().to_string() == "203.0.114.1"));
}

/// A name that is public when it is checked and inside when it is connected to.
#[tokio::test]
async fn rebinding_a_name_gains_nothing() {
    let (inside, asked) = pages(&[("/x", ok("hidden"))]).await;
    let (outside, _) = pages(&[("/x", ok("public"))]).await;
    let bench = Bench::new("http://h/a");
    bench.network.name("evil", &[&["203.0.114.7:80"], &["127.0.0.1:80"]]);
    bench.network.route("203.0.114.7:80", outside);
    bench.network.route("127.0.0.1:80", inside);
    assert_eq!(bench.text("http://evil/x").await, "public");
    assert_eq!(*bench.network.resolved.lock(), ["evil"], "looked up once for one connection");
    // From now on the name says 127.0.0.1.
    assert!(bench.error("http://evil/x").await.contains("127.0.0.1, which is not a public address"));
    // Both at once: only the public one is used, even when it is dead.
    bench.network.name("mixed", &[&["127.0.0.1:80", "203.0.114.9:80", "169.254.169.254:80"]]);
    assert!(bench.error("http://mixed/x").await.contains("no connection to mixed"));
    assert_eq!(asked.lock().len(), 0);
}

#[tokio::test]
async fn a_configured_host_may_be_inside() {
    let (inside, _) = pages(&[("/x", ok("ours")), ("/again", moved("http://intranet/x"))]).await;
    let bench = Bench::new("http://intranet/x");
    bench.network.host("intranet", "10.0.0.1:80", inside);
    assert_eq!(bench.text("http://intranet/x").await, "ours");
    assert_eq!(bench.text("http://intranet/again").await, "ours");
    bench.network.host("intranet", "169.254.169.254:80", inside);
    assert!(bench.error("http://intranet/x").await.contains("not a public address"));
}

#[tokio::test]
async fn a_list_of_hosts_holds_for_redirects_too() {
    let (to, _) = pages(&[("/a", moved("http://other/b")), ("/b", ok("there"))]).await;
    let mut bench = Bench::new("http://h/a");
    bench.network.host("h", "203.0.114.1:80", to);
    bench.network.host("other", "203.0.114.2:80", to);
    let channel = Location::parse("http://h/a").expect("a location");
    bench.policy = HostPolicy::new([&channel], ["*.example.org"]).expect("a policy");
    assert!(bench.error("http://h/a").await.contains("--channel-allow-host=other"));
    assert!(!bench.network.resolved.lock().contains(&"other".to_owned()));
    bench.policy = HostPolicy::new([&channel], ["other"]).expect("a policy");
    assert_eq!(bench.text("http://h/a").await, "there");
}

#[tokio::test]
async fn tls_is_verified_and_never_left() {
    let (server, client) = certified(&["h", "other"]);
    let (plain, asked) = pages(&[("/b", ok("plain"))]).await;
    let (to, _) =
        pages_with(Some(server), &[("/a", ok("safe")), ("/down", moved("http://h/b")), ("/side", moved("//other/a"))])
            .await;
    let mut bench = Bench::new("https://h/a");
    bench.tls = Some(client);
    bench.network.host("h", "203.0.114.1:443", to);
    bench.network.host("other", "203.0.114.2:443", to);
    bench.network.host("stranger", "203.0.114.3:443", to);
    bench.network.route("203.0.114.1:80", plain);
    assert_eq!(bench.text("https://h/a").await, "safe");
    assert_eq!(bench.text("https://h/side").await, "safe");
    assert!(bench.error("https://h/down").await.contains("redirected from https (h) to http (h)"));
    assert_eq!(asked.lock().len(), 0);
    assert!(bench.error("https://stranger/a").await.contains("no TLS with stranger"));
}

#[tokio::test]
async fn a_budget_holds_for_all_files_together() {
    let (to, _) = pages(&[("/a", ok(&"x".repeat(600)))]).await;
    let bench = Bench::new("http://h/a");
    bench.network.host("h", "203.0.114.1:80", to);
    let location = Location::parse("http://h/a").expect("a location");
    let (fetcher, budget) = (bench.fetcher(), Budget::new(1000));
    fetcher.fetch(&location, None, &budget).await.expect("the first one fits");
    let error = fetcher.fetch(&location, None, &budget).await.expect_err("the second does not");
    assert!(matches!(error, FetchError::Budget), "{error:?}");
}

#[cfg(not(feature = "channel-s3"))]
#[tokio::test]
async fn what_was_not_built_is_told() {
    assert!(Bench::new("/unused/x").error("s3://b/k").await.contains("without the feature channel-s3"));
}
