//! Three masters with quarterdeck on them, and what tests ask and change there.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use http::{Method, Request};
use jiff::Timestamp;
use quarterdeck_it::checker::{Law, Violation, check};
use quarterdeck_it::deck::program;
use quarterdeck_it::masters::{Holder, Image, Leftovers, Manifest, Masters, first_useful, gap, history, image};
use quarterdeck_it::{Node, eventually};
use serde_json::{Value, json};

use super::LONG;

/// Name of the image under test.
pub(super) const IMAGE: &str = "quarterdeck.dev/quarterdeck:test";
/// Name of the Lease.
const LEASE: &str = "quarterdeck";
/// Where the parents of directory addons are.
const PARENTS: &str = "/api/v1/namespaces/kube-system/configmaps?labelSelector=quarterdeck.dev/addon-source";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// Masters, and the master that is asked: one that stands.
pub(super) struct World {
    pub(super) masters: Masters,
    /// What every replica is started with.
    pub(super) manifest: Manifest,
    before: Leftovers,
    /// Goes with the world.
    _image: Image,
}

impl World {
    /// Bare masters that have the image, and nothing of ours running.
    pub(super) async fn bare() -> Result<Self> {
        let image = image(&program()?, IMAGE).await?;
        let before = Leftovers::look()?;
        let masters = Masters::start(&image).await?;
        // The fence has to stand before anybody leads: each write then says under which epoch it is.
        let manifest = Manifest::shipped()?.image(IMAGE).arg("--fence=required").named_controllers().await?;
        Ok(Self { masters, manifest, before, _image: image })
    }

    /// With quarterdeck on all three, by a manifest that is changed so.
    pub(super) async fn manned(change: impl Fn(Manifest) -> Manifest) -> Result<(Self, Holder)> {
        let mut world = Self::bare().await?;
        world.manifest = change(world.manifest);
        world.man().await
    }

    /// Starts quarterdeck on all three, and returns when there is a network for pods, and one that leads.
    pub(super) async fn man(self) -> Result<(Self, Holder)> {
        self.masters.man(&self.manifest, LONG).await?;
        let holder = self.leader(1, None).await?;
        self.nodes_ready(1).await?;
        Ok((self, holder))
    }

    /// Ends the masters, and makes sure that nothing stays.
    pub(super) async fn end(self) -> Result<()> {
        let folder = self.masters.folder().to_owned();
        self.masters.stop().await?;
        self.before.until_none(&folder).await
    }

    /// The one that leads by the Lease and by its own word, under another epoch than this one.
    pub(super) async fn leader(&self, asked: usize, after: Option<&Holder>) -> Result<Holder> {
        eventually("one replica leads", LONG, || async {
            let holder = self.masters.until_held(asked, after, LONG).await?;
            let status = self.masters.master(holder.master).status().await?;
            ensure!(status.leads(), "{holder:?} does not say so");
            Ok(holder)
        })
        .await
    }

    /// What a path of one master's kube-apiserver answers; none if there is nothing.
    pub(super) async fn get(&self, asked: usize, path: &str) -> Result<Option<Value>> {
        match self.masters.client(asked).await?.request(Request::get(path).body(Vec::new())?).await {
            Ok(value) => Ok(Some(value)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error).with_context(|| format!("GET {path} of master {asked}")),
        }
    }

    /// Makes an object, also while servers change their leader; one that is there already is left alone.
    pub(super) async fn make(&self, asked: usize, path: &str, object: &Value) -> Result<()> {
        eventually(&format!("{path} takes {}", object["metadata"]["name"]), LONG, || async {
            let request = Request::builder().method(Method::POST).uri(path).header("content-type", "application/json");
            let request = request.body(object.to_string().into_bytes())?;
            match self.masters.client(asked).await?.request::<Value>(request).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                Err(error) => Err(error).context("creating"),
            }
        })
        .await
    }

    /// Deletes an object, also while servers change their leader.
    pub(super) async fn delete(&self, asked: usize, path: &str) -> Result<()> {
        eventually(&format!("{path} is deleted"), LONG, || async {
            let request = Request::delete(path).body(Vec::new())?;
            match self.masters.client(asked).await?.request_text(request).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                Err(error) => Err(error).context("deleting"),
            }
        })
        .await
    }

    /// Waits until the parent of a file says this state.
    pub(super) async fn addon_state(&self, asked: usize, file: &str, state: &str) -> Result<Value> {
        eventually(&format!("{file} is {state}"), LONG, || async {
            let all = self.get(asked, PARENTS).await?.context("no ConfigMaps")?;
            let all = all["items"].as_array().cloned().unwrap_or_default();
            let parent = all.into_iter().find(|map| map["metadata"]["annotations"]["quarterdeck.dev/addon"] == file);
            let data = parent.context("it has no parent")?["data"].clone();
            if data["state"] == state { Ok(data) } else { bail!("{data}") }
        })
        .await
    }

    /// Waits until the nodes take pods: their network's configuration comes by an addon.
    pub(super) async fn nodes_ready(&self, asked: usize) -> Result<()> {
        eventually("all nodes are ready", LONG, || async {
            let nodes = self.get(asked, "/api/v1/nodes").await?.context("no nodes")?;
            let nodes = nodes["items"].as_array().cloned().unwrap_or_default();
            let conditions = |node: &Value| node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = |node: &&Value| {
                conditions(node).iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
            };
            let count = nodes.iter().filter(ready).count();
            ensure!(count == 3, "{count} of {}: {:?}", nodes.len(), nodes.iter().map(conditions).collect::<Vec<_>>());
            Ok(())
        })
        .await
        .with_context(|| self.masters.master(asked).logs())
    }

    /// Pods on one master that answer requests, by name.
    pub(super) async fn backends(&self, on: usize, app: &str, names: &[&str]) -> Result<()> {
        for name in names {
            self.make(on, PODS, &backend(name, app, &self.masters.master(on).name())).await?;
        }
        for name in names {
            self.pod_ready(on, name).await?;
        }
        Ok(())
    }

    /// Waits until a pod is Ready.
    pub(super) async fn pod_ready(&self, asked: usize, name: &str) -> Result<()> {
        eventually(&format!("{name} is ready"), LONG, || async {
            let pod = self.get(asked, &format!("{PODS}/{name}")).await?.context("it is not there")?;
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
            ensure!(conditions.iter().any(ready), "{}", pod["status"]);
            Ok(())
        })
        .await
        .with_context(|| self.masters.master(asked).logs())
    }

    /// A Service of these backends; the address where it is reached.
    pub(super) async fn service(&self, asked: usize, name: &str, app: &str) -> Result<SocketAddr> {
        let service = json!({
            "metadata": { "name": name },
            "spec": { "selector": { "app": app }, "ports": [{ "port": 80, "targetPort": 8080 }] },
        });
        self.make(asked, SERVICES, &service).await?;
        eventually(&format!("{name} has an address"), LONG, || async {
            let service = self.get(asked, &format!("{SERVICES}/{name}")).await?.context("it is not there")?;
            let address: IpAddr = service["spec"]["clusterIP"].as_str().context("no address")?.parse()?;
            Ok(SocketAddr::new(address, 80))
        })
        .await
    }

    /// The first useful write that was admitted after a moment, under another epoch than this one; seconds from then.
    pub(super) async fn useful_write(&self, after: Timestamp, old: &Holder) -> Result<f64> {
        let mut audit = self.masters.audit();
        let audit = parking_lot::Mutex::new(&mut audit);
        eventually("a useful write of the next epoch", LONG, || async {
            let act = first_useful(audit.lock().read()?, after, &old.token).context("none is in the logs")?;
            Ok(act.answered.duration_since(after).as_secs_f64())
        })
        .await
    }

    /// Seconds between the last write of one epoch and the first of another.
    pub(super) fn gap(&self, old: &Holder, new: &Holder) -> Result<f64> {
        let mut audit = self.masters.audit();
        gap(audit.read()?, &old.token, &new.token).context("one of them wrote nothing")
    }

    /// Nothing of a past epoch was admitted after the next one had begun, and nothing without an epoch; at least so many
    /// epochs wrote.
    pub(super) fn judge(&self, epochs: usize) -> Result<()> {
        let mut audit = self.masters.audit();
        let history = history(audit.read()?, LEASE)?;
        ensure!(history.working_tenures() >= epochs, "fewer than {epochs} epochs wrote: {:#?}", history.tenures);
        let violations: Vec<_> = check(&history, Law::NothingLate).iter().map(Violation::to_string).collect();
        ensure!(violations.is_empty(), "{violations:#?}\n{:#?}", history.tenures);
        Ok(())
    }
}

/// A pod that answers requests with its name. It goes on answering for the whole of its grace when it is told to end:
/// whoever still has its address finds it.
fn backend(name: &str, app: &str, node: &str) -> Value {
    let script = format!("mkdir /tmp/www && echo {name} >/tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www");
    json!({
        "metadata": { "name": name, "labels": { "app": app } },
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 30,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{
                "name": "main", "image": Node::SHELL_IMAGE, "command": ["sh", "-c", script],
                "readinessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1, "timeoutSeconds": 10 },
            }],
        },
    })
}

/// A pod that runs one script and ends, on a node.
pub(super) fn once(name: &str, node: &str, script: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "nodeName": node, "restartPolicy": "Never", "automountServiceAccountToken": false,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{ "name": "main", "image": Node::SHELL_IMAGE, "command": ["sh", "-c", script] }],
        },
    })
}
