//! Reading an inventory: strict, and every fault is told with its line and field.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde_saphyr::Spanned;
use sha2::{Digest as _, Sha256};

use super::{Contents, Machine, Role};
use crate::model::{AddressKind, NodeAddress};

/// Most machines of one file.
const MOST: usize = 20_000;
/// Label keys of these domains belong to Kubernetes; a provider may not set them.
const RESERVED: [&str; 2] = ["kubernetes.io", "k8s.io"];

/// A fault of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {}{message}", if field.is_empty() { String::new() } else { format!("{field}: ") })]
pub struct Fault {
    /// Line, counted from 1; 0 if it is not known.
    pub line: u64,
    /// The field, such as `instances[2].id`; empty for faults of the file's form, which name it themselves.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster: Spanned<String>,
    instances: Vec<Spanned<Written>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Spanned<String>,
    #[serde(default)]
    id: Option<Spanned<String>>,
    addresses: Vec<Spanned<WrittenAddress>>,
    #[serde(default)]
    zone: Option<Spanned<String>>,
    #[serde(default)]
    region: Option<Spanned<String>>,
    #[serde(default, rename = "type")]
    instance_type: Option<Spanned<String>>,
    #[serde(default)]
    labels: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    shutdown: bool,
    #[serde(default)]
    role: Role,
}

/// `InternalIP: 10.0.0.1`; the words are those of `status.addresses`.
#[derive(Deserialize)]
enum WrittenAddress {
    Hostname(String),
    #[serde(rename = "InternalIP")]
    InternalIp(String),
    #[serde(rename = "ExternalIP")]
    ExternalIp(String),
    #[serde(rename = "InternalDNS")]
    InternalDns(String),
    #[serde(rename = "ExternalDNS")]
    ExternalDns(String),
}

impl WrittenAddress {
    fn parts(&self) -> (AddressKind, &str) {
        match self {
            Self::Hostname(text) => (AddressKind::Hostname, text),
            Self::InternalIp(text) => (AddressKind::InternalIp, text),
            Self::ExternalIp(text) => (AddressKind::ExternalIp, text),
            Self::InternalDns(text) => (AddressKind::InternalDns, text),
            Self::ExternalDns(text) => (AddressKind::ExternalDns, text),
        }
    }
}

/// Reads an inventory.
///
/// # Errors
/// The first fault.
pub fn parse(text: &str) -> Result<Contents, Fault> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(0, |place| place.line());
        Fault { line, field: String::new(), message: error.without_snippet().to_string() }
    })?;
    let cluster = named("cluster", &file.cluster, is_id, "letters, digits and ._-")?;
    if file.instances.len() > MOST {
        return Err(fault(&file.cluster, "instances", format!("{} of them, more than {MOST}", file.instances.len())));
    }
    let mut reading = Reading::default();
    for (index, written) in file.instances.iter().enumerate() {
        reading.add(&format!("instances[{index}]"), written)?;
    }
    Ok(Contents {
        cluster,
        digest: digest(text),
        machines: reading.machines,
        by_id: reading.by_id,
        by_name: reading.by_name,
    })
}

/// What identifies the content of a file.
pub(super) fn digest(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().take(8).fold("sha256:".to_owned(), |mut hex, byte| {
        use std::fmt::Write as _;
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[derive(Default)]
struct Reading {
    machines: Vec<Arc<Machine>>,
    by_id: HashMap<String, Arc<Machine>>,
    by_name: HashMap<String, Arc<Machine>>,
    /// Who has which address.
    taken: HashMap<IpAddr, Arc<Machine>>,
}

impl Reading {
    fn add(&mut self, field: &str, spanned: &Spanned<Written>) -> Result<(), Fault> {
        let written = &spanned.value;
        let name = named(&format!("{field}.name"), &written.name, is_name, "a-z, 0-9, - and ., as a Node's name")?;
        let id = written.id.as_ref().unwrap_or(&written.name);
        let machine = Arc::new(Machine {
            id: named(&format!("{field}.id"), id, is_id, "letters, digits and ._-")?,
            addresses: addresses(field, written)?,
            zone: word(field, "zone", written.zone.as_ref())?,
            region: word(field, "region", written.region.as_ref())?,
            instance_type: word(field, "type", written.instance_type.as_ref())?,
            labels: labels(field, &written.labels)?,
            shutdown: written.shutdown,
            role: written.role,
            line: written.name.referenced.line(),
            name,
        });
        let twice = |what: &str, other: &Machine| Fault {
            line: machine.line,
            field: field.to_owned(),
            message: format!("{what} is that of {:?} on line {}, too", other.name, other.line),
        };
        if let Some(other) = self.by_name.insert(machine.name.clone(), Arc::clone(&machine)) {
            return Err(twice(&format!("the name {:?}", machine.name), &other));
        }
        if let Some(other) = self.by_id.insert(machine.id.clone(), Arc::clone(&machine)) {
            return Err(twice(&format!("the id {:?}", machine.id), &other));
        }
        let own = machine.addresses.iter().filter_map(|address| address.address.parse::<IpAddr>().ok());
        for address in own {
            match self.taken.insert(address, Arc::clone(&machine)) {
                Some(other) if other.id != machine.id => return Err(twice(&format!("the address {address}"), &other)),
                _ => {}
            }
        }
        self.machines.push(machine);
        Ok(())
    }
}

fn fault<T>(at: &Spanned<T>, field: &str, message: impl Into<String>) -> Fault {
    Fault { line: at.referenced.line(), field: field.to_owned(), message: message.into() }
}

fn named(field: &str, text: &Spanned<String>, good: fn(&str) -> bool, allowed: &str) -> Result<String, Fault> {
    if good(&text.value) {
        return Ok(text.value.clone());
    }
    Err(fault(text, field, format!("{:?} cannot stand here: it takes {allowed}", text.value)))
}

fn is_name(text: &str) -> bool {
    let label = |text: &str| {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn is_id(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    (1..=253).contains(&text.len()) && text.bytes().all(inner)
}

/// What can be a label's value, for that is where it ends up.
fn is_label_value(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    let inner = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    text.len() <= 63 && text.bytes().all(inner) && edge(text.chars().next()) && edge(text.chars().next_back())
}

fn word(field: &str, name: &str, text: Option<&Spanned<String>>) -> Result<String, Fault> {
    let allowed = "what a label's value may have: 63 letters, digits and ._- at most";
    text.map_or(Ok(String::new()), |text| named(&format!("{field}.{name}"), text, is_label_value, allowed))
}

fn addresses(field: &str, written: &Written) -> Result<Vec<NodeAddress>, Fault> {
    if written.addresses.is_empty() {
        return Err(fault(&written.name, &format!("{field}.addresses"), "there is none"));
    }
    let mut all: Vec<NodeAddress> = Vec::new();
    for (index, one) in written.addresses.iter().enumerate() {
        let field = format!("{field}.addresses[{index}]");
        let (kind, text) = one.value.parts();
        let address = match kind {
            AddressKind::InternalIp | AddressKind::ExternalIp => {
                let parsed = text.parse::<IpAddr>();
                let parsed = parsed.map_err(|_| fault(one, &field, format!("{text:?} is not an IP address")))?;
                if parsed.is_unspecified() || parsed.is_multicast() {
                    return Err(fault(one, &field, format!("{text:?} cannot be a machine's address")));
                }
                parsed.to_string()
            }
            _ if is_name(&text.to_ascii_lowercase()) => text.to_owned(),
            _ => return Err(fault(one, &field, format!("{text:?} is not a host's name"))),
        };
        let address = NodeAddress { kind, address };
        if all.contains(&address) {
            return Err(fault(one, &field, format!("{text:?} stands twice")));
        }
        all.push(address);
    }
    Ok(all)
}

fn labels(field: &str, written: &BTreeMap<String, Spanned<String>>) -> Result<BTreeMap<String, String>, Fault> {
    let mut all = BTreeMap::new();
    for (key, value) in written {
        let field = format!("{field}.labels.{key}");
        let (domain, name) = key.split_once('/').map_or((None, key.as_str()), |(domain, name)| (Some(domain), name));
        if name.is_empty() || !is_label_value(name) || domain.is_some_and(|domain| !is_name(domain)) {
            return Err(fault(value, &field, "this is not the key of a label"));
        }
        let reserved = |domain: &str| RESERVED.iter().any(|own| domain == *own || domain.ends_with(&format!(".{own}")));
        if domain.is_some_and(reserved) {
            return Err(fault(value, &field, "keys of Kubernetes' own domains are not for an inventory to set"));
        }
        if !is_label_value(&value.value) {
            return Err(fault(value, &field, format!("{:?} is not the value of a label", value.value)));
        }
        all.insert(key.clone(), value.value.clone());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
cluster: rack-7
instances:
  - name: node-1
    id: 4c4c4544-0042
    addresses:
      - InternalIP: 10.0.0.11
      - InternalIP: fd00::11
      - ExternalDNS: node-1.example.com
    zone: row-a
    region: hall-2
    type: r640
    labels:
      example.com/disks: nvme
  - name: gate-1
    addresses: [{InternalIP: 10.0.0.1}]
    role: gateway
    shutdown: true
";

    #[test]
    fn a_good_file_is_read_whole() {
        let read = parse(GOOD).expect("it is good");
        assert_eq!(read.cluster, "rack-7");
        assert_eq!(read.machines.len(), 2);
        let node = &read.by_id["4c4c4544-0042"];
        assert_eq!(
            (&*node.name, &*node.zone, &*node.region, &*node.instance_type),
            ("node-1", "row-a", "hall-2", "r640")
        );
        assert_eq!((node.role, node.shutdown, node.line), (Role::Node, false, 4));
        let addresses: Vec<_> = node.addresses.iter().map(|one| (one.kind.as_str(), &*one.address)).collect();
        assert_eq!(
            addresses,
            [("InternalIP", "10.0.0.11"), ("InternalIP", "fd00::11"), ("ExternalDNS", "node-1.example.com")]
        );
        assert_eq!(node.labels["example.com/disks"], "nvme");
        let gate = &read.by_name["gate-1"];
        assert_eq!((&*gate.id, gate.role, gate.shutdown), ("gate-1", Role::Gateway, true));
        assert_eq!(read.digest, digest(GOOD));
        assert_ne!(read.digest, parse(&GOOD.replace("r640", "r650")).expect("it is good").digest);
        assert!(parse("{cluster: a, instances: []}").expect("it is good").machines.is_empty());
    }

    /// Each fault, with the line and field that are named.
    #[test]
    fn faults_name_line_and_field() {
        let second = "\n  - name: node-2\n    addresses: [{InternalIP: 10.0.0.12}]\n";
        for (from, to, line, said) in [
            ("cluster: rack-7", "", 3, "cluster"),
            ("cluster: rack-7", "cluster: ''", 2, "cluster: "),
            ("zone: row-a", "zona: row-a", 10, "zona"),
            ("zone: row-a", "zone: row a", 10, "instances[0].zone: "),
            ("    type: r640", "    type: [r640]", 12, ""),
            ("InternalIP: 10.0.0.11", "InternalIP: 10.0.0.311", 7, "instances[0].addresses[0]: "),
            ("InternalIP: 10.0.0.11", "InternalIP: 0.0.0.0", 7, "instances[0].addresses[0]: "),
            ("InternalIP: fd00::11", "InternalIP: 10.0.0.11", 8, "instances[0].addresses[1]: "),
            ("InternalIP: 10.0.0.11", "Internal: 10.0.0.11", 7, "Internal"),
            ("ExternalDNS: node-1.example.com", "ExternalDNS: a b", 9, "instances[0].addresses[2]: "),
            ("[{InternalIP: 10.0.0.1}]", "[]", 15, "instances[1].addresses: "),
            ("[{InternalIP: 10.0.0.1}]", "[{InternalIP: 10.0.0.11}]", 15, "\"node-1\" on line 4"),
            ("name: gate-1", "name: node-1", 15, "\"node-1\" on line 4"),
            ("name: gate-1", "name: gate-1\n    id: 4c4c4544-0042", 15, "\"node-1\" on line 4"),
            ("name: gate-1", "name: Gate_1", 15, "instances[1].name: "),
            ("id: 4c4c4544-0042", "id: a/b", 5, "instances[0].id: "),
            ("role: gateway", "role: router", 17, "router"),
            ("shutdown: true", "shutdown: maybe", 18, ""),
            ("example.com/disks", "node.kubernetes.io/disks", 14, "instances[0].labels.node.kubernetes.io/disks: "),
            ("example.com/disks", "k8s.io/disks", 14, "instances[0].labels.k8s.io/disks: "),
            ("nvme", "'n v'", 14, "instances[0].labels.example.com/disks: "),
            ("\ncluster", "\ncluster: again\ncluster", 3, "cluster"),
        ] {
            let text = GOOD.replacen(from, to, 1) + second;
            let found = parse(&text).expect_err(&format!("{to:?} is a fault"));
            assert_eq!(found.line, line, "{to:?}: {found}");
            assert!(found.to_string().contains(said), "{to:?}: {found}");
            assert!(!found.to_string().contains('\n'), "{found}");
        }
    }

    /// A copy that is being written, or a disk that is full: never an inventory without machines.
    #[test]
    fn what_was_cut_off_is_a_fault_wherever_an_entry_is_open() {
        for text in ["", "\n", "# nothing\n", "cluster: rack-7\n", "cluster: rack-7\ninstances:\n", "~", "[]", "\0"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
