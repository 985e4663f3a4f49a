//! Somebody who sees every state that Services ever were in: no two show one address at a time, and none moves.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::service_yard::{NAMESPACE, Yard};

/// Watches the Services of the tests' namespace until it is dropped.
pub(super) struct Witness {
    seen: Arc<Mutex<Seen>>,
    _watch: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// What each Service shows now, by uid: first address of each, with its ports.
    now: BTreeMap<String, Shown>,
    /// What each Service showed first.
    first: BTreeMap<String, Vec<String>>,
    /// What must not be.
    wrong: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Shown {
    addresses: Vec<String>,
    ports: Vec<(String, i32)>,
}

impl Witness {
    /// Begins to look.
    pub(super) fn start(yard: &Yard) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let api: Api<Service> = Api::namespaced(yard.client.clone(), NAMESPACE);
        let watch = tokio::spawn(watch(api, Arc::clone(&seen)));
        Self { seen, _watch: AbortOnDropHandle::new(watch) }
    }

    /// What it saw so far.
    ///
    /// # Errors
    /// When two Services showed one address, or one Service showed two, one after the other.
    pub(super) fn verdict(&self) -> Result<()> {
        let seen = self.seen.lock();
        ensure!(seen.wrong.is_empty(), "{:#?}", seen.wrong);
        Ok(())
    }

    /// How many Services it saw with an address.
    pub(super) fn saw(&self) -> usize {
        self.seen.lock().first.len()
    }
}

/// Every change, in the order in which they were made.
async fn watch(api: Api<Service>, seen: Arc<Mutex<Seen>>) {
    let Ok(list) = api.list(&ListParams::default()).await else {
        seen.lock().wrong.push("Services cannot be listed".to_owned());
        return;
    };
    let mut version = list.metadata.resource_version.unwrap_or_default();
    list.items.iter().for_each(|service| seen.lock().look(service, false));
    loop {
        let Ok(stream) = api.watch(&WatchParams::default().timeout(240), &version).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let mut events = Box::pin(stream);
        while let Some(Ok(event)) = events.next().await {
            let (service, gone) = match event {
                WatchEvent::Added(service) | WatchEvent::Modified(service) => (service, false),
                WatchEvent::Deleted(service) => (service, true),
                WatchEvent::Bookmark(mark) => {
                    version = mark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(error) => {
                    seen.lock().wrong.push(format!("the watch ended: {error:?}"));
                    return;
                }
            };
            version = service.metadata.resource_version.clone().unwrap_or_default();
            seen.lock().look(&service, gone);
        }
    }
}

impl Seen {
    fn look(&mut self, service: &Service, gone: bool) {
        let uid = service.metadata.uid.clone().unwrap_or_default();
        let name = service.metadata.name.clone().unwrap_or_default();
        if gone {
            self.now.remove(&uid);
            return;
        }
        let points = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        let addresses: Vec<String> = points.into_iter().flatten().filter_map(|point| point.ip.clone()).collect();
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        let ports = ports.map(|port| (port.protocol.clone().unwrap_or_default(), port.port)).collect();
        let shown = Shown { addresses, ports };
        let shares = |other: &Shown| {
            let address = shown.addresses.iter().find(|address| other.addresses.contains(address))?;
            let port = shown.ports.iter().find(|port| other.ports.contains(port))?;
            Some(format!("{address} port {port:?}"))
        };
        for (other, also) in self.now.iter().filter(|(other, _)| **other != uid) {
            if let Some(what) = shares(also) {
                self.wrong.push(format!("{name} ({uid}) and {other} both show {what}"));
            }
        }
        if !shown.addresses.is_empty() {
            let first = self.first.entry(uid.clone()).or_insert_with(|| shown.addresses.clone());
            if *first != shown.addresses {
                self.wrong.push(format!("{name} ({uid}) moved from {first:?} to {:?}", shown.addresses));
            }
        }
        self.now.insert(uid, shown);
    }
}
