//! The managers of a cluster, and the ways to them.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, Config};
use tokio::sync::OnceCell;

use super::choose;
use super::credentials::Credentials;
use super::error::{ReachError, Right};
use super::lease::{Election, Replica, split};
use super::link::{self, PATIENCE};
use super::manager::Manager;
use super::pod;
use super::verify::Trust;
use crate::cli::{Connection, ReachFlags};
use crate::server;

/// Where replicas have their own Leases.
const REPLICAS_NAMESPACE: &str = "quarterdeck-replicas";
/// Port at which managers serve unless they are told otherwise.
const USUAL_PORT: u16 = 10267;
/// More replicas than anybody has.
const MOST: u32 = 500;

/// What the Leases say at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    /// The replicas, by name.
    pub(crate) replicas: Vec<Replica>,
    /// The Lease of the election; `None` if it is not there or may not be read.
    pub(crate) election: Option<Election>,
    /// When this was read, by our clock.
    pub(crate) at: Timestamp,
}

/// A manager, and what stood in the way of those that were to be asked before it.
pub(crate) struct Reached {
    /// The manager.
    pub(crate) manager: Manager,
    /// Why the others could not be asked.
    pub(crate) passed: Vec<ReachError>,
}

/// The managers of a cluster.
pub(crate) struct Site {
    flags: ReachFlags,
    /// The kubeconfig; `None` if there is none and none is needed.
    config: Option<Config>,
    /// Talks to kube-apiserver.
    client: Option<Client>,
    /// What `--certificate-authority` names.
    authority: Option<Trust>,
    /// Made when they are first needed: that may run a program.
    credentials: OnceCell<Arc<Credentials>>,
}

impl Site {
    /// The managers that the command line means. Nobody is asked yet.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read, or a flag makes no sense.
    pub(crate) async fn open(connection: &Connection, flags: &ReachFlags) -> anyhow::Result<Self> {
        let authority = flags.certificate_authority.as_deref().map(Trust::authority).transpose()?;
        let needs_server = flags.address.is_none() || authority.is_none();
        let config = match server::config(connection).await {
            Ok(config) => Some(config),
            // An address and an authority are all it takes; the kubeconfig only has the credentials.
            Err(_) if !needs_server && connection.kubeconfig.is_none() && connection.context.is_none() => None,
            Err(error) => return Err(error),
        };
        let client = match config.clone().filter(|_| needs_server) {
            Some(mut config) => {
                // Errors are told at once; who wants to see it again asks again.
                config.default_retry = false;
                Some(Client::try_from(config).context("kubeconfig")?)
            }
            None => None,
        };
        Ok(Self { flags: flags.clone(), config, client, authority, credentials: OnceCell::new() })
    }

    /// The Lease of the election, `namespace/name`.
    pub(crate) fn lease(&self) -> &str {
        &self.flags.lease
    }

    /// Whether the replicas are found by their Leases; else there is one address, and nobody to follow.
    pub(crate) fn has_leases(&self) -> bool {
        self.client.is_some()
    }

    /// Reads the Leases.
    ///
    /// # Errors
    /// When those of the replicas cannot be read. Without the election's, their own words have to do.
    pub(crate) async fn survey(&self) -> Result<Survey, ReachError> {
        let Some(client) = &self.client else {
            return Ok(Survey { replicas: Vec::new(), election: None, at: Timestamp::now() });
        };
        let leases: Api<Lease> = Api::namespaced(client.clone(), REPLICAS_NAMESPACE);
        let what = format!("Leases of namespace {REPLICAS_NAMESPACE}");
        let params = ListParams::default().limit(MOST);
        let right =
            Right { verbs: "list", resource: "leases", namespace: REPLICAS_NAMESPACE, role: "quarterdeck-replicas" };
        let listed = in_time(&what, leases.list(&params)).await?;
        let listed = listed.map_err(|error| ReachError::of_server(error, &what, &right))?;
        let mut replicas: Vec<Replica> = listed.items.iter().map(Replica::of).collect();
        // Other elections have their own replicas.
        replicas.retain(|replica| replica.election.as_ref().is_none_or(|election| *election == self.flags.lease));
        replicas.sort_by(|a, b| a.name.cmp(&b.name));
        let (namespace, name) = self.flags.lease.split_once('/').ok_or_else(|| ReachError::Flag {
            flag: "lease",
            reason: format!("{:?} is not NAMESPACE/NAME", self.flags.lease),
        })?;
        let what = format!("Lease {}", self.flags.lease);
        let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
        let election = match in_time(&what, leases.get_opt(name)).await? {
            Ok(lease) => lease.as_ref().map(Election::of),
            Err(kube::Error::Api(status)) if status.is_forbidden() => None,
            Err(source) => return Err(ReachError::Server { what, source: Box::new(source) }),
        };
        Ok(Survey { replicas, election, at: Timestamp::now() })
    }

    /// The replica that is to be asked first, if replicas are known.
    pub(crate) fn first<'s>(&self, survey: &'s Survey) -> Option<&'s str> {
        let order = choose::order(&survey.replicas, survey.election.as_ref(), self.flags.replica.as_deref(), survey.at);
        order.ok()?.first().map(|replica| replica.name.as_str())
    }

    /// A connection to the first replica that can be reached, in the order in which they are to be asked, those that are
    /// to be `avoided` last. `trying` hears of each before it is tried.
    ///
    /// # Errors
    /// When none can: what stands in the way of the first.
    pub(crate) async fn reach(
        &self,
        survey: &Survey,
        avoided: &BTreeSet<String>,
        mut trying: impl FnMut(&str),
    ) -> Result<Reached, ReachError> {
        let wanted = self.flags.replica.as_deref();
        if let Some(address) = &self.flags.address {
            let manager = self.by_address(address, survey, wanted).await?;
            return Ok(Reached { manager, passed: Vec::new() });
        }
        let mut order = choose::order(&survey.replicas, survey.election.as_ref(), wanted, survey.at)?;
        order.sort_by_key(|replica| avoided.contains(&replica.name));
        let mut passed = Vec::new();
        for replica in order {
            trying(&replica.name);
            match self.by_replica(replica).await {
                Ok(manager) => return Ok(Reached { manager, passed }),
                Err(error) if error.is_about_one_replica() => passed.push(error),
                Err(error) => return Err(error),
            }
        }
        Err(passed.into_iter().next().unwrap_or(ReachError::NoReplica { namespace: REPLICAS_NAMESPACE }))
    }

    /// A connection to the replica of this name.
    ///
    /// # Errors
    /// When it is not there, or cannot be reached.
    pub(crate) async fn reach_one(&self, survey: &Survey, name: &str) -> Result<Manager, ReachError> {
        match survey.replicas.iter().find(|replica| replica.name == name) {
            Some(replica) => self.by_replica(replica).await,
            None => Err(ReachError::NoReplica { namespace: REPLICAS_NAMESPACE }),
        }
    }

    /// At the address that was given: one of the replicas, or whom the authority vouches for.
    async fn by_address(&self, address: &str, survey: &Survey, wanted: Option<&str>) -> Result<Manager, ReachError> {
        let (host, port) = endpoint(address)?;
        let trust = match &self.authority {
            Some(authority) => authority.clone(),
            None => {
                let meant = choose::order(&survey.replicas, None, wanted, survey.at)?;
                let pins: Vec<_> = meant.iter().filter_map(|replica| replica.pin).collect();
                match meant.first() {
                    None => return Err(ReachError::NoReplica { namespace: REPLICAS_NAMESPACE }),
                    Some(replica) if pins.is_empty() => {
                        return Err(ReachError::NoPin { replica: replica.name.clone() });
                    }
                    Some(_) => Trust::Pins(pins),
                }
            }
        };
        let place = format!(
            "https://{}",
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        );
        let link = link::direct(&host, port, &place).await?;
        self.shake(link, (address, &place), &host, &trust).await
    }

    /// Through its pod, or at its own address if it is in none or the way there is shut.
    async fn by_replica(&self, replica: &Replica) -> Result<Manager, ReachError> {
        let trust = match (&self.authority, replica.pin) {
            (Some(authority), _) => authority.clone(),
            (None, Some(pin)) => Trust::Pins(vec![pin]),
            (None, None) => return Err(ReachError::NoPin { replica: replica.name.clone() }),
        };
        let shut = match self.through_pod(replica, &trust).await {
            Ok(Some(manager)) => return Ok(manager),
            Ok(None) => None,
            Err(error @ (ReachError::Forbidden { .. } | ReachError::Unreachable { .. })) => Some(error),
            Err(error) => return Err(error),
        };
        let straight = match (replica.host(), replica.port()) {
            (Some(host), Some(port)) => {
                let place = format!("replica {} at {host}:{port}", replica.name);
                match link::direct(host, port, &place).await {
                    Ok(link) => self.shake(link, (&replica.name, &place), host, &trust).await,
                    Err(error) => Err(error),
                }
            }
            _ => Err(ReachError::NoPod {
                replica: replica.name.clone(),
                namespace: self.flags.manager_namespace.clone(),
                selector: self.flags.manager_selector.clone(),
            }),
        };
        // What shut the usual way is what a person can do something about.
        straight.map_err(|error| shut.unwrap_or(error))
    }

    /// Through the pod of a replica, if it is in one.
    async fn through_pod(&self, replica: &Replica, trust: &Trust) -> Result<Option<Manager>, ReachError> {
        let Some(client) = &self.client else { return Ok(None) };
        let namespace = &self.flags.manager_namespace;
        let what = format!("pods of namespace {namespace}");
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let params = ListParams::default().labels(&self.flags.manager_selector).limit(MOST);
        let right = Right { verbs: "list", resource: "pods", namespace, role: "quarterdeck-pods" };
        let pods = in_time(&what, api.list(&params)).await?;
        let pods = pods.map_err(|error| ReachError::of_server(error, &what, &right))?;
        let Some(door) = pod::of(replica, &pods.items) else { return Ok(None) };
        let place = format!("replica {} in pod {}/{}", replica.name, door.namespace, door.pod);
        let link = link::forward(client, &door, &place).await?;
        // The certificate is for its host; a name that cannot be one is of no use to an authority either.
        let host = replica.host().unwrap_or("localhost");
        self.shake(link, (&replica.name, &place), host, trust).await.map(Some)
    }

    async fn shake(
        &self,
        link: link::Link,
        whom: (&str, &str),
        host: &str,
        trust: &Trust,
    ) -> Result<Manager, ReachError> {
        let credentials = self.credentials.get_or_try_init(|| async {
            match &self.config {
                Some(config) => Credentials::of(config).await.map(Arc::new),
                None => Ok(Arc::new(Credentials::none())),
            }
        });
        let credentials = Arc::clone(credentials.await?);
        let server = self.flags.tls_server_name.as_deref().unwrap_or(host);
        Manager::over(link, whom, server, trust, credentials).await
    }
}

/// The host and port of `--address`.
fn endpoint(address: &str) -> Result<(String, u16), ReachError> {
    let wrong = |reason: &str| ReachError::Flag { flag: "address", reason: format!("{address:?}: {reason}") };
    let bare = match address.split_once("://") {
        Some(("https", rest)) => rest.strip_suffix('/').unwrap_or(rest),
        Some(_) => return Err(wrong("managers serve https alone")),
        None => address,
    };
    if bare.contains(['/', '?', '#', '@']) {
        return Err(wrong("https://HOST:PORT and no more"));
    }
    let with_port = format!("{bare}:{USUAL_PORT}");
    let parts = split(bare).or_else(|| split(&with_port).filter(|_| !bare.trim_start_matches('[').is_empty()));
    let (host, port) = parts.ok_or_else(|| wrong("it is not https://HOST:PORT"))?;
    Ok((host.to_owned(), port))
}

/// An exchange with kube-apiserver, not for ever.
async fn in_time<T>(
    what: &str,
    exchange: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Result<T, kube::Error>, ReachError> {
    let answered = tokio::time::timeout(PATIENCE, exchange).await;
    answered.map_err(|_| ReachError::TimedOut { what: format!("kube-apiserver: {what}"), after: PATIENCE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let cases = [
            ("https://10.0.0.1:1", Some(("10.0.0.1", 1))),
            ("https://master.example/", Some(("master.example", USUAL_PORT))),
            ("[fd00::1]:9", Some(("fd00::1", 9))),
            ("https://[fd00::1]", Some(("fd00::1", USUAL_PORT))),
            ("127.0.0.1:10267", Some(("127.0.0.1", 10267))),
            ("http://10.0.0.1:1", None),
            ("https://10.0.0.1:1/statusz", None),
            ("https://user@host:1", None),
            ("https://", None),
            ("https://host:x", None),
        ];
        for (address, parts) in cases {
            let found = endpoint(address).ok();
            assert_eq!(found.as_ref().map(|(host, port)| (host.as_str(), *port)), parts, "{address}");
        }
    }
}
