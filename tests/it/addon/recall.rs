//! What a manager that has just started reads: not what is as the one before left it.

use super::*;

const FILE: &str = "dns.yaml";

fn file() -> String {
    let maps = ["a", "b", "c"].map(|name| map(name, "Reconcile", "one"));
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: dns, labels: {addonmanager.kubernetes.io/mode: Reconcile}}\nrules: []\n";
    [maps.join("---\n"), map("own", "EnsureExists", "one"), role.to_owned()].join("---\n")
}

impl World {
    /// Names of the addon's objects that were read one by one since the audit log was read last.
    async fn read_since(&self, audit: &mut quarterdeck_it::AuditReader) -> Vec<String> {
        self.control_plane.settle_audit().await.unwrap();
        let mine = |event: &quarterdeck_it::audit::Event| {
            event.verb == "get" && event.user.username == quarterdeck_it::deck::USER && event.object_ref.is_some()
        };
        let read = audit.filter(mine).unwrap();
        let names = read.into_iter().filter_map(|event| event.object_ref).map(|object| object.name);
        let mut names: Vec<String> = names.filter(|name| ["a", "b", "c", "own", "dns"].contains(&&**name)).collect();
        names.dedup();
        names
    }
}

#[tokio::test]
async fn a_restart_reads_only_what_changed_meanwhile() {
    let world = World::start(&[]).await;
    world.write(FILE, &file());
    world.parent(FILE, "ready").await;

    let mut audit = world.control_plane.audit_from_now().unwrap();
    let replica = world.deck.replica(0);
    replica.process().stop(LONG).await.unwrap();
    world.kubectl(&["patch", "configmap", "b", "--type=merge", "-p", r#"{"data":{"k":"two"}}"#]).await;
    world.kubectl(&["delete", "configmap", "c"]).await;
    replica.restart().unwrap();
    world.until(&at("b"), "b is put back", |map| map["data"]["k"] == "one").await;
    world.until_there(&at("c")).await;
    world.parent(FILE, "ready").await;
    let read = world.read_since(&mut audit).await;
    assert!(read.contains(&"b".to_owned()), "{read:?}");
    assert!(!["a", "own", "dns"].iter().any(|same| read.contains(&(*same).to_owned())), "{read:?} was read");

    // A file that changed is compared with what is there.
    replica.process().stop(LONG).await.unwrap();
    world.write(FILE, &file().replace("k: one", "k: three"));
    replica.restart().unwrap();
    for name in ["a", "b", "c"] {
        world.until(&at(name), &format!("{name} is new"), |map| map["data"]["k"] == "three").await;
    }
    assert_eq!(world.until_there(&at("own")).await["data"]["k"], "one");
}
