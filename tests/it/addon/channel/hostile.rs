//! Channels that mean harm, through the whole manager: each is told, nothing is fetched from where it may
//! not, and the addon beside is installed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Answers each request by its path; counts what was asked.
struct Site {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Site {
    /// `answer` gives the whole response to a path, `None` a body of 1 GiB.
    async fn start(bind: &str, answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(bind).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let (answer, count) = (Arc::new(answer), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
                tokio::spawn(async move {
                    // Whoever hangs up has heard enough.
                    let _ = talk(stream, &*answer, &count).await;
                });
            }
        });
        Self { address, asked, task }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

async fn talk(
    mut stream: TcpStream,
    answer: &(impl Fn(&str) -> Option<String> + Send + Sync),
    asked: &AtomicUsize,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    asked.fetch_add(1, Ordering::Relaxed);
    let text = String::from_utf8_lossy(&head).into_owned();
    let path = text.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    match answer(&path) {
        Some(response) => stream.write_all(response.as_bytes()).await,
        None => {
            // No length is told: only the bound on what is read ends it.
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await?;
            let block = vec![b'#'; 1 << 20];
            for _ in 0..1024 {
                stream.write_all(&block).await?;
            }
            Ok(())
        }
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn moved(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn hostile_manifests_cost_only_their_own_addons() {
    // What must never be asked: an address inside that nobody configured.
    let inside = Site::start("0.0.0.0:0", |_| Some(ok(&manifest("stolen")))).await;
    let port = inside.address.port();
    let site = Site::start("127.0.0.1:0", move |path| match path {
        "index.yaml" => {
            let entry =
                |name: &str, manifest: &str| format!("  - {{name: {name}, version: 1.0.0, manifest: '{manifest}'}}\n");
            // By a redirect, by a name that leads inside, and by its address.
            let rebound = format!("http://localhost:{port}/x.yaml");
            let direct = format!("http://127.0.0.2:{port}/x.yaml");
            let all = [
                entry("dns", "dns.yaml"),
                entry("huge", "huge.yaml"),
                entry("bomb", "bomb.yaml"),
                entry("moved", "moved.yaml"),
                entry("metadata", "metadata.yaml"),
                entry("rebound", &rebound),
                entry("direct", &direct),
                entry("outside", "../../../etc/passwd"),
            ];
            Some(ok(&format!("kind: Addons\nmetadata: {{name: test}}\nspec:\n  addons:\n{}", all.concat())))
        }
        "dns.yaml" => Some(ok(&manifest("one"))),
        "huge.yaml" => None,
        "bomb.yaml" => {
            let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
            for level in 1..12 {
                let below = format!("*a{},", level - 1).repeat(10);
                text += &format!("a{level}: &a{level} [{below}]\n");
            }
            Some(ok(&text))
        }
        "moved.yaml" => Some(moved(&format!("http://127.0.0.2:{port}/x.yaml"))),
        "metadata.yaml" => Some(moved("http://169.254.169.254/latest/meta-data/")),
        _ => Some("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()),
    })
    .await;
    let world = World::start(&[&format!("--channel={}", site.url("index.yaml"))]).await;
    world.until_value("one").await;
    world.until_noted(&["1.0.0"]).await;
    for (name, words) in [
        ("huge", vec!["huge.yaml"]),
        ("bomb", vec!["bomb.yaml"]),
        ("moved", vec!["moved.yaml"]),
        ("metadata", vec!["metadata.yaml"]),
        ("rebound", vec!["localhost"]),
        ("direct", vec!["127.0.0.2"]),
        ("outside", vec!["outside"]),
    ] {
        let what = format!("{name} is told");
        let looked = eventually(&what, LONG, async || {
            let log = world.deck.replica(0).process().log_text();
            let told = |line: &&str| {
                line.contains("in a channel")
                    && line.contains(&format!("addon {name}"))
                    && words.iter().all(|word| line.contains(word))
            };
            match log.lines().find(told) {
                Some(_) => Ok(()),
                None => bail!("not yet"),
            }
        });
        looked.await.with_context(|| world.log()).unwrap();
    }
    assert_eq!(inside.asked.load(Ordering::Relaxed), 0, "nobody configured that address");
    let secrets = world.get("/api/v1/configmaps").await.unwrap().unwrap().to_string();
    assert!(!secrets.contains("stolen"));
    world.deck.ready(LONG).await.unwrap();
}

#[tokio::test]
async fn a_hostile_index_removes_nothing_and_takes_nothing_down() {
    let channel = Channel::new();
    channel.offer("1.0.0", "a", "one");
    let world = World::start(&[&channel.flag()]).await;
    world.until_value("one").await;
    world.until_noted(&["1.0.0"]).await;
    let good = std::fs::read_to_string(channel.dir.path().join("index.yaml")).unwrap();
    let bomb = (1..14).fold("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
        text + &format!("a{level}: &a{level} [{}]\n", format!("*a{},", level - 1).repeat(10))
    });
    let deep = format!("kind: Addons\nspec: {}{}\n", "[".repeat(20_000), "]".repeat(20_000));
    let long = format!("kind: Addons\nspec: {{addons: [{}]}}\n", "{name: a, manifest: m},".repeat(50_000));
    for (number, text) in [bomb, deep, long].into_iter().enumerate() {
        let told = || world.deck.replica(0).process().log_text().matches("in a channel").count();
        let before = told();
        channel.put("index.yaml", &text);
        let what = format!("index {number} is told");
        let looked = eventually(&what, LONG, async || if told() > before { Ok(()) } else { bail!("not yet") });
        looked.await.with_context(|| world.log()).unwrap();
        world.until_value("one").await;
        channel.put("index.yaml", &good);
        world.until_mirror("dns", "it is well", |addon| addon["status"]["health"] == "Ready").await;
    }
    channel.offer("1.1.0", "a", "two");
    world.until_value("two").await;
}
