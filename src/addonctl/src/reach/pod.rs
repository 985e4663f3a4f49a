//! The pod that a replica runs in.

use k8s_openapi::api::core::v1::Pod;

use super::lease::Replica;

/// Port at which managers serve unless they are told otherwise.
const USUAL_PORT: u16 = 10267;

/// A pod's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Door {
    /// Name of the pod.
    pub(super) pod: String,
    /// Its namespace.
    pub(super) namespace: String,
    /// The port.
    pub(super) port: u16,
}

/// The pod of a replica, among those with the manager's labels: the one that bears its name (a Deployment's replicas are
/// called after their pods), else the one on the node of its name (a static pod's after their hosts), else the one at its
/// address. Pods that do not run, or run something else under the same labels, are not it.
pub(super) fn of(replica: &Replica, pods: &[Pod]) -> Option<Door> {
    let host = replica.host();
    let tests: [&dyn Fn(&Pod) -> bool; 3] = [
        &|pod| pod.metadata.name.as_deref() == Some(&replica.name),
        &|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(&replica.name),
        &|pod| host.is_some_and(|host| addresses(pod).any(|address| address == host)),
    ];
    let running: Vec<&Pod> = pods.iter().filter(|pod| is_running(pod)).collect();
    let found = tests.iter().find_map(|test| running.iter().find(|pod| test(pod)))?;
    Some(Door {
        pod: found.metadata.name.clone()?,
        namespace: found.metadata.namespace.clone()?,
        port: replica.port().or_else(|| port(found)).unwrap_or(USUAL_PORT),
    })
}

fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
}

/// The addresses of a pod; one on the network of its host has those of the host.
fn addresses(pod: &Pod) -> impl Iterator<Item = &str> {
    let many = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten()).map(|address| address.ip.as_str());
    many.chain(pod.status.iter().filter_map(|status| status.pod_ip.as_deref()))
}

/// The port that its containers call `https`.
fn port(pod: &Pod) -> Option<u16> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let https = ports.find(|port| port.name.as_deref() == Some("https"))?;
    u16::try_from(https.container_port).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, node: &str, address: &str, edit: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "kube-system"},
            "spec": {"nodeName": node, "containers": [
                {"name": "quarterdeck", "ports": [{"name": "https", "containerPort": 4443}]},
            ]},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        });
        edit(&mut pod);
        serde_json::from_value(pod).expect("a pod")
    }

    fn replica(name: &str, address: Option<&str>) -> Replica {
        let mut lease = json!({"metadata": {"name": name, "annotations": {}}});
        if let Some(address) = address {
            lease["metadata"]["annotations"]["quarterdeck.dev/serving-address"] = json!(address);
        }
        Replica::of(&serde_json::from_value(lease).expect("a Lease"))
    }

    #[test]
    fn a_replica_is_found_by_its_name_its_node_or_its_address() {
        let pods = [
            pod("quarterdeck-one", "one", "10.0.0.1", |_| {}),
            pod("quarterdeck-7f-x", "two", "10.1.0.9", |_| {}),
            pod("gone", "three", "10.0.0.3", |pod| pod["status"]["phase"] = json!("Succeeded")),
            pod("going", "four", "10.0.0.4", |pod| {
                pod["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z")
            }),
        ];
        let found = |name, address| of(&replica(name, address), &pods).map(|door| (door.pod, door.port));
        assert_eq!(found("one", Some("10.0.0.1:10257")), Some(("quarterdeck-one".to_owned(), 10257)));
        assert_eq!(found("quarterdeck-7f-x", None), Some(("quarterdeck-7f-x".to_owned(), 4443)));
        assert_eq!(found("other.host", Some("10.1.0.9:1")), Some(("quarterdeck-7f-x".to_owned(), 1)));
        assert_eq!(found("three", Some("10.0.0.3:1")), None);
        assert_eq!(found("four", None), None);
        assert_eq!(found("five", None), None);
        // Everybody has this address.
        assert_eq!(found("five", Some("0.0.0.0:1")), None);
    }

    #[test]
    fn a_name_counts_more_than_an_address() {
        let pods = [pod("a", "one", "10.0.0.2", |_| {}), pod("b", "two", "10.0.0.1", |_| {})];
        let door = of(&replica("one", Some("10.0.0.1:1")), &pods).expect("a pod");
        assert_eq!(door.pod, "a");
    }

    #[test]
    fn without_a_word_the_usual_port_is_taken() {
        let pods = [pod("a", "one", "10.0.0.2", |pod| pod["spec"]["containers"][0]["ports"] = json!([]))];
        assert_eq!(of(&replica("one", None), &pods).map(|door| door.port), Some(USUAL_PORT));
    }
}
