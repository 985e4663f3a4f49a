//! What happens to services, and to Endpoints that people make.

use serde_json::{Value, json};

use super::super::shapes::{self, SERVICES};
use super::{Service, Step, World};

impl World {
    pub(super) fn create_service(&mut self) -> Vec<Step> {
        let free =
            SERVICES.into_iter().filter(|name| !self.services.contains_key(name) && !self.resting.contains(name));
        let Some(name) = self.random.pick_some(free) else { return Vec::new() };
        let random = &mut self.random;
        let selector = random.chance(80).then(|| shapes::selector(random));
        let (policy, families) = shapes::families(random);
        let headless = random.chance(35);
        let mut spec = json!({
            "selector": selector.as_ref().map(without_nulls),
            "ports": shapes::service_ports(random),
            "publishNotReadyAddresses": random.chance(20),
            "trafficDistribution": shapes::distribution(random),
            "ipFamilyPolicy": policy,
            "ipFamilies": families,
        });
        if headless {
            spec["clusterIP"] = json!("None");
            if random.chance(30) {
                spec["ports"] = json!([]);
            }
        }
        let labels = without_nulls(&shapes::service_labels(random));
        let service = Service { selector, external: false, headless, policy, families, by_hand: false };
        self.services.insert(name, service);
        vec![Step::create(
            &self.path("services"),
            json!({ "metadata": { "name": name, "labels": labels }, "spec": spec }),
        )]
    }

    /// A service that may be worked on in this round.
    fn awake(&mut self, fits: impl Fn(&Service) -> bool) -> Option<&'static str> {
        let awake = self.services.iter().filter(|(name, service)| !self.resting.contains(*name) && fits(service));
        self.random.pick_some(awake.map(|(name, _)| *name).collect::<Vec<_>>())
    }

    pub(super) fn delete_service(&mut self) -> Vec<Step> {
        let Some(name) = self.awake(|_| true) else { return Vec::new() };
        self.services.remove(name);
        self.resting.insert(name);
        vec![Step::delete(self.service_path(name))]
    }

    pub(super) fn alter_service(&mut self) -> Vec<Step> {
        let Some(name) = self.awake(|service| !service.external) else { return Vec::new() };
        let random = &mut self.random;
        let service = self.services.get_mut(name).expect("picked among those there are");
        let patch = match random.below(6) {
            0 => json!({ "metadata": { "labels": shapes::service_labels(random) } }),
            1 => json!({ "spec": { "ports": shapes::service_ports(random) } }),
            2 => json!({ "spec": { "publishNotReadyAddresses": random.chance(50) } }),
            3 => json!({ "spec": { "trafficDistribution": shapes::distribution(random) } }),
            4 => {
                // The server takes the second family away, or adds one.
                service.policy = if service.policy == "SingleStack" { "RequireDualStack" } else { "SingleStack" };
                let first = service.families[0].clone();
                let second = if first == "IPv4" { "IPv6" } else { "IPv4" };
                let dual = service.policy == "RequireDualStack";
                service.families = if dual { json!([first, second]) } else { json!([first]) };
                json!({ "spec": { "ipFamilyPolicy": service.policy } })
            }
            _ if service.selector.is_some() => {
                service.selector = Some(shapes::selector(random));
                json!({ "spec": { "selector": service.selector } })
            }
            _ => return Vec::new(),
        };
        vec![Step::patch(self.service_path(name), patch)]
    }

    /// Gives a service a selector, or addresses of its own, back. It rests then: its Endpoints are
    /// written by the controller, which must not meet people who write them.
    pub(super) fn thaw(&mut self) -> Vec<Step> {
        let Some(name) = self.awake(|service| service.external || service.selector.is_none()) else {
            return Vec::new();
        };
        self.resting.insert(name);
        let path = self.service_path(name);
        let selector = shapes::selector(&mut self.random);
        let service = self.service(name);
        if service.external {
            service.external = false;
            let cluster_ip = if service.headless { json!("None") } else { Value::Null };
            let spec = json!({
                "type": "ClusterIP", "externalName": null, "clusterIP": cluster_ip,
                "ipFamilies": service.families, "ipFamilyPolicy": service.policy,
            });
            return vec![Step::patch(path, json!({ "spec": spec }))];
        }
        service.selector = Some(selector.clone());
        service.by_hand = false;
        vec![Step::patch(path, json!({ "spec": { "selector": selector } }))]
    }

    /// Makes, changes or deletes Endpoints by hand, and what says whether they are mirrored.
    pub(super) fn edit_endpoints(&mut self) -> Vec<Step> {
        let Some(name) = self.awake(|service| service.selector.is_none()) else { return Vec::new() };
        let path = self.path("endpoints");
        let random = &mut self.random;
        let service = self.services.get_mut(name).expect("picked among those there are");
        // Where slices of both families are to come and others to go, the Go controller takes the wrong
        // ones off its list, and fails for ever.
        let subsets = shapes::subsets(random, !service.by_hand);
        let skip = if random.chance(20) { json!("true") } else { Value::Null };
        let labels =
            json!({ "made-by": random.pick(&["hand", "tool"]), "endpointslice.kubernetes.io/skip-mirror": skip });
        let annotations = json!({ "example.org/note": random.pick(&["one", "two"]) });
        let object = json!({
            "metadata": { "name": name, "labels": labels, "annotations": annotations }, "subsets": subsets,
        });
        // Deleted with its service in the same round, it might not have been seen when the service goes.
        self.resting.insert(name);
        if !service.by_hand {
            service.by_hand = true;
            let mut object = object;
            object["metadata"]["labels"] = without_nulls(&labels);
            return vec![Step::create(&path, object)];
        }
        let path = format!("{path}/{name}");
        if random.chance(20) {
            service.by_hand = false;
            return vec![Step::delete(path)];
        }
        vec![Step::patch(path, object)]
    }
}

/// An object without the members that a merge patch would take out.
fn without_nulls(object: &Value) -> Value {
    let members = object.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    Value::Object(members.map(|(name, value)| (name.clone(), value.clone())).collect())
}
