//! A real Prometheus scrapes three replicas, and reads the rules that we ship.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use quarterdeck_it::{ControlPlane, Deck, Launch, ReservedPort, eventually, repository};
use serde_json::Value;
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(60);

/// A program of Debian's `prometheus` package: the one on the PATH, else unpacked into the cache.
async fn tool(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file()) {
        return Ok(found);
    }
    let script = repository().join("hack/lib/debian.sh");
    let output = Command::new(&script).arg("prometheus").output().await?;
    ensure!(output.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
    Ok(Path::new(String::from_utf8(output.stdout)?.trim()).join("usr/bin").join(name))
}

async fn promtool(args: &[&str]) -> Result<String> {
    let output = Command::new(tool("promtool").await?).args(args).current_dir(repository()).output().await?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(output.status.success(), "promtool {}:\n{said}", args.join(" "));
    Ok(said)
}

/// The code of a request with these headers to a replica, whose certificate nobody signed.
pub(super) async fn code(url: &str, token: Option<&str>) -> Result<String> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}", url]);
    if let Some(token) = token {
        command.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    Ok(String::from_utf8(command.output().await.context("running curl")?.stdout)?)
}

/// A file of ours in `deploy/prometheus`.
fn shipped(name: &str) -> Result<String> {
    let path = repository().join("deploy/prometheus").join(name);
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// A running Prometheus.
pub(super) struct Prometheus {
    url: String,
    _process: quarterdeck_it::Process,
    _port: ReservedPort,
}

impl Prometheus {
    /// Starts it with the scrape configuration that we ship, whose targets and token are these.
    async fn start(folder: &Path, targets: &[String], token: &str) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let file = folder.join("token");
        std::fs::write(&file, token)?;
        let fill = |text: String, from: &str, to: &str| -> Result<String> {
            ensure!(text.contains(from), "no {from} in:\n{text}");
            Ok(text.replace(from, to))
        };
        let scrape = shipped("scrape.yaml")?;
        let scrape = fill(scrape, "/var/run/secrets/quarterdeck-scraper/token", &file.display().to_string())?;
        let scrape = fill(scrape, "master-1:10267, master-2:10267, master-3:10267", &targets.join(", "))?;
        let rules = repository().join("deploy/prometheus/rules.yaml");
        let global = "global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }";
        let config = folder.join("prometheus.yaml");
        std::fs::write(&config, format!("{global}\nrule_files: [{}]\n{scrape}", rules.display()))?;
        let port = ReservedPort::take()?;
        let address = format!("127.0.0.1:{}", port.port());
        let process = Launch::new("prometheus", tool("prometheus").await?)
            .args([
                format!("--config.file={}", config.display()),
                format!("--storage.tsdb.path={}", folder.join("data").display()),
                format!("--web.listen-address={address}"),
            ])
            .log(folder.join("prometheus.log"))
            .spawn()?;
        Ok(Self { url: format!("http://{address}"), _process: process, _port: port })
    }

    /// Starts it for the replicas of a deck, with the account and role that we ship.
    pub(super) async fn of(control_plane: &ControlPlane, deck: &Deck) -> Result<Self> {
        let token = scraper(control_plane).await?;
        let targets: Vec<_> = deck.replicas().iter().map(|one| one.url().replace("https://", "")).collect();
        Self::start(&control_plane.folder().join("prometheus"), &targets, &token).await
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let client: Client<_, http_body_util::Empty<std::collections::VecDeque<u8>>> =
            Client::builder(TokioExecutor::new()).build_http();
        let answer = client.get(format!("{}{path}", self.url).parse()?).await?;
        let body = answer.into_body().collect().await?.to_bytes();
        let answer: Value = serde_json::from_slice(&body)?;
        ensure!(answer["status"] == "success", "{answer}");
        Ok(answer["data"].clone())
    }

    /// The numbers that a query answers, sorted.
    pub(super) async fn query(&self, query: &str) -> Result<Vec<String>> {
        let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let data = self.get(&format!("/api/v1/query?query={query}")).await?;
        let series = data["result"].as_array().context("no result")?;
        let mut values: Vec<_> = series.iter().filter_map(|one| one["value"][1].as_str().map(str::to_owned)).collect();
        values.sort();
        Ok(values)
    }

    /// Waits until a query answers this.
    async fn expect(&self, query: &str, expected: &[&str]) -> Result<()> {
        eventually(query, PATIENCE, || async {
            let values = self.query(query).await?;
            if values == expected { Ok(()) } else { bail!("{values:?}") }
        })
        .await
    }
}

/// Brings the account and role of the scraper that we ship; its token.
async fn scraper(control_plane: &ControlPlane) -> Result<String> {
    let kubectl = Command::new(control_plane.program("kubectl"))
        .env("KUBECONFIG", control_plane.admin_kubeconfig()?)
        .args(["apply", "-k", "deploy/prometheus"])
        .current_dir(repository())
        .output()
        .await?;
    ensure!(kubectl.status.success(), "{}", String::from_utf8_lossy(&kubectl.stderr));
    control_plane.token("kube-system", "quarterdeck-scraper").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_scrapes_three_replicas() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let deck = Deck::builder(&control_plane).start().await?;
    deck.ready(PATIENCE).await?;
    let first = deck.leader(PATIENCE).await?;

    // The account and role that we ship, and an account that may nothing.
    let token = scraper(&control_plane).await?;
    let stranger = control_plane.token("kube-system", "default").await?;
    let url = deck.replica(first).url();
    let metrics = format!("{url}/metrics");
    // The role may be known a moment after it was made.
    eventually("the scraper is let in", PATIENCE, || async {
        let code = code(&metrics, Some(&token)).await?;
        if code == "200" { Ok(()) } else { bail!("{code}") }
    })
    .await?;
    let forged = format!("{}x", base64::engine::general_purpose::STANDARD.encode("forged"));
    for (path, token, expected) in [
        ("/metrics", None, "403"),
        ("/metrics", Some(stranger.as_str()), "403"),
        ("/metrics", Some(forged.as_str()), "401"),
        ("/metrics/slis", Some(token.as_str()), "200"),
        ("/statusz", Some(token.as_str()), "403"),
        ("/configz", Some(token.as_str()), "403"),
        ("/statusz", None, "403"),
        ("/livez", None, "200"),
        ("/readyz", None, "200"),
    ] {
        assert_eq!(code(&format!("{url}{path}"), token).await?, expected, "{path} {token:?}");
    }

    let prometheus = Prometheus::of(&control_plane, &deck).await?;
    prometheus.expect(r#"up{job="quarterdeck"}"#, &["1", "1", "1"]).await?;
    prometheus.expect(r#"sum(leader_election_master_status{name="quarterdeck"})"#, &["1"]).await?;
    prometheus.expect(r#"count(quarterdeck_controller_state{state="running"} == 1)"#, &["5"]).await?;
    prometheus.expect(r#"count(quarterdeck_controller_state{state="standby"} == 1)"#, &["10"]).await?;
    // The rules are evaluated, and none of them fails.
    let healthy = eventually("rules are evaluated", PATIENCE, || async {
        let data = prometheus.get("/api/v1/rules").await?;
        let rules = data["groups"][0]["rules"].as_array().context("no rules")?.clone();
        if rules.iter().any(|rule| rule["health"] == "unknown") {
            bail!("not all are");
        }
        Ok(rules)
    })
    .await?;
    assert!(healthy.len() > 10 && healthy.iter().all(|rule| rule["health"] == "ok"), "{healthy:?}");

    // One goes, another leads, and Prometheus sees both.
    deck.replica(first).process().stop(PATIENCE).await?;
    prometheus.expect(r#"up{job="quarterdeck"}"#, &["0", "1", "1"]).await?;
    prometheus.expect(r#"sum(leader_election_master_status{name="quarterdeck"})"#, &["1"]).await?;
    prometheus.expect(r#"ALERTS{alertname="QuarterdeckReplicaDown",alertstate="pending"}"#, &["1"]).await
}

#[tokio::test]
async fn the_alerts_do_what_they_say() -> Result<()> {
    promtool(&["check", "rules", "deploy/prometheus/rules.yaml"]).await?;
    promtool(&["test", "rules", "deploy/prometheus/rules_test.yaml"]).await?;
    // Every alert is tried with something that sets it off, and with something that does not.
    let (rules, tests) = (shipped("rules.yaml")?, shipped("rules_test.yaml")?);
    let names: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in &names {
        assert!(tests.contains(&format!("        alertname: {name}\n        exp_alerts:")), "{name} never fires");
        assert!(tests.contains(&format!("alertname: {name} }}")), "{name} is never quiet");
        assert!(
            rules.contains(&format!("runbook_url: \"https://quarterdeck.dev/runbooks/{name}\"")),
            "{name} says not what to do"
        );
    }
    // Each has a page that says what to do, and each page an alert.
    let mut pages: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(repository().join("docs/runbooks"))? {
        pages.push(entry?.file_name().to_string_lossy().into_owned());
    }
    let index = std::fs::read_to_string(repository().join("docs/runbooks/README.md"))?;
    let mut wanted: Vec<String> = names.iter().map(|name| format!("{name}.md")).collect();
    assert!(wanted.iter().all(|page| index.contains(&format!("({page})"))), "{index}");
    wanted.push("README.md".to_owned());
    pages.sort();
    wanted.sort();
    assert_eq!(pages, wanted);
    Ok(())
}

#[tokio::test]
async fn the_scrape_configurations_are_well_formed() -> Result<()> {
    promtool(&["check", "config", "--syntax-only", "deploy/prometheus/scrape.yaml"]).await?;
    // Debian's Prometheus knows no discovery in Kubernetes: that part is taken out.
    let mut inside = false;
    let kept: Vec<_> = shipped("scrape-kubernetes.yaml")?
        .lines()
        .filter(|line| {
            let indent = line.len() - line.trim_start().len();
            inside = (inside && indent > 4) || line.trim() == "kubernetes_sd_configs:";
            !inside
        })
        .map(str::to_owned)
        .collect();
    let file = tempfile::NamedTempFile::with_suffix(".yaml")?;
    std::fs::write(file.path(), kept.join("\n"))?;
    promtool(&["check", "config", "--syntax-only", &file.path().display().to_string()]).await.map(drop)
}
