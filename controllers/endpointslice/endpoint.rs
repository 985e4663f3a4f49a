//! One endpoint as it should be, compared with and turned into the API's form.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};
use quarterdeck_runtime::view::{PodPhase, PodView};

use super::family::Family;

/// Whether a pod has a place among endpoints at all: it runs or may run again, and has an address.
/// Terminating pods are kept (k8s.io/endpointslice:util/controller_utils.go v0.36.3).
pub(super) fn is_candidate(pod: &PodView) -> bool {
    !is_terminal(pod) && !pod.ips.is_empty()
}

/// Whether all containers of a pod have ended for good.
pub(super) fn is_terminal(pod: &PodView) -> bool {
    matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed)
}

/// An endpoint that should exist. Borrows everything: most of them are compared and never built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// The pod behind it.
    pub(super) pod: &'a PodView,
    /// The family whose addresses it has.
    pub(super) family: Family,
    /// Zone of the pod's node.
    pub(super) zone: Option<&'a str>,
    /// DNS name of the pod within a headless service.
    pub(super) hostname: Option<&'a str>,
    /// Traffic may be sent to it.
    pub(super) ready: bool,
    /// Its containers are ready, terminating or not.
    pub(super) serving: bool,
    /// The pod is being deleted.
    pub(super) terminating: bool,
}

impl<'a> Wanted<'a> {
    /// Its addresses in their usual order: there is nearly always one.
    fn ips(&self) -> impl Iterator<Item = IpAddr> + 'a {
        let family = self.family;
        self.pod.ips.iter().copied().filter(move |ip| family.holds(*ip)).map(|ip| ip.to_canonical())
    }

    /// Whether the pod has an address of the family.
    pub(super) fn has_address(&self) -> bool {
        self.ips().next().is_some()
    }

    fn addresses(&self) -> Vec<String> {
        let mut addresses: Vec<String> = self.ips().map(|ip| ip.to_string()).collect();
        addresses.sort_unstable();
        addresses
    }

    /// Whether an endpoint of a slice stands for the same pod at the same addresses and host name,
    /// so that it can be updated in place.
    pub(super) fn identifies(&self, endpoint: &Endpoint) -> bool {
        let Some(target) = &endpoint.target_ref else { return false };
        target.name.as_deref() == Some(self.pod.key.name())
            && target.namespace.as_deref() == Some(self.pod.key.namespace())
            && endpoint.hostname.as_deref() == self.hostname
            && self.has_addresses(&endpoint.addresses)
    }

    fn has_addresses(&self, texts: &[String]) -> bool {
        let mut ips = self.ips();
        match (ips.next(), ips.next(), texts) {
            (Some(ip), None, [text]) => prints_as(ip, text),
            _ => self.addresses() == texts,
        }
    }

    /// Whether an endpoint that this one identifies needs no change. Hints are not looked at.
    pub(super) fn is_same(&self, endpoint: &Endpoint) -> bool {
        let same_conditions = endpoint.conditions.as_ref().is_some_and(|is| {
            is.ready == Some(self.ready) && is.serving == Some(self.serving) && is.terminating == Some(self.terminating)
        });
        same_conditions
            && endpoint.node_name.as_deref() == self.pod.node.as_deref()
            && endpoint.zone.as_deref() == self.zone
            && endpoint.target_ref.as_ref().is_some_and(|target| {
                target.kind.as_deref() == Some("Pod")
                    && target.uid.as_deref() == Some(&self.pod.uid)
                    && target.api_version.is_none()
                    && target.field_path.is_none()
            })
    }

    /// The endpoint in the API's form, without hints.
    pub(super) fn build(&self) -> Endpoint {
        Endpoint {
            addresses: self.addresses(),
            conditions: Some(EndpointConditions {
                ready: Some(self.ready),
                serving: Some(self.serving),
                terminating: Some(self.terminating),
            }),
            hostname: self.hostname.map(str::to_owned),
            node_name: self.pod.node.as_deref().map(str::to_owned),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".to_owned()),
                namespace: Some(self.pod.key.namespace().to_owned()),
                name: Some(self.pod.key.name().to_owned()),
                uid: Some(self.pod.uid.to_string()),
                ..ObjectReference::default()
            }),
            zone: self.zone.map(str::to_owned),
            ..Endpoint::default()
        }
    }
}

/// Whether traffic may be sent to an endpoint of a slice.
pub(super) fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true)
}

/// Whether `ip` prints as `text`; allocates nothing.
fn prints_as(ip: IpAddr, text: &str) -> bool {
    /// Accepts what the rest of the text starts with.
    struct Rest<'a>(&'a str);

    impl fmt::Write for Rest<'_> {
        fn write_str(&mut self, piece: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(piece).ok_or(fmt::Error)?;
            Ok(())
        }
    }

    match ip {
        // A dotted address has one spelling only, so parsing decides, and is quicker.
        IpAddr::V4(v4) => text.parse() == Ok(v4),
        IpAddr::V6(v6) => {
            let mut rest = Rest(text);
            write!(rest, "{v6}").is_ok() && rest.0.is_empty()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_compared_with_its_canonical_text() {
        let cases = [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.10", false),
            ("10.0.0.1", "10.0.0.01", false),
            ("fd00::1", "fd00::1", true),
            ("fd00::1", "fd00::10", false),
            ("fd00::10", "fd00::1", false),
            ("fd00::1", "fd00:0:0:0:0:0:0:1", false),
            ("fd00::1", "FD00::1", false),
        ];
        for (ip, text, same) in cases {
            assert_eq!(prints_as(ip.parse().unwrap(), text), same, "{ip} {text}");
        }
    }
}
