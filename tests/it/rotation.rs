//! Credentials that are replaced under a running replica: it takes the new ones up, and neither stops nor loses its Lease.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::try_join_all;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, Subject};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::config::Kubeconfig;
use quarterdeck_it::audit::Event;
use quarterdeck_it::deck::{USER, install, program};
use quarterdeck_it::{ControlPlane, Deck};
use serde_json::{Value, json};

/// Time that anything gets on a loaded machine.
const LONG: Duration = Duration::from_secs(60);
/// Files are looked at once a minute. A look that falls between the replacement of two files that belong together finds
/// nothing of use; the next one does.
const THREE_LOOKS: Duration = Duration::from_secs(240);
const NAMESPACE: &str = "rotation";

/// A way in which credentials are replaced, with a controller that shows it at work. Each has a replica to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The kubeconfig names files of a certificate and a key.
    Certificate,
    /// The kubeconfig names a file of a token.
    Token,
    /// The kubeconfig is written anew.
    Kubeconfig,
}

const WAYS: [Way; 3] = [Way::Certificate, Way::Token, Way::Kubeconfig];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Certificate => "rotation-certificate",
            Self::Token => "rotation-token",
            Self::Kubeconfig => "rotation-kubeconfig",
        }
    }

    /// The user before and after.
    fn users(self) -> [String; 2] {
        let account = if self == Self::Token { "system:serviceaccount:kube-system:" } else { "" };
        ["old", "new"].map(|age| format!("{account}{}-{age}", self.name()))
    }

    fn controller(self) -> &'static str {
        match self {
            Self::Certificate => "endpointslice-controller",
            Self::Token => "endpoints-controller",
            Self::Kubeconfig => "namespace-controller",
        }
    }

    /// What that controller writes after [`work`].
    fn writes(self) -> &'static str {
        match self {
            Self::Certificate => "endpointslices.discovery.k8s.io",
            Self::Token => "endpoints",
            Self::Kubeconfig => "namespaces/finalize",
        }
    }
}

/// Files of one replica.
struct Files {
    kubeconfig: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    token: PathBuf,
}

impl Files {
    /// Files for `way` with the credentials of the user before.
    async fn new(control_plane: &ControlPlane, way: Way) -> Result<Self> {
        let folder = control_plane.folder().join(way.name());
        std::fs::create_dir(&folder)?;
        let [kubeconfig, certificate, key, token] =
            ["kubeconfig", "user.crt", "user.key", "token"].map(|f| folder.join(f));
        let files = Self { kubeconfig, certificate, key, token };
        let [old, _] = way.users();
        let mut text = read_kubeconfig(&control_plane.kubeconfig(&old, &[])?)?;
        match way {
            Way::Certificate => {
                let paths = json!({ "client-certificate": files.certificate, "client-key": files.key });
                text["users"][0]["user"] = paths;
            }
            Way::Token => text["users"][0]["user"] = json!({ "tokenFile": files.token }),
            Way::Kubeconfig => {}
        }
        replace(&files.kubeconfig, text.to_string().as_bytes())?;
        if way != Way::Kubeconfig {
            files.bring(control_plane, way, 0).await?;
        }
        Ok(files)
    }

    /// Replaces what has to be replaced to be the user before (0) or after (1).
    async fn bring(&self, control_plane: &ControlPlane, way: Way, age: usize) -> Result<()> {
        let user = &way.users()[age];
        match way {
            Way::Certificate => {
                let text = read_kubeconfig(&control_plane.kubeconfig(user, &[])?)?;
                for (field, file) in [("client-certificate-data", &self.certificate), ("client-key-data", &self.key)] {
                    let data = text["users"][0]["user"][field].as_str().context(field)?;
                    replace(file, &STANDARD.decode(data)?)?;
                }
                Ok(())
            }
            Way::Token => {
                let (_, account) = user.rsplit_once(':').context("no account")?;
                replace(&self.token, control_plane.token("kube-system", account).await?.as_bytes())
            }
            Way::Kubeconfig => {
                let text = read_kubeconfig(&control_plane.kubeconfig(user, &[])?)?;
                replace(&self.kubeconfig, text.to_string().as_bytes())
            }
        }
    }
}

fn read_kubeconfig(path: &Path) -> Result<Value> {
    Ok(serde_json::to_value(Kubeconfig::read_from(path)?)?)
}

/// As those do who rotate credentials: written beside, then renamed.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let beside = path.with_extension("beside");
    std::fs::write(&beside, content)?;
    std::fs::rename(&beside, path).with_context(|| path.display().to_string())
}

/// Installs for every Lease, and gives all users of this test what that gave the replicas' one.
async fn install_all(control_plane: &ControlPlane) -> Result<()> {
    for way in WAYS {
        install(&program()?, &control_plane.admin_kubeconfig()?, &[lease_flag(way)]).await?;
    }
    let is_manager = |subject: &Subject| subject.kind == "User" && subject.name == USER;
    let as_manager = |subjects: &Option<Vec<Subject>>| {
        let mut subjects = subjects.clone()?;
        let manager = subjects.iter().find(|subject| is_manager(subject))?.clone();
        let users = WAYS.into_iter().flat_map(Way::users);
        subjects.extend(users.map(|name| Subject { name, ..manager.clone() }));
        Some(subjects)
    };
    let client = control_plane.admin().await?;
    let all: Api<ClusterRoleBinding> = Api::all(client.clone());
    for mut binding in all.list(&ListParams::default()).await?.items {
        if let Some(subjects) = as_manager(&binding.subjects) {
            let name = binding.metadata.name.clone().context("no name")?;
            binding.subjects = Some(subjects);
            all.replace(&name, &PostParams::default(), &binding).await?;
        }
    }
    for namespace in ["kube-system", "quarterdeck-replicas"] {
        let namespaced: Api<RoleBinding> = Api::namespaced(client.clone(), namespace);
        for mut binding in namespaced.list(&ListParams::default()).await?.items {
            if let Some(subjects) = as_manager(&binding.subjects) {
                let name = binding.metadata.name.clone().context("no name")?;
                binding.subjects = Some(subjects);
                namespaced.replace(&name, &PostParams::default(), &binding).await?;
            }
        }
    }
    Ok(())
}

fn lease_flag(way: Way) -> String {
    format!("--leader-elect-resource-name={}", way.name())
}

/// A replica for `way`, with a Lease of its own.
async fn start(control_plane: &ControlPlane, way: Way, kubeconfig: &Path) -> Result<Deck> {
    let deck = Deck::builder(control_plane)
        .replicas(1)
        .kubeconfigs([kubeconfig])
        .without_install()
        .args([lease_flag(way), format!("--controllers={}", way.controller())])
        .start()
        .await?;
    deck.ready(LONG).await?;
    deck.leader(LONG).await?;
    Ok(deck)
}

async fn lease(control_plane: &ControlPlane, way: Way) -> Result<LeaseSpec> {
    let leases: Api<Lease> = Api::namespaced(control_plane.admin().await?, "kube-system");
    leases.get(way.name()).await?.spec.context("no spec")
}

/// Something to do for every controller.
async fn work(control_plane: &ControlPlane) -> Result<()> {
    let client = control_plane.admin().await?;
    let service = json!({
        "metadata": { "name": "after" },
        "spec": { "selector": { "app": "after" }, "ports": [{ "port": 80 }] },
    });
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    control_plane.namespace("rotation-short").await?;
    let namespaces: Api<Namespace> = Api::all(client);
    namespaces.delete("rotation-short", &DeleteParams::default()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_credentials_are_taken_up_without_a_restart() {
    let control_plane = ControlPlane::builder().start().await.unwrap();
    control_plane.namespace(NAMESPACE).await.unwrap();
    let files = try_join_all(WAYS.map(|way| Files::new(&control_plane, way))).await.unwrap();
    install_all(&control_plane).await.unwrap();
    let mut decks = Vec::new();
    for (way, files) in WAYS.into_iter().zip(&files) {
        decks.push(start(&control_plane, way, &files.kubeconfig).await.unwrap());
    }
    let held = try_join_all(WAYS.map(|way| lease(&control_plane, way))).await.unwrap();
    let mut audit = control_plane.audit_from_now().unwrap();
    for (way, files) in WAYS.into_iter().zip(&files) {
        files.bring(&control_plane, way, 1).await.unwrap();
    }

    for way in WAYS {
        let [_, new] = way.users();
        let renewed = |event: &Event| {
            event.verb == "update"
                && event.resource() == "leases.coordination.k8s.io"
                && event.name() == way.name()
                && event.user.username == new
                && event.succeeded()
        };
        audit.wait_for(&format!("a renewal by {new}"), THREE_LOOKS, renewed).await.unwrap();
    }
    work(&control_plane).await.unwrap();
    for way in WAYS {
        let [_, new] = way.users();
        let wrote = |event: &Event| {
            event.is_write() && event.resource() == way.writes() && event.user.username == new && event.succeeded()
        };
        audit.wait_for(&format!("a write of {} by {new}", way.writes()), LONG, wrote).await.unwrap();
    }

    for ((way, deck), before) in WAYS.into_iter().zip(&decks).zip(held) {
        assert!(deck.replica(0).process().is_running(), "{way:?}");
        let now = lease(&control_plane, way).await.unwrap();
        let tenure = |spec: &LeaseSpec| (spec.holder_identity.clone(), spec.lease_transitions);
        assert_eq!(tenure(&now), tenure(&before), "{way:?}");
    }
    control_plane.settle_audit().await.unwrap();
    let users: Vec<_> = WAYS.into_iter().flat_map(Way::users).collect();
    // Of the fence's two dry-run writes one is refused.
    let refused = |event: &Event| {
        users.contains(&event.user.username) && matches!(event.code(), 401 | 403) && !event.is_dry_run()
    };
    let refused = audit.filter(refused).unwrap();
    assert!(refused.is_empty(), "{refused:#?}");
}
