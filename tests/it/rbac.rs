//! The rights that we ship are those that are used: what was asked of a real server is compared
//! with the roles that `quarterdeck install` brings.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use quarterdeck_it::audit;
use quarterdeck_it::deck::USER;
use quarterdeck_it::{ControlPlane, Credentials, Deck, eventually};
use serde_json::json;

use crate::metrics_doc::work;

const PATIENCE: Duration = Duration::from_secs(90);

/// Why rights to Secrets are kept.
const CHANNELS: &str = "what channels said last is kept in the replicas' namespace; there is no channel here";

/// What is granted and was not used here, with the reason to keep it. A role, verbs and resources;
/// `*` stands for all.
const UNUSED: [(&str, &str, &str, &str); 11] = [
    ("quarterdeck:addon-controller", "get", "secrets", CHANNELS),
    ("quarterdeck:addon-controller", "list", "secrets", CHANNELS),
    ("quarterdeck:addon-controller", "create", "secrets", CHANNELS),
    ("quarterdeck:addon-controller", "update", "secrets", CHANNELS),
    ("quarterdeck:addon-controller", "delete", "secrets", CHANNELS),
    (
        "quarterdeck:reader",
        "list",
        "*",
        "informers read their first list as a stream, which is a watch; a server that does not offer that is read in pages",
    ),
    (
        "quarterdeck:replicas",
        "list",
        "leases",
        "as the reader's: a first list is a stream where the server offers that",
    ),
    (
        "quarterdeck:replicas",
        "delete",
        "leases",
        "the Lease of a replica that is gone is collected an hour after it has expired",
    ),
    (
        "quarterdeck:addon-controller",
        "patch",
        "events",
        "an event that says the same again is counted up: masters that differ as they did before",
    ),
    (
        "quarterdeck:manager",
        "patch",
        "events",
        "an event that says the same again is counted up: a replica that leads again",
    ),
    (
        "quarterdeck:namespace-controller",
        "patch",
        "events",
        "an event that says the same again is counted up: a namespace that is blocked as before after something else blocked it",
    ),
];

/// One thing that somebody may do, or did. Empty fields of a grant stand for anything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Deed {
    user: String,
    verb: String,
    group: String,
    /// With subresource.
    resource: String,
    namespace: String,
    name: String,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, verb, group, resource, namespace, name } = self;
        write!(f, "{user}: {verb} {resource}.{group} {namespace}/{name}")
    }
}

impl Deed {
    /// Whether this grant is one for that deed.
    fn covers(&self, done: &Self) -> bool {
        let fits = |granted: &str, done: &str| granted == "*" || granted == done;
        let fits_or_any = |granted: &str, done: &str| granted.is_empty() || granted == done;
        self.user == done.user
            && fits(&self.verb, &done.verb)
            && fits(&self.group, &done.group)
            && fits(&self.resource, &done.resource)
            && fits_or_any(&self.namespace, &done.namespace)
            && fits_or_any(&self.name, &done.name)
    }
}

/// What was done by requests of ours.
fn deeds(events: &[audit::Event]) -> BTreeSet<Deed> {
    let mut done = BTreeSet::new();
    for event in events {
        if let Some(object) = &event.object_ref {
            let subresource = match object.subresource.as_str() {
                "" => String::new(),
                name => format!("/{name}"),
            };
            done.insert(Deed {
                user: event.acting_user().to_owned(),
                verb: event.verb.clone(),
                group: object.api_group.clone(),
                resource: format!("{}{subresource}", object.resource),
                namespace: object.namespace.clone(),
                name: object.name.clone(),
            });
        }
        let Some(account) = &event.impersonated_user else { continue };
        let impersonate = |group: &str, resource: String, namespace: &str, name: &str| Deed {
            user: event.user.username.clone(),
            verb: "impersonate".to_owned(),
            group: group.to_owned(),
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        if let Some((namespace, name)) =
            account.username.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'))
        {
            done.insert(impersonate("", "serviceaccounts".to_owned(), namespace, name));
        }
        done.extend(
            account.extra.keys().map(|key| impersonate("authentication.k8s.io", format!("userextras/{key}"), "", "")),
        );
    }
    done
}

/// What the roles of ours grant, each by the role's name.
async fn grants(client: &kube::Client) -> Result<Vec<(String, Deed)>> {
    let ours = ListParams::default().labels("app.kubernetes.io/part-of=quarterdeck");
    let cluster_roles: BTreeMap<_, _> = Api::<ClusterRole>::all(client.clone())
        .list(&ours)
        .await?
        .into_iter()
        .map(|role| (role.metadata.name.unwrap_or_default(), role.rules.unwrap_or_default()))
        .collect();
    let roles: BTreeMap<_, _> = Api::<Role>::all(client.clone())
        .list(&ours)
        .await?
        .into_iter()
        .map(|role| (role.metadata.name.unwrap_or_default(), role.rules.unwrap_or_default()))
        .collect();
    let mut bindings: Vec<(String, RoleRef, Vec<Subject>)> = Vec::new();
    for binding in Api::<ClusterRoleBinding>::all(client.clone()).list(&ours).await? {
        bindings.push((String::new(), binding.role_ref, binding.subjects.unwrap_or_default()));
    }
    for binding in Api::<RoleBinding>::all(client.clone()).list(&ours).await? {
        let namespace = binding.metadata.namespace.unwrap_or_default();
        bindings.push((namespace, binding.role_ref, binding.subjects.unwrap_or_default()));
    }
    let mut granted = Vec::new();
    for (namespace, role, subjects) in bindings {
        let rules = if role.kind == "Role" { roles.get(&role.name) } else { cluster_roles.get(&role.name) };
        // cluster-admin is bound to the addons' account: not a role of ours.
        for rule in rules.into_iter().flatten() {
            for subject in &subjects {
                let of = deeds_of(rule, &user_of(subject), &namespace);
                granted.extend(of.into_iter().map(|deed| (role.name.clone(), deed)));
            }
        }
    }
    Ok(granted)
}

fn user_of(subject: &Subject) -> String {
    match &subject.namespace {
        Some(namespace) => format!("system:serviceaccount:{namespace}:{}", subject.name),
        None => subject.name.clone(),
    }
}

/// A rule, taken apart into what it grants.
fn deeds_of(rule: &PolicyRule, user: &str, namespace: &str) -> Vec<Deed> {
    let any = vec![String::new()];
    let names = rule.resource_names.as_ref().filter(|names| !names.is_empty()).unwrap_or(&any);
    let mut deeds = Vec::new();
    for verb in &rule.verbs {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for name in names {
                    deeds.push(Deed {
                        user: user.to_owned(),
                        verb: verb.clone(),
                        group: group.clone(),
                        resource: resource.clone(),
                        namespace: namespace.to_owned(),
                        name: name.clone(),
                    });
                }
            }
        }
    }
    deeds
}

fn excused(role: &str, deed: &Deed) -> bool {
    let fits = |pattern: &str, text: &str| pattern == "*" || pattern == text;
    UNUSED.iter().any(|(of, verb, resource, _)| *of == role && fits(verb, &deed.verb) && fits(resource, &deed.resource))
}

/// The role that let a request in, by the server's own words.
fn role_of(reason: &str) -> Option<&str> {
    let (_, rest) = reason.split_once("Role \"")?;
    rest.split_once('"').map(|(name, _)| name.split('/').next().unwrap_or(name))
}

/// Whether a request of ours may have been let in by that role.
fn is_proper(user: &str, role: &str) -> bool {
    let everybody = ["system:discovery", "system:basic-user", "system:public-info-viewer"];
    let account = user.rsplit(':').next().unwrap_or(user);
    everybody.contains(&role)
        || role.starts_with("quarterdeck:")
        || role == format!("system:controller:{account}")
        || (role == "cluster-admin" && account == "quarterdeck-addons")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_granted_is_used_and_what_is_used_is_granted() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let client = control_plane.admin().await?;
    let addons = control_plane.folder().join("addons");
    std::fs::create_dir_all(&addons)?;
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": "addon", "namespace": "kube-system",
            "labels": { "addonmanager.kubernetes.io/mode": "Reconcile" },
        },
    });
    std::fs::write(addons.join("addon.yaml"), map.to_string())?;
    let deck = Deck::builder(&control_plane).args([format!("--addon-path={}", addons.display())]).start().await?;
    deck.ready(PATIENCE).await?;
    let first = deck.leader(PATIENCE).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    eventually("the addon is applied", PATIENCE, || async { Ok(maps.get("addon").await.map(drop)?) }).await?;
    // The next leader finds a fence that the server has taken up.
    deck.replica(first).process().stop(PATIENCE).await?;
    deck.replica(first).restart()?;
    let leader = eventually("a leader behind the fence", PATIENCE, || async {
        let leader = deck.leader(PATIENCE).await?;
        let verified = deck.replica(leader).metric("quarterdeck_fence_state", &[("state", "verified")]).await?;
        if verified > 0.0 { Ok(leader) } else { bail!("the fence is not verified") }
    })
    .await?;
    work(&control_plane).await?;
    deletion_that_is_blocked(&control_plane).await?;
    let drift =
        Patch::Merge(json!({ "metadata": { "labels": { "addonmanager.kubernetes.io/mode": "EnsureExists" } } }));
    maps.patch("addon", &PatchParams::default(), &drift).await?;
    other_masters(&control_plane, &addons).await?;
    scrape(&control_plane, &deck.replica(leader).url()).await?;
    control_plane.settle_audit().await?;

    let ours = control_plane.audit().filter(|event| event.user.username == USER)?;
    assert!(ours.len() > 100, "{} requests", ours.len());
    used_is_granted(&ours);

    let done = deeds(&ours);
    let granted = grants(&client).await?;
    assert!(granted.len() > 20, "{granted:?}");
    let unused: Vec<_> = granted
        .iter()
        .filter(|(role, grant)| !done.iter().any(|deed| grant.covers(deed)) && !excused(role, grant))
        .map(|(role, grant)| format!("{role} grants what nobody used: {grant}"))
        .collect();
    assert!(unused.is_empty(), "{}", unused.join("\n"));
    for entry in UNUSED {
        let (of, verb, ..) = entry;
        assert!(granted.iter().any(|(role, grant)| role == of && grant.verb == verb), "no longer granted: {entry:?}");
    }
    Ok(())
}

/// Every request was let in, by a role meant for it.
fn used_is_granted(ours: &[audit::Event]) {
    let key = |event: &audit::Event| (event.acting_user().to_owned(), event.verb.clone(), event.resource());
    let decision = |event: &audit::Event| {
        event.annotations.get("authorization.k8s.io/decision").map(String::as_str) == Some("allow")
    };
    // Roles that were installed a moment before may not have been known yet to the server.
    let let_in: BTreeSet<_> = ours.iter().filter(|event| decision(event)).map(key).collect();
    let refused: BTreeSet<_> = ours.iter().map(key).filter(|key| !let_in.contains(key)).collect();
    assert!(refused.is_empty(), "never let in: {refused:#?}");
    let mut strange = BTreeSet::new();
    for event in ours.iter().filter(|event| decision(event)) {
        let reason = event.annotations.get("authorization.k8s.io/reason").map_or("", String::as_str);
        if !role_of(reason).is_some_and(|role| is_proper(event.acting_user(), role)) {
            strange.insert(format!("{} {} {}: {reason:?}", event.acting_user(), event.verb, event.resource()));
        }
    }
    assert!(strange.is_empty(), "let in by others' roles: {strange:#?}");
}

/// A namespace that something holds: the controller says so in an event.
async fn deletion_that_is_blocked(control_plane: &ControlPlane) -> Result<()> {
    let client = control_plane.admin().await?;
    control_plane.namespace("stuck").await?;
    let held: Api<ConfigMap> = Api::namespaced(client.clone(), "stuck");
    let map = json!({ "metadata": { "name": "held", "finalizers": ["example.com/hold"] } });
    held.create(&PostParams::default(), &serde_json::from_value(map)?).await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.delete("stuck", &DeleteParams::default()).await?;
    let events: Api<Event> = Api::all(client);
    eventually("the event is written", PATIENCE, || async {
        let all = events.list(&ListParams::default()).await?;
        let reasons: BTreeSet<_> = all.iter().filter_map(|event| event.reason.as_deref()).collect();
        if reasons.contains("DeletionBlocked") { Ok(()) } else { bail!("{reasons:?}") }
    })
    .await?;
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    held.patch("held", &PatchParams::default(), &free).await?;
    eventually("the namespace is gone", PATIENCE, || async {
        match namespaces.get_opt("stuck").await? {
            None => Ok(()),
            Some(_) => bail!("it is there"),
        }
    })
    .await
}

/// A master that reads something else, and one that reads something new.
async fn other_masters(control_plane: &ControlPlane, addons: &std::path::Path) -> Result<()> {
    let client = control_plane.admin().await?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), "quarterdeck-replicas");
    let events: Api<Event> = Api::namespaced(client, "quarterdeck-replicas");
    eventually("what the replicas read", PATIENCE, || async {
        if leases.list(&ListParams::default()).await?.items.is_empty() { bail!("no Lease") } else { Ok(()) }
    })
    .await?;
    let record = json!({ "digest": "other", "count": 0, "files": {} }).to_string();
    let lease = json!({
        "metadata": { "name": "elsewhere", "annotations": { "quarterdeck.dev/source.directory": record } },
    });
    leases.create(&PostParams::default(), &serde_json::from_value(lease)?).await?;
    eventually("an event about the other master", PATIENCE, || async {
        let all = events.list(&ListParams::default()).await?;
        let about = |event: &&Event| event.involved_object.name.as_deref() == Some("elsewhere");
        all.iter().find(about).map(drop).context("none")
    })
    .await?;
    std::fs::write(addons.join("new.yaml"), "# nothing yet\n")?;
    eventually("the new file is written down", PATIENCE, || async {
        let all = leases.list(&ListParams::default()).await?;
        let texts = all.iter().flat_map(|lease| lease.metadata.annotations.iter().flatten());
        if texts.into_iter().any(|(_, text)| text.contains("new.yaml")) { Ok(()) } else { bail!("not yet") }
    })
    .await
}

/// Somebody with a token asks a replica, which asks the server who that is and what they may.
async fn scrape(control_plane: &ControlPlane, url: &str) -> Result<()> {
    let token = control_plane.token("kube-system", "nobody-special").await?;
    let path = control_plane.kubeconfig_at(url, &Credentials::Token(token))?;
    let output = tokio::process::Command::new(control_plane.program("kubectl"))
        .args(["--insecure-skip-tls-verify", "get", "--raw", "/metrics", "--kubeconfig"])
        .arg(path)
        .output()
        .await
        .context("running kubectl")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() || !said.contains("Forbidden") && !said.contains("forbidden") {
        bail!("expected a refusal: {said}");
    }
    Ok(())
}

#[test]
fn rules_are_taken_apart_and_compared() {
    let rule = PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec!["pods".to_owned(), "pods/status".to_owned()]),
        verbs: vec!["get".to_owned(), "list".to_owned()],
        ..PolicyRule::default()
    };
    let granted = deeds_of(&rule, "u", "");
    assert_eq!(granted.len(), 4);
    let done = Deed { name: "web".to_owned(), namespace: "default".to_owned(), ..granted[0].clone() };
    assert!(granted[0].covers(&done) && !granted[1].covers(&done));
    let named = Deed { name: "other".to_owned(), ..granted[0].clone() };
    assert!(!named.covers(&done));
    let reason = r#"RBAC: allowed by RoleBinding "a/kube-system" of Role "quarterdeck:manager" to User "quarterdeck""#;
    assert_eq!(role_of(reason), Some("quarterdeck:manager"));
    assert!(!is_proper("quarterdeck", "cluster-admin"));
}
