//! The conformance suite against the plug-ins in other languages that are brought along: a Go provider behind the shim,
//! over mutual TLS, and the template in Python. What each passes stands in docs/cloud/write-a-provider.md, too.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use quarterdeck_cloud::grpc::{Plugin, PluginUri, TlsFiles};
use quarterdeck_cloud::model::{AddressKind, NodeAddress};
use quarterdeck_cloud_conformance::known::{Balancers, DualStack, Labelled, Paths};
use quarterdeck_cloud_conformance::{CASES, Known, Machine, Steering, Stop, Suite, Unsteered, Verdict};
use quarterdeck_it::{Binaries, Launch, Peer, Process, ReservedPort, eventually, repository};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::plugin::{Running, call};

/// Runs all cases; each has to pass, but for these, which have to be not applicable.
async fn run(plugin: Plugin, known: Known, steering: Box<dyn Steering>, not_applicable: &[&str]) -> Result<()> {
    let mut suite = Suite::new(Arc::new(plugin), known, steering);
    // Tests assert no timing.
    suite.tolerance = Duration::from_secs(60);
    let report = suite.run(CASES).await;
    ensure!(report.cases.len() == 41 && report.failed().is_empty(), "{report}");
    let lacks = report.cases.iter().filter(|line| matches!(line.verdict, Verdict::NotApplicable(_)));
    let lacks: Vec<&str> = lacks.map(|line| line.id).collect();
    ensure!(lacks == not_applicable, "not applicable are {lacks:?}\n{report}");
    Ok(())
}

fn machine(scheme: &str, name: &str) -> Machine {
    let provider_id = format!("{scheme}://{name}");
    Machine { name: name.to_owned(), provider_id, addresses: vec!["10.0.0.1".parse().expect("an address")] }
}

fn paths(in_two_steps: bool, foreign: Option<&str>) -> Paths {
    Paths {
        within: "10.77.0.0/16".parse().expect("a network"),
        foreign: foreign.map(|network| network.parse().expect("a network")),
        many: 0,
        in_two_steps,
    }
}

/// An authority, and a certificate of it for both sides.
pub(super) fn certificates(folder: &Path) -> Result<TlsFiles> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "conformance");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(["localhost".to_owned()])?.signed_by(&key, &authority)?;
    let files = TlsFiles { ca: folder.join("ca.pem"), cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    std::fs::write(&files.ca, authority.pem())?;
    std::fs::write(&files.cert, certificate.pem())?;
    std::fs::write(&files.key, key.serialize_pem())?;
    Ok(files)
}

/// Upstream's fake as a cloud; it reads how it is to behave before each call.
#[derive(Clone)]
struct Behaviour {
    folder: Arc<TempDir>,
}

impl Behaviour {
    fn set(&self, delay_millis: u64) -> Result<()> {
        let behaviour = json!({
            "isCloud": true,
            "providerIDs": {"node-1": "fake://node-1", "node-2": "fake://node-2", "stopped": "fake://stopped"},
            "stopped": ["stopped"],
            "addresses": [
                {"type": "InternalIP", "address": "2001:db8::1"},
                {"type": "InternalIP", "address": "10.9.9.9"},
                {"type": "Hostname", "address": "a-node"},
            ],
            "delayMillis": delay_millis,
        });
        self.write(&behaviour)
    }

    fn write(&self, behaviour: &Value) -> Result<()> {
        let (part, file) = (self.folder.path().join("part"), self.file());
        std::fs::write(&part, behaviour.to_string())?;
        Ok(std::fs::rename(part, file)?)
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("behaviour.json")
    }
}

#[async_trait]
impl Steering for Behaviour {
    async fn hang(&self, method: &str) -> Result<(), Stop> {
        if method != "instances.get_many" {
            return Err(Stop::NotApplicable("a Go provider finishes what it has begun".to_owned()));
        }
        self.set(3_000).map_err(|error| Stop::Failed(error.to_string()))
    }

    async fn heal(&self) -> Result<(), Stop> {
        self.set(0).map_err(|error| Stop::Failed(error.to_string()))
    }
}

fn of_the_fake() -> Known {
    let address = |address: &str| NodeAddress { kind: AddressKind::InternalIp, address: address.to_owned() };
    Known {
        running: vec![machine("fake", "node-1"), machine("fake", "node-2")],
        stopped: Some(machine("fake", "stopped")),
        terminated: Some(machine("fake", "terminated")),
        foreign: vec!["elsewhere://account/1".to_owned()],
        dual_stack: Some(DualStack {
            machine: machine("fake", "node-1"),
            addresses: vec![address("2001:db8::1"), address("10.9.9.9")],
        }),
        labelled: Some(Labelled {
            machine: machine("fake", "node-1"),
            labels: BTreeMap::from([("example.com/rack".to_owned(), "7".to_owned())]),
        }),
        load_balancers: Some(Balancers {
            elsewhere: BTreeMap::from([("fake.example.com/elsewhere".to_owned(), "true".to_owned())]),
            many: 25,
            ..Balancers::default()
        }),
        routes: Some(paths(true, Some("10.78.0.0/24"))),
        ..Known::default()
    }
}

async fn start_shim(behaviour: &Behaviour, tls: &TlsFiles, port: u16) -> Result<Process> {
    let program = Binaries::ensure(&[Peer::CloudShim]).await?.path("cloud-shim/cloud-shim");
    let folder = behaviour.folder.path();
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    Launch::new("cloud-shim", program)
        .arg(format!("--listen=127.0.0.1:{port}"))
        .args(["--cluster-name="])
        .arg(flag("behaviour", &behaviour.file()))
        .arg(flag("state", &folder.join("state.json")))
        .arg(flag("ca", &tls.ca))
        .arg(flag("cert", &tls.cert))
        .arg(flag("key", &tls.key))
        .log(folder.join("log"))
        .spawn()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_go_provider_behind_the_shim_passes_what_it_can_over_mutual_tls() -> Result<()> {
    let behaviour = Behaviour { folder: Arc::new(TempDir::with_prefix("quarterdeck-plugin-")?) };
    behaviour.set(0)?;
    let tls = certificates(behaviour.folder.path())?;
    let port = ReservedPort::take()?;
    let process = start_shim(&behaviour, &tls, port.port()).await?;
    let uri: PluginUri = format!("https://localhost:{}", port.port()).parse()?;
    let plugin = Plugin::new(uri, Some(tls));
    let waited = eventually("the plug-in answers", Duration::from_secs(60), async || {
        ensure!(process.is_running(), "it has ended");
        Ok(quarterdeck_cloud::Provider::info(&plugin, &call(0)).await?)
    });
    waited.await.with_context(|| format!("its log says:\n{}", process.log_text()))?;
    // No fingerprints, nothing half-way, no cancelling, no restart of a cloud in memory, no gapless replacing.
    let lacks = ["L4", "L6", "L7", "L8", "L9", "L12", "R5", "R6", "P4", "P5"];
    let done = run(plugin, of_the_fake(), Box::new(behaviour.clone()), &lacks).await;
    done.with_context(|| format!("its log says:\n{}", process.log_text()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_template_passes_what_it_can() -> Result<()> {
    let binaries = Binaries::ensure(&[Peer::CloudTemplate]).await?;
    let running = Running::start(|folder| {
        Launch::new("template", binaries.path("cloud-template/venv/bin/python"))
            .env("PYTHONPATH", binaries.path("cloud-template/stubs").display().to_string())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(repository().join("docs/cloud/template/provider.py").display().to_string())
            .args(["--instance", "node-1=10.0.0.1", "--instance", "node-2=10.0.0.2", "--page", "2"])
            .arg("--state")
            .arg(folder.path().join("state.json").display().to_string())
    })
    .await?;
    let known = Known {
        running: vec![machine("template", "node-1"), machine("template", "node-2")],
        terminated: Some(machine("template", "terminated")),
        foreign: vec!["elsewhere://account/1".to_owned()],
        load_balancers: Some(Balancers::default()),
        routes: Some(paths(false, None)),
        ..Known::default()
    };
    // A cloud in memory: no machines that are shut down, of both families or labelled, and nothing to go wrong.
    let lacks = ["I4", "I9", "I10", "L12", "L17", "R4", "R5", "P3", "P4", "P5"];
    let plugin = Plugin::new(format!("unix://{}", running.socket().display()).parse()?, None);
    run(plugin, known, Box::new(Unsteered::default()), &lacks).await
}
