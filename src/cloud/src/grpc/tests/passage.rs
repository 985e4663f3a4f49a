//! What is said arrives as it was said.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::scripted::{Asked, Mood, Scripted};
use super::{Served, a_call, shared};
use crate::error::CloudError;
use crate::grpc::channel::Connection;
use crate::grpc::{Plugin, PluginUri};
use crate::model::{
    AddressKind, Answers, Backend, ClusterId, Deletion, ExternalTraffic, Handle, Ingress, IngressPoint, Instance,
    LbOutcome, LoadBalancerSpec, Lookup, NodeAddress, NodeRef, OwnedLoadBalancer, Owner, Page, Port, Proof, Protocol,
    Route,
};
use crate::provider::{CallClass, Instances as _, LoadBalancers as _, Provider as _, ProviderInfo, Routes as _};

fn served() -> (Arc<Scripted>, Served, Plugin) {
    let provider = Arc::new(Scripted::default());
    let served = Served::new(shared(&provider));
    let plugin = served.plugin();
    (provider, served, plugin)
}

fn last(provider: &Scripted) -> Asked {
    provider.asked.lock().last().expect("it was asked").1.clone()
}

fn node(name: &str, id: Option<&str>) -> NodeRef {
    NodeRef { name: name.into(), provider_id: id.map(Into::into) }
}

fn owner() -> Owner {
    Owner {
        cluster: ClusterId("cluster-1".into()),
        namespace: "default".into(),
        name: "web".into(),
        uid: "0f3d".into(),
    }
}

fn full_spec() -> LoadBalancerSpec {
    let port = |name: &str, protocol, port| Port {
        name: name.into(),
        protocol,
        port,
        node_port: 30_000 + port,
        app_protocol: "h2c".into(),
    };
    LoadBalancerSpec {
        owner: owner(),
        ports: vec![port("a", Protocol::Tcp, 80), port("b", Protocol::Udp, 53), port("", Protocol::Sctp, 9)],
        ipv6: vec![true, false],
        addresses: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
        source_ranges: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        external_traffic: ExternalTraffic::Local,
        health_check_node_port: 32_000,
        affinity: Some(Duration::from_secs(10_800)),
        annotations: BTreeMap::from([("example.com/kind".into(), "ünïque".into())]),
        backends: vec![Backend {
            name: "n1".into(),
            provider_id: "scripted://1".into(),
            addresses: vec!["10.1.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        }],
    }
}

fn route(destination: &str) -> Route {
    Route {
        name: "r".into(),
        destination: destination.parse().unwrap(),
        node: "n1".into(),
        provider_id: "scripted://1".into(),
        next_hops: vec!["10.1.0.1".parse().unwrap()],
        blackhole: true,
    }
}

#[tokio::test]
async fn a_call_carries_who_makes_it_and_until_when() {
    let (provider, _served, plugin) = served();
    let mut call = a_call();
    call.lease_epoch = u64::MAX;
    plugin.create(&call, &route("10.2.0.0/24")).await.unwrap();
    let told = provider.asked.lock()[0].0.clone();
    assert_eq!((told.cluster, told.op_id, told.lease_epoch), (call.cluster, call.op_id, call.lease_epoch));
    // It lost what the way took, and won nothing.
    assert!(told.deadline <= call.deadline + Duration::from_secs(1));
    assert!(told.deadline + Duration::from_secs(50) > call.deadline);
}

#[tokio::test]
async fn what_a_provider_is() {
    let (provider, _served, plugin) = served();
    let info = ProviderInfo {
        name: "other".into(),
        schemes: vec!["a".into(), "b".into()],
        max_batch: 7,
        instances: true,
        load_balancers: false,
        routes: true,
        needs_addresses: true,
    };
    provider.info.lock().clone_from(&info);
    assert_eq!(plugin.info(&a_call()).await.unwrap(), info);
    plugin.probe(&a_call()).await.unwrap();
    assert_eq!(last(&provider), Asked::Probe);
}

#[tokio::test]
async fn instances() {
    let (provider, _served, plugin) = served();
    let kinds = [
        AddressKind::Hostname,
        AddressKind::InternalIp,
        AddressKind::ExternalIp,
        AddressKind::InternalDns,
        AddressKind::ExternalDns,
    ];
    let found = Instance {
        provider_id: "scripted://1".into(),
        instance_type: "big".into(),
        addresses: kinds.map(|kind| NodeAddress { kind, address: "10.1.0.1".into() }).to_vec(),
        zone: "z".into(),
        region: "r".into(),
        labels: BTreeMap::from([("example.com/rack".into(), "7".into())]),
        shutdown: true,
    };
    let asked = [
        node("n1", Some("scripted://1")),
        node("n2", None),
        node("n3", Some("x://3")),
        node("n4", Some("scripted://4")),
    ];
    let answers = Answers {
        account: "account-1".into(),
        nodes: HashMap::from([
            (asked[0].clone(), Ok(Lookup::Found(Box::new(found)))),
            (asked[1].clone(), Ok(Lookup::Absent(Proof { evidence: "no such instance".into() }))),
            (asked[2].clone(), Ok(Lookup::NotMine)),
            (
                asked[3].clone(),
                Err(CloudError::Throttled { after: Some(Duration::from_secs(3)), message: "slow".into() }),
            ),
        ]),
    };
    *provider.answers.lock() = answers.clone();
    let told = plugin.get_many(&a_call(), &asked).await.unwrap();
    assert_eq!((told.account, told.nodes), (answers.account, answers.nodes));
    assert_eq!(last(&provider), Asked::GetMany(asked.to_vec()));
}

#[tokio::test]
async fn load_balancers() {
    let (provider, _served, plugin) = served();
    let (spec, handle) = (full_spec(), Handle("lb-1".into()));
    let outcomes = [
        LbOutcome::Ready {
            ingress: vec![
                Ingress { at: IngressPoint::Ip("2001:db8::9".parse().unwrap()), proxy_mode: true },
                Ingress { at: IngressPoint::Hostname("lb.example.com".into()), proxy_mode: false },
            ],
            handle: handle.clone(),
            fingerprint: "abc".into(),
        },
        LbOutcome::Provisioning { poll_after: Duration::from_millis(1500), handle: None },
        LbOutcome::Provisioning { poll_after: Duration::from_secs(2), handle: Some(handle.clone()) },
    ];
    for outcome in outcomes {
        *provider.outcome.lock() = outcome.clone();
        for known in [None, Some(&handle)] {
            assert_eq!(plugin.ensure(&a_call(), &spec, known).await.unwrap(), outcome);
            assert_eq!(last(&provider), Asked::Ensure(spec.clone(), known.cloned()));
        }
        assert_eq!(plugin.update_backends(&a_call(), &spec, &handle).await.unwrap(), outcome);
        assert_eq!(last(&provider), Asked::UpdateBackends(spec.clone(), handle.clone()));
    }
    for deletion in [Deletion::Gone, Deletion::InProgress(Duration::from_secs(9))] {
        *provider.deletion.lock() = deletion;
        assert_eq!(plugin.ensure_deleted(&a_call(), &owner(), Some(&handle)).await.unwrap(), deletion);
        assert_eq!(last(&provider), Asked::EnsureDeleted(owner(), Some(handle.clone())));
    }
    let owned = |age| OwnedLoadBalancer { owner: owner(), handle: handle.clone(), fingerprint: "f".into(), age };
    let items = vec![owned(None), owned(Some(Duration::from_secs(61)))];
    *provider.owned.lock() = Page { items: items.clone(), next: Some("2".into()) };
    assert_eq!(plugin.get(&a_call(), &owner()).await.unwrap(), items);
    assert_eq!(last(&provider), Asked::Get(owner()));
    let page = plugin.list_owned(&a_call(), Some("1")).await.unwrap();
    assert_eq!((page.items, page.next), (items, Some("2".into())));
    assert_eq!(last(&provider), Asked::ListOwned(Some("1".into())));
}

#[tokio::test]
async fn load_balancers_of_other_clusters_are_left_out() {
    let (provider, _served, plugin) = served();
    let mut foreign = owner();
    foreign.cluster = ClusterId("cluster-2".into());
    let one = |owner| OwnedLoadBalancer { owner, handle: Handle("x".into()), fingerprint: String::new(), age: None };
    *provider.owned.lock() = Page { items: vec![one(foreign), one(owner())], next: None };
    assert_eq!(plugin.get(&a_call(), &owner()).await.unwrap(), vec![one(owner())]);
    assert_eq!(plugin.list_owned(&a_call(), None).await.unwrap().items, vec![one(owner())]);
}

#[tokio::test]
async fn routes() {
    let (provider, _served, plugin) = served();
    let (old, new) = (route("10.2.0.0/24"), route("2001:db8:2::/64"));
    *provider.routes.lock() = Page { items: vec![old.clone(), new.clone()], next: None };
    let page = plugin.list(&a_call(), None).await.unwrap();
    assert_eq!((page.items, page.next), (vec![old.clone(), new.clone()], None));
    assert_eq!(last(&provider), Asked::List(None));
    plugin.create(&a_call(), &old).await.unwrap();
    assert_eq!(last(&provider), Asked::Create(old.clone()));
    plugin.replace(&a_call(), &old, &new).await.unwrap();
    assert_eq!(last(&provider), Asked::Replace(old.clone(), new));
    plugin.delete(&a_call(), &old).await.unwrap();
    assert_eq!(last(&provider), Asked::Delete(old));
}

/// Every error there is.
fn errors() -> Vec<CloudError> {
    let text = || "why, \"ünïque\"".to_owned();
    let second = Duration::from_secs(1);
    let mut all = vec![
        CloudError::NotFound(text()),
        CloudError::NotImplemented(text()),
        CloudError::ImplementedElsewhere(text()),
        CloudError::RetryAfter { after: second, message: text() },
        CloudError::Throttled { after: None, message: text() },
        CloudError::Throttled { after: Some(Duration::from_millis(2500)), message: text() },
        CloudError::Timeout { method: "routes.create", after: second, maybe_applied: true },
        CloudError::Timeout { method: "routes.create", after: second, maybe_applied: false },
        CloudError::Conflict(text()),
        CloudError::Immutable(text()),
        CloudError::Quota(text()),
        CloudError::Denied(text()),
        CloudError::Invalid(text()),
        CloudError::Unavailable(text()),
        CloudError::BreakerOpen { provider: "behind".into(), left: second, last: text() },
        CloudError::NotLeading(text()),
        CloudError::Superseded(text()),
        CloudError::Other(text()),
    ];
    let busy = |class: CallClass| CloudError::Busy { provider: "behind".into(), class: class.name(), waited: second };
    all.extend(CallClass::ALL.map(busy));
    all
}

#[tokio::test]
async fn every_error_arrives_as_it_was_sent() {
    let (provider, _served, plugin) = served();
    for error in errors() {
        *provider.mood.lock() = Mood::Fails(error.clone());
        assert_eq!(plugin.create(&a_call(), &route("10.2.0.0/24")).await, Err(error));
    }
}

#[tokio::test]
async fn every_error_about_one_node_arrives_as_it_was_sent() {
    let (provider, _served, plugin) = served();
    let asked = node("n1", None);
    for mut error in errors() {
        if let CloudError::Timeout { method, .. } = &mut error {
            *method = "instances.get_many";
        }
        provider.answers.lock().nodes = HashMap::from([(asked.clone(), Err(error.clone()))]);
        let told = plugin.get_many(&a_call(), std::slice::from_ref(&asked)).await.unwrap();
        assert_eq!(told.nodes[&asked], Err(error));
    }
}

#[tokio::test]
async fn its_health_can_be_asked_for() {
    let provider = Arc::new(Scripted { able: false, ..Scripted::default() });
    let served = Served::new(shared(&provider));
    let channel = Connection::new(PluginUri::Unix(served.socket()), None).channel().await.unwrap();
    let mut health = HealthClient::new(channel);
    for (service, code) in [
        ("", Ok(())),
        ("quarterdeck.cloudprovider.v1.Identity", Ok(())),
        // It has no such part.
        ("quarterdeck.cloudprovider.v1.Routes", Err(tonic::Code::NotFound)),
    ] {
        let answer = health.check(HealthCheckRequest { service: service.to_owned() }).await;
        let serving =
            |answer: tonic::Response<HealthCheckResponse>| assert_eq!(answer.get_ref().status, 1, "{service}");
        assert_eq!(answer.map(serving).map_err(|status| status.code()), code, "{service}");
    }
}

#[tokio::test]
async fn a_long_message_is_cut() {
    let (provider, _served, plugin) = served();
    *provider.mood.lock() = Mood::Fails(CloudError::Quota("ü".repeat(100_000)));
    let Err(CloudError::Quota(message)) = plugin.probe(&a_call()).await else { panic!("another error") };
    assert!(message.starts_with("üü") && message.ends_with("ü…") && message.len() < 2000, "{}", message.len());
}
