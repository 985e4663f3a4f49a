//! How long callers wait, to the millisecond: their clock stands still but for the waits.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use clap::{Args as _, Command, FromArgMatches as _};
use tokio::time::Instant;
use uuid::Uuid;

use super::super::{GuardConfig, Guarded, Limits};
use super::authority;
use super::provider::route;
use crate::error::{CloudError, Result};
use crate::model::{
    Answers, ClusterId, Deletion, ExternalTraffic, Handle, LbOutcome, LoadBalancerSpec, NodeRef, OwnedLoadBalancer,
    Owner, Page, Route,
};
use crate::provider::{CallClass, CallCtx, Instances, LoadBalancers, Provider, ProviderInfo, Routes};

/// Says what it is, and nothing ever after.
#[derive(Default)]
struct Silent {
    asked: AtomicUsize,
}

impl Silent {
    async fn silence<T>(&self) -> Result<T> {
        self.asked.fetch_add(1, SeqCst);
        std::future::pending().await
    }
}

#[async_trait]
impl Provider for Silent {
    async fn info(&self, _: &CallCtx) -> Result<ProviderInfo> {
        Ok(ProviderInfo {
            name: "silent".to_owned(),
            schemes: Vec::new(),
            max_batch: 100,
            instances: true,
            load_balancers: true,
            routes: true,
            needs_addresses: false,
        })
    }

    async fn probe(&self, _: &CallCtx) -> Result<()> {
        self.silence().await
    }

    fn instances(&self) -> Option<&dyn Instances> {
        Some(self)
    }

    fn load_balancers(&self) -> Option<&dyn LoadBalancers> {
        Some(self)
    }

    fn routes(&self) -> Option<&dyn Routes> {
        Some(self)
    }
}

#[async_trait]
impl Instances for Silent {
    async fn get_many(&self, _: &CallCtx, _: &[NodeRef]) -> Result<Answers> {
        self.silence().await
    }
}

#[async_trait]
impl LoadBalancers for Silent {
    async fn get(&self, _: &CallCtx, _: &Owner) -> Result<Vec<OwnedLoadBalancer>> {
        self.silence().await
    }

    async fn ensure(&self, _: &CallCtx, _: &LoadBalancerSpec, _: Option<&Handle>) -> Result<LbOutcome> {
        self.silence().await
    }

    async fn update_backends(&self, _: &CallCtx, _: &LoadBalancerSpec, _: &Handle) -> Result<LbOutcome> {
        self.silence().await
    }

    async fn ensure_deleted(&self, _: &CallCtx, _: &Owner, _: Option<&Handle>) -> Result<Deletion> {
        self.silence().await
    }

    async fn list_owned(&self, _: &CallCtx, _: Option<&str>) -> Result<Page<OwnedLoadBalancer>> {
        self.silence().await
    }
}

#[async_trait]
impl Routes for Silent {
    async fn list(&self, _: &CallCtx, _: Option<&str>) -> Result<Page<Route>> {
        self.silence().await
    }

    async fn create(&self, _: &CallCtx, _: &Route) -> Result<()> {
        self.silence().await
    }

    async fn delete(&self, _: &CallCtx, _: &Route) -> Result<()> {
        self.silence().await
    }
}

/// The limits that these flags lead to.
fn limits(args: &[&str]) -> Limits {
    let command = GuardConfig::augment_args(Command::new("x").no_binary_name(true));
    let matches = command.try_get_matches_from(args).unwrap();
    GuardConfig::from_arg_matches(&matches).unwrap().limits().unwrap()
}

fn guard(limits: Limits) -> (Arc<Silent>, Arc<Guarded>) {
    let silent = Arc::new(Silent::default());
    let cluster = Arc::new(OnceLock::from(ClusterId("c".into())));
    let guard = Guarded::new("silent", Arc::clone(&silent) as _, cluster, limits).unwrap();
    (silent, Arc::new(guard))
}

fn owner() -> Owner {
    let text = || "x".to_owned();
    Owner { cluster: ClusterId("c".into()), namespace: text(), name: text(), uid: text() }
}

fn spec() -> LoadBalancerSpec {
    LoadBalancerSpec {
        owner: owner(),
        ports: Vec::new(),
        ipv6: vec![false],
        addresses: Vec::new(),
        source_ranges: Vec::new(),
        external_traffic: ExternalTraffic::Cluster,
        health_check_node_port: 0,
        affinity: None,
        annotations: Default::default(),
        backends: Vec::new(),
    }
}

/// Waits for one method's answer, which never comes; says what came instead, and after how long.
async fn wait_for(guard: &Guarded, method: &str) -> (CloudError, Duration) {
    let (right, op, handle) = (authority(), Uuid::new_v4(), Handle("h".to_owned()));
    let begun = Instant::now();
    let error = match method {
        "identity.probe" => guard.probe().await.err(),
        "loadbalancers.get" => guard.load_balancers_of(&owner()).await.err(),
        "loadbalancers.list_owned" => guard.owned_load_balancers().await.err(),
        "routes.list" => guard.routes().await.err(),
        // By what all questions about nodes go through, but without its pause for other questions.
        "instances.get_many" => {
            let nodes: Arc<[NodeRef]> = vec![NodeRef { name: "n".into(), provider_id: None }].into();
            super::super::Asker::ask(Arc::clone(&guard.core), nodes).await.err()
        }
        "routes.create" => guard.create_route(&right, op, &route()).await.err(),
        "routes.replace" => guard.replace_route(&right, op, &route(), &route()).await.err(),
        "routes.delete" => guard.delete_route(&right, op, &route()).await.err(),
        "loadbalancers.ensure" => guard.ensure_load_balancer(&right, op, &spec(), None).await.err(),
        "loadbalancers.update_backends" => guard.update_backends(&right, op, &spec(), &handle).await.err(),
        "loadbalancers.ensure_deleted" => guard.ensure_load_balancer_deleted(&right, op, &owner(), None).await.err(),
        other => panic!("{other}"),
    };
    (error.expect("it never answers"), begun.elapsed())
}

/// Whoever waits is told within a tick of the timer.
fn is_at(took: Duration, expected: Duration) -> bool {
    took >= expected && took <= expected + Duration::from_millis(2)
}

/// kubernetes#53191, linode-ccm#218: calls without a deadline, or with that of TCP.
#[tokio::test(start_paused = true)]
async fn timeout_defect_every_method_is_given_up_at_the_deadline_of_its_class() {
    let seconds = |class| match class {
        CallClass::Read => 10,
        CallClass::Batch => 20,
        CallClass::Route => 30,
        CallClass::LoadBalancer => 60,
    };
    let methods = super::super::Method::ALL.into_iter().filter(|method| method.name != "identity.info");
    for method in methods {
        // One each: a breaker would answer at once.
        let (_, guard) = guard(limits(&[]));
        let (error, took) = wait_for(&guard, method.name).await;
        assert!(is_at(took, Duration::from_secs(seconds(method.class))), "{}: {took:?}", method.name);
        let CloudError::Timeout { method: named, after, maybe_applied } = error else { panic!("{error:?}") };
        assert_eq!((named, after.as_secs()), (method.name, seconds(method.class)));
        assert_eq!(maybe_applied, method.class.changes(), "{}", method.name);
    }
}

#[tokio::test(start_paused = true)]
async fn flags_say_otherwise() {
    let args = ["--cloud-timeout=read=3s,loadbalancer=2m", "--cloud-timeout=routes.create=1500ms"];
    for (method, expected) in [
        ("routes.list", 3_000),
        ("loadbalancers.get", 3_000),
        ("loadbalancers.ensure", 120_000),
        ("routes.create", 1_500),
        ("routes.delete", 30_000),
        ("instances.get_many", 20_000),
    ] {
        let (_, guard) = guard(limits(&args));
        let (_, took) = wait_for(&guard, method).await;
        assert!(is_at(took, Duration::from_millis(expected)), "{method}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_is_waited_for_as_long_as_patience_lasts() {
    for class in [CallClass::Read, CallClass::Route, CallClass::LoadBalancer] {
        let (silent, guard) = guard(limits(&["--cloud-timeout=read=1h,route=1h,loadbalancer=1h"]));
        let method = match class {
            CallClass::Read => "routes.list",
            CallClass::Route => "routes.create",
            _ => "loadbalancers.ensure",
        };
        let calls: Vec<_> = (0..class.places())
            .map(|_| {
                let guard = Arc::clone(&guard);
                tokio::spawn(async move { wait_for(&guard, method).await })
            })
            .collect();
        // No timer is awaited here: the clock does not move while they begin.
        while silent.asked.load(SeqCst) < class.places() {
            tokio::task::yield_now().await;
        }
        let (error, took) = wait_for(&guard, method).await;
        assert!(matches!(error, CloudError::Busy { .. }), "{method}: {error:?}");
        assert!(is_at(took, Duration::from_secs(10)), "{method}: {took:?}");
        calls.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
