//! From messages to the model. What makes no sense is refused, naming the field: a field that was left out is never
//! taken for an answer.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use super::pb;
use super::status::from_node_error;
use crate::error::{CloudError, Result};
use crate::model::{
    AddressKind, Answers, Backend, ClusterId, Deletion, ExternalTraffic, Handle, Ingress, IngressPoint, Instance,
    LbOutcome, LoadBalancerSpec, Lookup, NodeAddress, NodeRef, OwnedLoadBalancer, Owner, Port, Proof, Protocol, Route,
};
use crate::provider::ProviderInfo;

/// How many nodes a plug-in is asked for at once if it does not say.
const DEFAULT_BATCH: usize = 500;
/// When a plug-in is asked again if it does not say.
const DEFAULT_POLL: Duration = Duration::from_secs(5);

/// A field of a message makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub(super) struct Malformed {
    field: String,
    reason: String,
}

type Decoded<T> = std::result::Result<T, Malformed>;

fn malformed(field: &str, reason: impl Display) -> Malformed {
    Malformed { field: field.to_owned(), reason: reason.to_string() }
}

impl Malformed {
    /// Says which message the field is in.
    fn within(mut self, field: &str) -> Self {
        self.field = format!("{field}.{}", self.field);
        self
    }

    /// Says which item of a list it is in.
    fn at(self, list: &str, index: usize) -> Self {
        self.within(&format!("{list}[{index}]"))
    }
}

fn parse<T: FromStr<Err: Display>>(field: &str, text: &str) -> Decoded<T> {
    text.parse().map_err(|error| malformed(field, format!("{text:?}: {error}")))
}

fn parse_all<T: FromStr<Err: Display>>(field: &str, texts: &[String]) -> Decoded<Vec<T>> {
    texts.iter().map(|text| parse(field, text)).collect()
}

fn filled(field: &str, text: String) -> Decoded<String> {
    if text.is_empty() { Err(malformed(field, "is empty")) } else { Ok(text) }
}

fn given<T>(field: &str, value: Option<T>) -> Decoded<T> {
    value.ok_or_else(|| malformed(field, "is missing"))
}

fn port(field: &str, number: u32) -> Decoded<u16> {
    u16::try_from(number).map_err(|_| malformed(field, format!("{number} is no port")))
}

fn duration(field: &str, time: prost_types::Duration) -> Decoded<Duration> {
    time.try_into().map_err(|_| malformed(field, "is negative"))
}

/// A time to ask again after.
fn poll_after(time: Option<prost_types::Duration>) -> Decoded<Duration> {
    let time = time.map(|time| duration("poll_after", time)).transpose()?;
    Ok(time.filter(|time| !time.is_zero()).unwrap_or(DEFAULT_POLL))
}

/// Each item of a list, naming the first that makes no sense.
fn each<M, T>(list: &str, messages: Vec<M>, decode: impl Fn(M) -> Decoded<T>) -> Decoded<Vec<T>> {
    let decode = |(index, message)| decode(message).map_err(|error: Malformed| error.at(list, index));
    messages.into_iter().enumerate().map(decode).collect()
}

/// An optional name; empty means none.
pub(super) fn handle(known: String) -> Option<Handle> {
    Some(known).filter(|known| !known.is_empty()).map(Handle)
}

/// What the next page is asked with.
pub(super) fn next_page(token: String) -> Option<String> {
    Some(token).filter(|token| !token.is_empty())
}

pub(super) fn info(message: pb::GetInfoResponse) -> Decoded<ProviderInfo> {
    let scheme = |scheme: String| {
        if scheme.is_empty() || scheme.contains("://") {
            return Err(malformed("schemes", format!("{scheme:?} is no scheme: it stands before `://`")));
        }
        Ok(scheme)
    };
    Ok(ProviderInfo {
        name: filled("name", message.name)?,
        schemes: message.schemes.into_iter().map(scheme).collect::<Decoded<_>>()?,
        max_batch: if message.max_batch == 0 { DEFAULT_BATCH } else { message.max_batch as usize },
        instances: message.instances,
        load_balancers: message.load_balancers,
        routes: message.routes,
        needs_addresses: message.needs_addresses,
    })
}

pub(super) fn node_ref(message: pb::NodeRef) -> NodeRef {
    NodeRef {
        name: message.name.into(),
        provider_id: Some(message.provider_id).filter(|id| !id.is_empty()).map(Into::into),
    }
}

fn address(message: pb::NodeAddress) -> Decoded<NodeAddress> {
    let kind = match message.kind() {
        pb::AddressKind::Unspecified => return Err(malformed("kind", format!("{} is no kind", message.kind))),
        pb::AddressKind::Hostname => AddressKind::Hostname,
        pb::AddressKind::InternalIp => AddressKind::InternalIp,
        pb::AddressKind::ExternalIp => AddressKind::ExternalIp,
        pb::AddressKind::InternalDns => AddressKind::InternalDns,
        pb::AddressKind::ExternalDns => AddressKind::ExternalDns,
    };
    Ok(NodeAddress { kind, address: filled("address", message.address)? })
}

fn instance(message: pb::Instance) -> Decoded<Instance> {
    Ok(Instance {
        provider_id: filled("provider_id", message.provider_id)?,
        instance_type: message.instance_type,
        addresses: each("addresses", message.addresses, address)?,
        zone: message.zone,
        region: message.region,
        labels: message.labels.into_iter().collect(),
        shutdown: message.shutdown,
    })
}

fn lookup(answer: Option<pb::node_answer::Answer>) -> Result<Lookup> {
    use pb::node_answer::Answer;
    let decoded = match answer {
        Some(Answer::Found(found)) => {
            instance(found).map(|found| Lookup::Found(Box::new(found))).map_err(|error| error.within("found"))
        }
        Some(Answer::Absent(absent)) => {
            filled("absent.evidence", absent.evidence).map(|evidence| Lookup::Absent(Proof { evidence }))
        }
        Some(Answer::NotMine(_)) => Ok(Lookup::NotMine),
        Some(Answer::Error(error)) => return Err(from_node_error(&error)),
        None => Err(malformed("answer", "is missing")),
    };
    decoded.map_err(|error| nonsense(&error))
}

/// Answers about nodes; one that makes no sense costs its own node alone.
pub(super) fn answers(message: pb::BatchGetResponse) -> Answers {
    let mut nodes = HashMap::with_capacity(message.nodes.len());
    for answered in message.nodes {
        // Without a node it answers nothing: the one it was meant for counts as unanswered.
        let Some(node) = answered.node.map(node_ref) else { continue };
        let answer = lookup(answered.answer);
        nodes
            .entry(node)
            .and_modify(|known| *known = Err(CloudError::Other("the plug-in answered twice for this node".to_owned())))
            .or_insert(answer);
    }
    Answers { account: message.account, nodes }
}

/// What an answer of a plug-in that makes no sense is to its caller. It may have been done all the same.
pub(super) fn nonsense(error: &Malformed) -> CloudError {
    CloudError::Other(format!("the plug-in's answer makes no sense: {error}"))
}

pub(super) fn owner(message: Option<pb::Owner>) -> Decoded<Owner> {
    let message = given("owner", message)?;
    Ok(Owner {
        cluster: ClusterId(filled("owner.cluster_id", message.cluster_id)?.into()),
        namespace: message.namespace,
        name: message.name,
        uid: filled("owner.uid", message.uid)?,
    })
}

pub(super) fn owned(messages: Vec<pb::OwnedLoadBalancer>) -> Decoded<Vec<OwnedLoadBalancer>> {
    each("load_balancers", messages, |message| {
        Ok(OwnedLoadBalancer {
            owner: owner(message.owner)?,
            handle: Handle(message.handle),
            fingerprint: message.fingerprint,
            age: message.age.map(|age| duration("age", age)).transpose()?,
        })
    })
}

fn service_port(message: pb::Port) -> Decoded<Port> {
    let protocol = match message.protocol() {
        pb::Protocol::Unspecified => {
            return Err(malformed("protocol", format!("{} is no protocol", message.protocol)));
        }
        pb::Protocol::Tcp => Protocol::Tcp,
        pb::Protocol::Udp => Protocol::Udp,
        pb::Protocol::Sctp => Protocol::Sctp,
    };
    Ok(Port {
        protocol,
        port: port("port", message.port)?,
        node_port: port("node_port", message.node_port)?,
        name: message.name,
        app_protocol: message.app_protocol,
    })
}

fn backend(message: pb::Backend) -> Decoded<Backend> {
    let addresses = parse_all("addresses", &message.addresses)?;
    Ok(Backend { name: message.name, provider_id: message.provider_id, addresses })
}

fn is_ipv6(family: i32) -> Decoded<bool> {
    match pb::IpFamily::try_from(family) {
        Ok(pb::IpFamily::Ipv4) => Ok(false),
        Ok(pb::IpFamily::Ipv6) => Ok(true),
        _ => Err(malformed("ip_families", format!("{family} is no family"))),
    }
}

pub(super) fn spec(message: Option<pb::LoadBalancerSpec>) -> Decoded<LoadBalancerSpec> {
    let message = given("spec", message)?;
    let external_traffic = match message.external_traffic() {
        pb::ExternalTraffic::Unspecified => {
            return Err(malformed("spec.external_traffic", format!("{} is no policy", message.external_traffic)));
        }
        pb::ExternalTraffic::Cluster => ExternalTraffic::Cluster,
        pb::ExternalTraffic::Local => ExternalTraffic::Local,
    };
    Ok(LoadBalancerSpec {
        owner: owner(message.owner).map_err(|error| error.within("spec"))?,
        ports: each("spec.ports", message.ports, service_port)?,
        ipv6: message.ip_families.into_iter().map(is_ipv6).collect::<Decoded<_>>()?,
        addresses: parse_all("spec.addresses", &message.addresses)?,
        source_ranges: parse_all("spec.source_ranges", &message.source_ranges)?,
        external_traffic,
        health_check_node_port: port("spec.health_check_node_port", message.health_check_node_port)?,
        affinity: message.affinity.map(|time| duration("spec.affinity", time)).transpose()?,
        annotations: message.annotations.into_iter().collect(),
        backends: each("spec.backends", message.backends, backend)?,
    })
}

fn ingress(message: pb::Ingress) -> Decoded<Ingress> {
    let at = match given("at", message.at)? {
        pb::ingress::At::Ip(address) => IngressPoint::Ip(parse("ip", &address)?),
        pb::ingress::At::Hostname(name) => IngressPoint::Hostname(filled("hostname", name)?),
    };
    Ok(Ingress { at, proxy_mode: message.proxy_mode })
}

pub(super) fn outcome(message: Option<pb::LoadBalancerOutcome>) -> Decoded<LbOutcome> {
    use pb::load_balancer_outcome::Outcome;
    match given("outcome", message.and_then(|message| message.outcome))? {
        Outcome::Ready(ready) => Ok(LbOutcome::Ready {
            ingress: each("ready.ingress", ready.ingress, ingress)?,
            handle: Handle(filled("ready.handle", ready.handle)?),
            fingerprint: ready.fingerprint,
        }),
        Outcome::Provisioning(making) => {
            Ok(LbOutcome::Provisioning { poll_after: poll_after(making.poll_after)?, handle: handle(making.handle) })
        }
    }
}

pub(super) fn deletion(message: pb::EnsureLoadBalancerDeletedResponse) -> Decoded<Deletion> {
    use pb::ensure_load_balancer_deleted_response::Outcome;
    match given("outcome", message.outcome)? {
        Outcome::Gone(_) => Ok(Deletion::Gone),
        Outcome::InProgress(going) => Ok(Deletion::InProgress(poll_after(going.poll_after)?)),
    }
}

pub(super) fn route(field: &str, message: Option<pb::Route>) -> Decoded<Route> {
    one_route(given(field, message)?).map_err(|error| error.within(field))
}

fn one_route(message: pb::Route) -> Decoded<Route> {
    Ok(Route {
        destination: parse("destination", &message.destination)?,
        next_hops: parse_all("next_hops", &message.next_hops)?,
        name: message.name,
        node: message.node,
        provider_id: message.provider_id,
        blackhole: message.blackhole,
    })
}

pub(super) fn routes(messages: Vec<pb::Route>) -> Decoded<Vec<Route>> {
    each("routes", messages, one_route)
}
