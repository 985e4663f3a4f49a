//! How steps are written down, and told.

use super::*;

/// An Addon whose install step has `templates`.
pub(super) fn with_templates(name: &str, templates: &str) -> String {
    let head = simple(name, &format!("team/{name}"), "{}", "one");
    let (head, _) = head.split_once("          - name: entry\n").unwrap();
    format!("{head}{templates}")
}

impl World {
    /// The events about an Addon as `Type Reason message`, once each of `reasons` is among them.
    pub(super) async fn until_events(&self, namespace: &str, name: &str, reasons: &[&str]) -> Vec<String> {
        let path = format!("/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.name={name}");
        let looked = eventually("its events are there", LONG, async || {
            let list = self.get(&path).await?.unwrap_or_default();
            let word = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
            let events: Vec<String> = list["items"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|event| format!("{} {} {}", word(event, "type"), word(event, "reason"), word(event, "message")))
                .collect();
            let is_there =
                |reason: &&str| events.iter().any(|event| event.split(' ').nth(1).is_some_and(|word| word == *reason));
            if reasons.iter().all(is_there) { Ok(events) } else { bail!("{reasons:?} in {events:#?}") }
        });
        looked.await.with_context(|| self.log()).unwrap()
    }
}

#[tokio::test]
async fn steps_that_run_side_by_side_are_written_down_at_once() {
    let world = World::with_addons().await;
    let calls: String = (0..6).map(|call| format!("              - {{name: d{call}, template: d{call}}}\n")).collect();
    let deletes: String = (0..6)
        .map(|call| {
            format!(
                "          - name: d{call}\n            resource:\n              action: delete\n              manifest: |\n                apiVersion: v1\n                kind: ConfigMap\n                metadata: {{name: old-{call}}}\n"
            )
        })
        .collect();
    let templates = format!("          - name: entry\n            steps:\n            -\n{calls}{deletes}");
    for call in 0..6 {
        world.kubectl(&["-n", "addons", "create", "configmap", &format!("old-{call}")]).await;
    }
    let mut audit = world.control_plane.audit_from_now().unwrap();
    world.apply_text(&with_templates("app", &templates)).await;
    world.until_succeeded("addons/app").await;
    for call in 0..6 {
        world.until_gone(&format!("/api/v1/namespaces/addons/configmaps/old-{call}")).await;
    }
    world.control_plane.settle_audit().await.unwrap();
    let statuses = audit
        .filter(|event| event.is_write() && event.name() == "app" && event.resource().starts_with("addons"))
        .unwrap();
    // Ours: the finalizer and labels, that the steps begin, what became of them; the first is kubectl's.
    assert!(statuses.len() <= 6, "{} writes: {statuses:#?}", statuses.len());
    let told = world.until_events("addons", "app", &["Submitted", "Completed"]).await;
    let submitted = told.iter().filter(|event| event.contains(" Submitted ")).count();
    assert_eq!(submitted, 1, "{told:#?}");
}

#[tokio::test]
async fn upstreams_reasons_are_told() {
    let world = World::with_addons().await;
    world.apply_text(&simple("app", "team/app", "{core/net: 1.0.0}", "one")).await;
    let told = world.until_events("addons", "app", &["Failed"]).await;
    assert!(told.iter().any(|event| event.starts_with("Normal Failed ") && event.contains("core/net")), "{told:?}");
    // Not ready: it needs a secret that is not there.
    let net = simple("net", "core/net", "{}", "one").replace("  lifecycle:", "  secrets: [{name: key}]\n  lifecycle:");
    world.apply_text(&net).await;
    let told = world.until_events("addons", "net", &["Failed"]).await;
    assert!(told.iter().any(|event| event.starts_with("Warning Failed ") && event.contains("addons/key")), "{told:?}");
    world.until_events("addons", "app", &["Pending"]).await;
    world.kubectl(&["-n", "addons", "create", "secret", "generic", "key"]).await;
    world.until_succeeded("addons/app").await;
    let told = world.until_events("addons", "app", &["Submitted", "Completed", "AddonApplied"]).await;
    for expected in
        ["Addon addons/app is valid.", "Submitted install of addons/app.", "Completed install of addons/app."]
    {
        assert!(told.iter().any(|event| event.ends_with(expected)), "{expected} in {told:#?}");
    }
}
