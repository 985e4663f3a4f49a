//! The Helm chart, by the real helm: what it renders is what `quarterdeck install` brings, and a real server takes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quarterdeck_it::deck::program;
use quarterdeck_it::{Binaries, ControlPlane, Credentials, Deck, Peer, eventually, repository};
use serde_json::{Value, json};
use tokio::process::Command;

use super::rendered::{comparable, installed, objects};
use super::{is_hardened, starts_with_its_flags};

/// Where the release is.
const NAMESPACE: &str = "kube-system";
const PATIENCE: Duration = Duration::from_secs(60);

/// Sets of values, and the flags of `quarterdeck install` that mean the same.
const SETS: [(&[&str], &[&str]); 9] = [
    (&[], &[]),
    (&["controllers={endpointslice-controller}", "kind=Deployment"], &["--controllers=endpointslice-controller"]),
    (&["controllers={*,-addon-controller,addon-controller}"], &["--controllers=*,-addon-controller,addon-controller"]),
    (
        &["addons.serviceAccount=ships/narrow", "lease.name=second", "lease.namespace=default"],
        &[
            "--addon-service-account=ships/narrow",
            "--leader-elect-resource-name=second",
            "--leader-elect-resource-namespace=default",
        ],
    ),
    (&["addons.serviceAccount=narrow"], &["--addon-service-account=narrow"]),
    (&["addons.clusterAdmin=false", "hostNetwork=false"], &["--addons-cluster-admin=false"]),
    (
        &["cloud.providers={harbour=grpc:unix:///run/harbour.sock}", "cloud.configureRoutes=false"],
        &["--cloud-provider=harbour=grpc:unix:///run/harbour.sock", "--configure-cloud-routes=false"],
    ),
    (
        &["cloud.providers={sim}", "cloud.clusterCIDR=10.244.0.0/16", "controllers={*,-namespace-controller}"],
        &["--cloud-provider=sim", "--cluster-cidr=10.244.0.0/16", "--controllers=*,-namespace-controller"],
    ),
    (
        &["cloud.providers={metal}", "cloud.config=gateways: []", "cloud.clusterCIDR=10.244.0.0/16"],
        &["--cloud-provider=metal", "--cloud-config=/inventory", "--cluster-cidr=10.244.0.0/16"],
    ),
];

fn chart() -> PathBuf {
    repository().join("deploy/helm/quarterdeck")
}

/// The real helm, with a home and a cluster of its own.
struct Helm {
    program: PathBuf,
    home: tempfile::TempDir,
    kubeconfig: Option<PathBuf>,
}

impl Helm {
    async fn new(control_plane: Option<&ControlPlane>) -> Result<Self> {
        let program = Binaries::ensure(&[Peer::Helm]).await?.path("helm/helm");
        let kubeconfig = control_plane.map(ControlPlane::admin_kubeconfig).transpose()?;
        Ok(Self { program, home: tempfile::tempdir()?, kubeconfig })
    }

    /// Runs it on the chart; what it printed, or its complaint.
    async fn run(&self, words: &[&str], values: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(words).current_dir(repository()).env("HOME", self.home.path()).kill_on_drop(true);
        command.args(values.iter().flat_map(|value| ["--set", value]));
        for place in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(place, self.home.path());
        }
        let kubeconfig = self.kubeconfig.clone().unwrap_or_else(|| self.home.path().join("none"));
        let output = command.env("KUBECONFIG", kubeconfig).output().await.context("running helm")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !output.status.success() {
            bail!("helm {words:?} {values:?}: {}{}", text(&output.stdout), text(&output.stderr));
        }
        Ok(text(&output.stdout))
    }

    async fn template(&self, values: &[&str]) -> Result<Vec<Value>> {
        let chart = chart().display().to_string();
        let text = self.run(&["template", "quarterdeck", &chart, "--namespace", NAMESPACE], values).await?;
        objects(&text)
    }
}

#[tokio::test]
async fn the_chart_brings_what_install_brings() -> Result<()> {
    let helm = Helm::new(None).await?;
    for (values, flags) in SETS {
        let (own, brought): (Vec<Value>, Vec<Value>) = helm
            .template(values)
            .await?
            .into_iter()
            .partition(|object| object["metadata"]["labels"]["helm.sh/chart"].is_string());
        let (brought, wanted) = (comparable(brought), installed(flags).await?);
        let names = |all: &BTreeMap<String, Value>| all.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&brought), names(&wanted), "{values:?}");
        for (name, object) in &wanted {
            assert_eq!(&brought[name], object, "{values:?}: {name}");
        }
        let workload = own.iter().find(|object| object["kind"] == "DaemonSet" || object["kind"] == "Deployment");
        let pod = &workload.context("no workload")?["spec"]["template"]["spec"];
        is_hardened(pod);
        starts_with_its_flags(pod).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_values_is_said() -> Result<()> {
    let helm = Helm::new(None).await?;
    for (values, said) in [
        (
            &["controllers={endpointslices}"][..],
            r#""endpointslices" is not a controller of quarterdeck; there are addon-"#,
        ),
        (&["controllers={*,-deployment-controller}"], r#""deployment-controller" is not a controller of quarterdeck"#),
        (&["controllers={service-lb-controller}"], "controllers: service-lb-controller needs cloud.providers"),
        (&["controllers={metal-controller}", "cloud.providers={sim}"], "needs the provider metal in cloud.providers"),
        (
            &["controllers={node-route-controller}", "cloud.providers={sim}"],
            "controllers: node-route-controller needs cloud.clusterCIDR",
        ),
        (&["lease.name=kube-controller-manager"], "nobody runs the controllers that it lacks"),
        (&["fence.mode=required", "fence.install=false"], "fence.install leaves it out"),
        (&["serviceAccount.create=false"], "serviceAccount.name: name the account"),
        (&["cloud.config=a", "cloud.existingSecret=b", "cloud.providers={sim}"], "give one of the two"),
        (&["cloud.config=a"], "cloud.providers names no provider"),
        // By the schema, which names the value.
        (&["replica=3"], "replica"),
        (&["kind=StatefulSet"], "kind"),
        (&["lease.duration=1.5s"], "lease"),
        (&["image.digest=latest"], "digest"),
        (&["port=0"], "port"),
        (&["addons.serviceAccount=a/b/c"], "serviceAccount"),
    ] {
        let refused = helm.template(values).await.err().with_context(|| format!("{values:?} was taken"))?.to_string();
        assert!(refused.contains(said), "{values:?}: {refused}");
    }
    Ok(())
}

#[tokio::test]
async fn alerts_and_scrapes_come_with_their_values() -> Result<()> {
    let helm = Helm::new(None).await?;
    let plain = helm.template(&[]).await?;
    assert!(plain.iter().all(|object| object["apiVersion"] != "monitoring.coreos.com/v1"), "nobody asked for these");
    let values = [
        "monitoring.serviceMonitor.enabled=true",
        "monitoring.prometheusRule.enabled=true",
        "monitoring.scraper=monitoring/prometheus",
    ];
    let all = helm.template(&values).await?;
    let find = |kind: &str| all.iter().find(|object| object["kind"] == kind).with_context(|| kind.to_owned());
    let rules: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(repository().join("deploy/prometheus/rules.yaml"))?)?;
    assert_eq!(find("PrometheusRule")?["spec"], rules);
    let monitor = &find("ServiceMonitor")?["spec"];
    let service = all.iter().find(|object| object["kind"] == "Service").context("a Service")?;
    let labels = &service["metadata"]["labels"];
    for (key, value) in monitor["selector"]["matchLabels"].as_object().context("a selector")? {
        assert_eq!(&labels[key], value, "{key}");
    }
    assert_eq!(monitor["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
    // The alerts are about this job.
    assert_eq!(
        monitor["endpoints"][0]["relabelings"][0],
        json!({ "targetLabel": "job", "replacement": "quarterdeck" })
    );
    let bindings = all.iter().filter(|object| object["kind"] == "ClusterRoleBinding");
    let scraper = json!([{ "kind": "ServiceAccount", "namespace": "monitoring", "name": "prometheus" }]);
    assert!(bindings.into_iter().any(|binding| binding["subjects"] == scraper));
    Ok(())
}

/// Installed, upgraded to other values, rolled back and removed; a replica works with what it brings.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_takes_the_chart_and_a_replica_works_with_it() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    control_plane.namespace("ships").await?;
    let helm = Helm::new(Some(&control_plane)).await?;
    let chart = chart().display().to_string();
    helm.run(&["lint", "--strict", &chart], &[]).await?;
    let on = |verb| [verb, "quarterdeck", chart.as_str(), "--namespace", NAMESPACE];
    helm.run(&on("install"), &[]).await?;

    let addons = tempfile::tempdir()?;
    let token = control_plane.token(NAMESPACE, "quarterdeck").await?;
    let url = control_plane.apiserver(0).url();
    let kubeconfig = control_plane.kubeconfig_at(url, &Credentials::Token(token))?;
    let path = format!("--addon-path={}", addons.path().display());
    let deck = Deck::builder(&control_plane)
        .replicas(1)
        .without_install()
        .kubeconfigs([kubeconfig])
        .args(["--fence=required", &path])
        .start()
        .await?;
    deck.leader(PATIENCE).await?;
    for controller in ["addon-controller", "endpoints-controller", "endpointslice-controller", "namespace-controller"] {
        eventually("the controller runs", PATIENCE, || async {
            let status = deck.replica(0).status().await?;
            match status.controller(controller) {
                Some("running") => Ok(()),
                other => bail!("{controller}: {other:?} because {:?}", status.reason(controller)),
            }
        })
        .await?;
    }
    drop(deck);

    for (values, _) in &SETS[1..] {
        helm.run(&on("upgrade"), values).await?;
    }
    helm.run(&["rollback", "quarterdeck", "1", "--namespace", NAMESPACE], &[]).await?;
    let mut audit = control_plane.audit_from_now()?;
    helm.run(&["uninstall", "quarterdeck", "--namespace", NAMESPACE], &[]).await?;
    // A binding that is gone while its policy is there leaves a dead informer in the server.
    control_plane.settle_audit().await?;
    let deleted = audit.filter(|event| event.verb == "delete" && event.resource().contains("validatingadmission"))?;
    let order: Vec<String> = deleted.iter().map(quarterdeck_it::audit::Event::resource).collect();
    let kinds =
        ["policies", "policybindings"].map(|kind| format!("validatingadmission{kind}.admissionregistration.k8s.io"));
    assert_eq!(order, kinds);
    let left = super::objects(&control_plane.admin().await?, super::OURS).await?;
    assert!(left.is_empty(), "{left:?}");
    // Every Addon would be deleted with its kind.
    let kind = super::kubectl(&control_plane, &["get", "crd", "addons.addonmgr.keikoproj.io", "-o", "name"]).await?;
    assert!(kind.contains("addons.addonmgr.keikoproj.io"), "{kind}");
    Ok(())
}

/// What hack/generate would write is what is checked in, and of the program's version.
#[tokio::test]
async fn the_generated_templates_are_fresh() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(repository().join("hack/helm/generate"))
        .args([program()?, folder.path().to_owned()])
        .output()
        .await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for part in ["templates/generated", "files"] {
        let files = |folder: &Path| -> Result<BTreeMap<String, String>> {
            let mut all = BTreeMap::new();
            for entry in std::fs::read_dir(folder.join(part))? {
                let path = entry?.path();
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                all.insert(name, std::fs::read_to_string(&path)?);
            }
            Ok(all)
        };
        assert_eq!(files(&chart())?, files(folder.path())?, "{part}: run hack/generate");
    }
    let text: Value = serde_saphyr::from_str(&std::fs::read_to_string(chart().join("Chart.yaml"))?)?;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!((text["version"].as_str(), text["appVersion"].as_str()), (Some(version), Some(version)));
    Ok(())
}
