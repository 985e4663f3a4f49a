//! Plug-ins that keep the protocol badly: what they leave out is never taken for an answer.

use parking_lot::Mutex;
use prost::Message as _;
use tokio::net::UnixListener;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

use super::{a_call, a_route, plugin_at};
use crate::error::CloudError;
use crate::grpc::pb::instances_server::{Instances, InstancesServer};
use crate::grpc::pb::load_balancers_server::{LoadBalancers, LoadBalancersServer};
use crate::grpc::pb::routes_server::{Routes, RoutesServer};
use crate::grpc::{MESSAGE_LIMIT, Plugin, pb};
use crate::model::{ClusterId, Handle, Lookup, NodeRef, Owner};
use crate::provider::{Instances as _, LoadBalancers as _, Routes as _};

type Answer<T> = Result<Response<T>, Status>;

/// A plug-in that says what it is told to, and nothing where it is told nothing.
#[derive(Default)]
struct Raw {
    nodes: Mutex<pb::BatchGetResponse>,
    owned: Mutex<pb::ListOwnedResponse>,
    deletion: Mutex<pb::EnsureLoadBalancerDeletedResponse>,
    outcome: Mutex<pb::EnsureLoadBalancerResponse>,
    status: Mutex<Option<Status>>,
    calls: Mutex<Vec<&'static str>>,
}

struct On<T>(T);

#[tonic::async_trait]
impl Instances for On<&'static Raw> {
    async fn batch_get(&self, _: Request<pb::BatchGetRequest>) -> Answer<pb::BatchGetResponse> {
        Ok(Response::new(self.0.nodes.lock().clone()))
    }
}

#[tonic::async_trait]
impl LoadBalancers for On<&'static Raw> {
    async fn get(&self, _: Request<pb::GetLoadBalancersRequest>) -> Answer<pb::GetLoadBalancersResponse> {
        Ok(Response::new(pb::GetLoadBalancersResponse::default()))
    }
    async fn ensure(&self, _: Request<pb::EnsureLoadBalancerRequest>) -> Answer<pb::EnsureLoadBalancerResponse> {
        Ok(Response::new(self.0.outcome.lock().clone()))
    }
    async fn update_backends(&self, _: Request<pb::UpdateBackendsRequest>) -> Answer<pb::UpdateBackendsResponse> {
        Ok(Response::new(pb::UpdateBackendsResponse::default()))
    }
    async fn ensure_deleted(
        &self,
        _: Request<pb::EnsureLoadBalancerDeletedRequest>,
    ) -> Answer<pb::EnsureLoadBalancerDeletedResponse> {
        Ok(Response::new(*self.0.deletion.lock()))
    }
    async fn list_owned(&self, _: Request<pb::ListOwnedRequest>) -> Answer<pb::ListOwnedResponse> {
        Ok(Response::new(self.0.owned.lock().clone()))
    }
}

#[tonic::async_trait]
impl Routes for On<&'static Raw> {
    async fn list(&self, _: Request<pb::ListRoutesRequest>) -> Answer<pb::ListRoutesResponse> {
        Err(self.0.status.lock().clone().expect("a status to answer with"))
    }
    async fn create(&self, _: Request<pb::CreateRouteRequest>) -> Answer<pb::CreateRouteResponse> {
        self.0.calls.lock().push("create");
        Ok(Response::new(pb::CreateRouteResponse {}))
    }
    async fn replace(&self, _: Request<pb::ReplaceRouteRequest>) -> Answer<pb::ReplaceRouteResponse> {
        self.0.calls.lock().push("replace");
        Err(Status::unimplemented("no such thing"))
    }
    async fn delete(&self, _: Request<pb::DeleteRouteRequest>) -> Answer<pb::DeleteRouteResponse> {
        self.0.calls.lock().push("delete");
        Err(Status::not_found("it was gone already"))
    }
}

/// Serves one service without any limits; lives until the runtime ends.
fn raw<S>(service: S) -> Plugin
where
    S: NamedService
        + tonic::codegen::Service<
            http::Request<tonic::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
            Future: Send,
        > + Clone
        + Send
        + 'static,
{
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("raw.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let incoming = futures::stream::unfold((listener, folder), |(listener, folder)| async move {
        Some((listener.accept().await.map(|(stream, _)| stream), (listener, folder)))
    });
    tokio::spawn(Server::builder().serve_with_incoming(service, Box::pin(incoming)));
    plugin_at(&socket)
}

fn leaked() -> &'static Raw {
    Box::leak(Box::default())
}

fn owner() -> Owner {
    Owner { cluster: ClusterId("cluster-1".into()), namespace: "a".into(), name: "b".into(), uid: "c".into() }
}

fn node(name: &str) -> NodeRef {
    NodeRef { name: name.into(), provider_id: None }
}

fn nonsensical<T: std::fmt::Debug>(answer: Result<T, CloudError>, field: &str) {
    match answer {
        Err(CloudError::Other(message)) if message.contains(field) => {}
        other => panic!("{other:?} does not name {field}"),
    }
}

#[tokio::test]
async fn no_node_is_absent_by_omission() {
    use pb::node_answer::Answer;
    let raw_plugin = leaked();
    let plugin = raw(InstancesServer::new(On(raw_plugin)));
    let answer = |name: &str, answer| pb::NodeAnswer { node: Some((&node(name)).into()), answer };
    let absent = |evidence: &str| Some(Answer::Absent(pb::Absent { evidence: evidence.into() }));
    let address = pb::NodeAddress { kind: 99, address: "10.0.0.1".into() };
    let odd = pb::Instance { provider_id: "x://1".into(), addresses: vec![address], ..pb::Instance::default() };
    raw_plugin.nodes.lock().nodes = vec![
        answer("nothing", None),
        answer("unproven", absent("")),
        answer("twice", Some(Answer::NotMine(pb::NotMine {}))),
        answer("twice", absent("really")),
        answer("nameless", Some(Answer::Found(pb::Instance::default()))),
        answer("odd", Some(Answer::Found(odd))),
        answer("erroneous", Some(Answer::Error(pb::NodeError::default()))),
        answer("good", absent("no such instance")),
        pb::NodeAnswer { node: None, answer: absent("of whom?") },
    ];
    let names = ["nothing", "unproven", "twice", "nameless", "odd", "erroneous", "good", "silent"];
    let told = plugin.get_many(&a_call(), &names.map(node)).await.unwrap().nodes;
    for (name, field) in [
        ("nothing", "answer: is missing"),
        ("unproven", "absent.evidence: is empty"),
        ("twice", "twice"),
        ("nameless", "found.provider_id: is empty"),
        ("odd", "found.addresses[0].kind: 99"),
        ("erroneous", ""),
    ] {
        nonsensical(told[&node(name)].clone(), field);
    }
    assert!(matches!(told[&node("good")], Ok(Lookup::Absent(_))));
    assert!(!told.contains_key(&node("silent")));
}

#[tokio::test]
async fn no_load_balancer_is_gone_or_ready_by_omission() {
    let raw_plugin = leaked();
    let plugin = raw(LoadBalancersServer::new(On(raw_plugin)));
    nonsensical(plugin.ensure_deleted(&a_call(), &owner(), None).await, "outcome: is missing");
    let spec = crate::model::LoadBalancerSpec {
        owner: owner(),
        ports: vec![],
        ipv6: vec![],
        addresses: vec![],
        source_ranges: vec![],
        external_traffic: crate::model::ExternalTraffic::Cluster,
        health_check_node_port: 0,
        affinity: None,
        annotations: std::collections::BTreeMap::new(),
        backends: vec![],
    };
    nonsensical(plugin.ensure(&a_call(), &spec, None).await, "outcome: is missing");
    nonsensical(plugin.update_backends(&a_call(), &spec, &Handle("x".into())).await, "outcome: is missing");
    let ingress = pb::Ingress { at: Some(pb::ingress::At::Ip("10.0.0.300".into())), proxy_mode: false };
    let ready = pb::Ready { ingress: vec![ingress], handle: "lb".into(), fingerprint: String::new() };
    raw_plugin.outcome.lock().outcome =
        Some(pb::LoadBalancerOutcome { outcome: Some(pb::load_balancer_outcome::Outcome::Ready(ready)) });
    nonsensical(plugin.ensure(&a_call(), &spec, None).await, "ready.ingress[0].ip: \"10.0.0.300\"");
    raw_plugin.owned.lock().load_balancers =
        vec![pb::OwnedLoadBalancer { owner: Some(pb::Owner::default()), ..pb::OwnedLoadBalancer::default() }];
    nonsensical(plugin.list_owned(&a_call(), None).await, "load_balancers[0].owner.cluster_id: is empty");
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_refused_by_the_caller_too() {
    let raw_plugin = leaked();
    let plugin = raw(LoadBalancersServer::new(On(raw_plugin)));
    raw_plugin.owned.lock().next_page_token = "x".repeat(MESSAGE_LIMIT + 1);
    assert!(raw_plugin.owned.lock().encoded_len() > MESSAGE_LIMIT);
    assert!(matches!(plugin.list_owned(&a_call(), None).await, Err(CloudError::Other(_))));
}

#[tokio::test]
async fn a_bare_code_is_taken_for_what_it_says_and_no_more() {
    let raw_plugin = leaked();
    let plugin = raw(RoutesServer::new(On(raw_plugin)));
    for (code, outcome) in [
        (Code::NotFound, "not_found"),
        (Code::Unimplemented, "not_implemented"),
        (Code::Unavailable, "unavailable"),
        (Code::Cancelled, "unavailable"),
        (Code::ResourceExhausted, "throttled"),
        (Code::DeadlineExceeded, "timeout"),
        (Code::Aborted, "conflict"),
        (Code::AlreadyExists, "conflict"),
        (Code::PermissionDenied, "denied"),
        (Code::Unauthenticated, "denied"),
        (Code::InvalidArgument, "invalid"),
        (Code::FailedPrecondition, "other"),
        (Code::OutOfRange, "other"),
        (Code::Internal, "other"),
        (Code::DataLoss, "other"),
        (Code::Unknown, "other"),
    ] {
        *raw_plugin.status.lock() = Some(Status::new(code, "why"));
        let error = plugin.list(&a_call(), None).await.expect_err("it fails");
        assert_eq!(error.outcome(), outcome, "{code:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_route_is_replaced_in_two_steps_where_the_cloud_cannot_do_it_in_one() {
    let raw_plugin = leaked();
    let plugin = raw(RoutesServer::new(On(raw_plugin)));
    let route = a_route();
    plugin.replace(&a_call(), &route, &route).await.unwrap();
    assert_eq!(*raw_plugin.calls.lock(), ["replace", "delete", "create"]);
}
