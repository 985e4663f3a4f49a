//! From the model to messages.

use std::net::IpAddr;
use std::time::Duration;

use super::pb;
use super::status::node_error;
use crate::error::Result;
use crate::model::{
    AddressKind, Answers, Backend, Deletion, ExternalTraffic, Handle, Ingress, IngressPoint, Instance, LbOutcome,
    LoadBalancerSpec, Lookup, NodeRef, OwnedLoadBalancer, Owner, Port, Protocol, Route,
};
use crate::provider::{CallCtx, ProviderInfo};

/// A duration; the largest that can be told where it is longer.
pub(super) fn duration(time: Duration) -> prost_types::Duration {
    time.try_into().unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// What the plug-in is told of a call.
pub(super) fn meta(call: &CallCtx, owner_uid: &str) -> Option<pb::CallMeta> {
    Some(pb::CallMeta {
        cluster_id: call.cluster.to_string(),
        owner_uid: owner_uid.to_owned(),
        op_id: call.op_id.to_string(),
        lease_epoch: call.lease_epoch,
    })
}

pub(super) fn handle(known: Option<&Handle>) -> String {
    known.map(|handle| handle.0.clone()).unwrap_or_default()
}

impl From<&ProviderInfo> for pb::GetInfoResponse {
    fn from(info: &ProviderInfo) -> Self {
        Self {
            name: info.name.clone(),
            schemes: info.schemes.clone(),
            max_batch: u32::try_from(info.max_batch).unwrap_or(u32::MAX),
            instances: info.instances,
            load_balancers: info.load_balancers,
            routes: info.routes,
            needs_addresses: info.needs_addresses,
        }
    }
}

impl From<&NodeRef> for pb::NodeRef {
    fn from(node: &NodeRef) -> Self {
        Self {
            name: node.name.to_string(),
            provider_id: node.provider_id.as_deref().map(str::to_owned).unwrap_or_default(),
        }
    }
}

impl From<AddressKind> for pb::AddressKind {
    fn from(kind: AddressKind) -> Self {
        match kind {
            AddressKind::Hostname => Self::Hostname,
            AddressKind::InternalIp => Self::InternalIp,
            AddressKind::ExternalIp => Self::ExternalIp,
            AddressKind::InternalDns => Self::InternalDns,
            AddressKind::ExternalDns => Self::ExternalDns,
        }
    }
}

impl From<&Instance> for pb::Instance {
    fn from(instance: &Instance) -> Self {
        let address = |own: &crate::model::NodeAddress| pb::NodeAddress {
            kind: pb::AddressKind::from(own.kind).into(),
            address: own.address.clone(),
        };
        Self {
            provider_id: instance.provider_id.clone(),
            instance_type: instance.instance_type.clone(),
            addresses: instance.addresses.iter().map(address).collect(),
            zone: instance.zone.clone(),
            region: instance.region.clone(),
            labels: instance.labels.clone().into_iter().collect(),
            shutdown: instance.shutdown,
        }
    }
}

fn answer(lookup: &Result<Lookup>) -> pb::node_answer::Answer {
    use pb::node_answer::Answer;
    match lookup {
        Ok(Lookup::Found(instance)) => Answer::Found(instance.as_ref().into()),
        Ok(Lookup::Absent(proof)) => Answer::Absent(pb::Absent { evidence: proof.evidence.clone() }),
        Ok(Lookup::NotMine) => Answer::NotMine(pb::NotMine {}),
        Err(error) => Answer::Error(node_error(error)),
    }
}

impl From<&Answers> for pb::BatchGetResponse {
    fn from(answers: &Answers) -> Self {
        let one =
            |(node, lookup): (&NodeRef, _)| pb::NodeAnswer { node: Some(node.into()), answer: Some(answer(lookup)) };
        Self { account: answers.account.clone(), nodes: answers.nodes.iter().map(one).collect() }
    }
}

impl From<&Owner> for pb::Owner {
    fn from(owner: &Owner) -> Self {
        Self {
            cluster_id: owner.cluster.to_string(),
            namespace: owner.namespace.clone(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
        }
    }
}

impl From<&OwnedLoadBalancer> for pb::OwnedLoadBalancer {
    fn from(owned: &OwnedLoadBalancer) -> Self {
        Self {
            owner: Some((&owned.owner).into()),
            handle: owned.handle.0.clone(),
            fingerprint: owned.fingerprint.clone(),
            age: owned.age.map(duration),
        }
    }
}

impl From<Protocol> for pb::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp,
        }
    }
}

impl From<&Port> for pb::Port {
    fn from(port: &Port) -> Self {
        Self {
            name: port.name.clone(),
            protocol: pb::Protocol::from(port.protocol).into(),
            port: port.port.into(),
            node_port: port.node_port.into(),
            app_protocol: port.app_protocol.clone(),
        }
    }
}

impl From<&Backend> for pb::Backend {
    fn from(backend: &Backend) -> Self {
        Self {
            name: backend.name.clone(),
            provider_id: backend.provider_id.clone(),
            addresses: texts(&backend.addresses),
        }
    }
}

impl From<&LoadBalancerSpec> for pb::LoadBalancerSpec {
    fn from(spec: &LoadBalancerSpec) -> Self {
        let family = |ipv6: &bool| if *ipv6 { pb::IpFamily::Ipv6 } else { pb::IpFamily::Ipv4 }.into();
        let traffic = match spec.external_traffic {
            ExternalTraffic::Cluster => pb::ExternalTraffic::Cluster,
            ExternalTraffic::Local => pb::ExternalTraffic::Local,
        };
        Self {
            owner: Some((&spec.owner).into()),
            ports: spec.ports.iter().map(Into::into).collect(),
            ip_families: spec.ipv6.iter().map(family).collect(),
            addresses: texts(&spec.addresses),
            source_ranges: spec.source_ranges.iter().map(ToString::to_string).collect(),
            external_traffic: traffic.into(),
            health_check_node_port: spec.health_check_node_port.into(),
            affinity: spec.affinity.map(duration),
            annotations: spec.annotations.clone().into_iter().collect(),
            backends: spec.backends.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Ingress> for pb::Ingress {
    fn from(ingress: &Ingress) -> Self {
        let at = match &ingress.at {
            IngressPoint::Ip(address) => pb::ingress::At::Ip(address.to_string()),
            IngressPoint::Hostname(name) => pb::ingress::At::Hostname(name.clone()),
        };
        Self { at: Some(at), proxy_mode: ingress.proxy_mode }
    }
}

impl From<&LbOutcome> for pb::LoadBalancerOutcome {
    fn from(outcome: &LbOutcome) -> Self {
        use pb::load_balancer_outcome::Outcome;
        let outcome = match outcome {
            LbOutcome::Ready { ingress, handle, fingerprint } => Outcome::Ready(pb::Ready {
                ingress: ingress.iter().map(Into::into).collect(),
                handle: handle.0.clone(),
                fingerprint: fingerprint.clone(),
            }),
            LbOutcome::Provisioning { poll_after, handle: known } => Outcome::Provisioning(pb::Provisioning {
                poll_after: Some(duration(*poll_after)),
                handle: handle(known.as_ref()),
            }),
        };
        Self { outcome: Some(outcome) }
    }
}

impl From<Deletion> for pb::EnsureLoadBalancerDeletedResponse {
    fn from(deletion: Deletion) -> Self {
        use pb::ensure_load_balancer_deleted_response::Outcome;
        let outcome = match deletion {
            Deletion::Gone => Outcome::Gone(pb::Gone {}),
            Deletion::InProgress(after) => Outcome::InProgress(pb::InProgress { poll_after: Some(duration(after)) }),
        };
        Self { outcome: Some(outcome) }
    }
}

impl From<&Route> for pb::Route {
    fn from(route: &Route) -> Self {
        Self {
            name: route.name.clone(),
            destination: route.destination.to_string(),
            node: route.node.clone(),
            provider_id: route.provider_id.clone(),
            next_hops: texts(&route.next_hops),
            blackhole: route.blackhole,
        }
    }
}
