//! What troubled people with keiko's addon-manager, each by its number there or by what it is about, and
//! does not happen here. What needs no server is tested beside its code:
//!
//! | trouble | test |
//! |---|---|
//! | a checksum that collides, and changes with a release | `quarterdeck_api::addon::tests::the_checksum_is_of_what_the_spec_means` |
//! | any of several versions, at random; one met dependency is enough; a cycle panics | `addon::dependency::tests` |
//! | labels are not put on objects of DAG tasks | `addon::workflow::argo::tests::keiko_b5_objects_of_dag_tasks_get_the_labels_too` |
//! | observed objects without namespace, status or link, and of one namespace | `objects::observed` |
//! | Pending after the Workflow has ended (#285, #439) | `objects::argo` |
//! | a panic over an odd Addon (#77) | `objects::hostile` |
//! | an event with each pass | `objects::steps::upstreams_reasons_are_told`, `addon::engine::reasons::tests` |
//! | flags of addonctl that panic or are ignored | `addonctl::usage`, `addonctl::create` |

use super::objects::{GROUP, simple};
use super::*;

const ADDONS: &str = "addons";

fn path(name: &str) -> String {
    format!("{GROUP}/namespaces/{ADDONS}/addons/{name}")
}

fn map_at(name: &str) -> String {
    format!("/api/v1/namespaces/{ADDONS}/configmaps/{name}")
}

fn reason(addon: &Value) -> &str {
    addon["status"]["reason"].as_str().unwrap_or_default()
}

/// With a delete step that changes a ConfigMap which has to be there.
fn with_delete(addon: &str) -> String {
    let (_, template) = addon.split_once("      template: |\n").unwrap();
    let change = template.replace("action: apply", "action: patch").replacen(
        "metadata: {name: ",
        "metadata: {name: needed-by-",
        1,
    );
    format!("{addon}    delete:\n      template: |\n{change}")
}

/// Dependencies: what was installed is known after a restart; another Addon of the same name in another
/// namespace is another; a version that was replaced is not there any more; one met dependency is not
/// enough; who waits goes on when what it waits for succeeds (#52).
#[tokio::test]
async fn keiko_b4_52_dependencies_survive_restarts_and_follow_versions() {
    let world = World::with_addons().await;
    world.apply_text(&simple("net", "core/net", "{}", "one")).await;
    world.until_succeeded("addons/net").await;
    world.deck.replica(0).process().kill().await.unwrap();
    world.deck.replica(0).restart().unwrap();
    world.deck.ready(LONG).await.unwrap();
    world.apply_text(&simple("first", "team/first", "{core/net: 1.0.0}", "one")).await;
    world.until_succeeded("addons/first").await;

    // A twin by name, elsewhere: it is refused the account, and takes nothing from the first.
    world.kubectl(&["create", "namespace", "elsewhere"]).await;
    let twin =
        simple("net", "team/other", "{}", "one").replace("namespace: addons}\nspec", "namespace: elsewhere}\nspec");
    world.apply_text(&twin).await;
    world.until_addon("elsewhere/net", "the twin is blocked", |addon| addon["status"]["health"] == "Blocked").await;
    world.kubectl(&["-n", "elsewhere", "delete", "addon", "net", "--wait=false"]).await;
    world.apply_text(&simple("second", "team/second", "{core/net: ^1.0}", "one")).await;
    world.until_succeeded("addons/second").await;

    let newer = simple("net", "core/net", "{}", "two").replace("pkgVersion: 1.0.0", "pkgVersion: 2.0.0");
    world.apply_text(&newer).await;
    world.until_addon("addons/net", "it is upgraded", |addon| addon["status"]["version"] == "2.0.0").await;
    world.apply_text(&simple("third", "team/third", "{core/net: 1.0.0, core/late: \"*\"}", "one")).await;
    world
        .until_addon("addons/third", "the old version is gone", |addon| {
            reason(addon).contains("core/net:1.0.0 (there is 2.0.0)") && reason(addon).contains("core/late")
        })
        .await;
    world.apply_text(&simple("third", "team/third", "{core/net: \">=2\", core/late: \"*\"}", "one")).await;
    world
        .until_addon("addons/third", "one of two is not enough", |addon| {
            reason(addon).contains("core/late") && !reason(addon).contains("core/net")
        })
        .await;
    world.apply_text(&simple("late", "core/late", "{}", "one")).await;
    world.until_succeeded("addons/third").await;
}

/// Deleting: after prereqs or install that never succeeded (#133), while something is still waited for
/// (#68), and with a delete step that fails, which is told (#180) and tried again; what was made goes
/// though no delete step takes it away.
#[tokio::test]
async fn keiko_b6_133_68_180_an_addon_that_is_deleted_goes_whatever_became_of_it() {
    let world = World::with_addons().await;
    let refused = simple("refused", "team/refused", "{}", "one").replace("action: apply", "action: get");
    world.apply_text(&refused).await;
    world
        .until_addon("addons/refused", "it is refused", |addon| {
            addon["status"]["lifecycle"]["installed"] == "Validation Failed"
        })
        .await;
    world.kubectl(&["-n", ADDONS, "delete", "addon", "refused"]).await;

    // It has made something, and waits for a Secret.
    let text = simple("waits", "team/waits", "{}", "one");
    let (head, template) = text.split_once("    install:\n").unwrap();
    let made = template.replace("metadata: {name: waits}", "metadata: {name: early}");
    let waits = format!(
        "{}    prereqs:\n{made}    install:\n{template}",
        head.replace("  lifecycle:", "  secrets: [{name: absent}]\n  lifecycle:")
    );
    world.apply_text(&waits).await;
    world.until_there(&map_at("early")).await;
    world.until_addon("addons/waits", "it waits for a secret", |addon| reason(addon).contains("absent")).await;
    world.kubectl(&["-n", ADDONS, "delete", "addon", "waits"]).await;
    world.until_gone(&map_at("early")).await;
    assert_eq!(world.get(&map_at("waits")).await.unwrap(), None);

    world.apply_text(&with_delete(&simple("app", "team/app", "{}", "one"))).await;
    world.until_succeeded("addons/app").await;
    world.kubectl(&["-n", ADDONS, "delete", "addon", "app", "--wait=false"]).await;
    world
        .until_addon("addons/app", "its delete step fails", |addon| {
            addon["status"]["lifecycle"]["installed"] == "Delete Failed" && reason(addon).contains("needed-by-app")
        })
        .await;
    world.until_there(&map_at("app")).await;
    world.kubectl(&["-n", ADDONS, "create", "configmap", "needed-by-app"]).await;
    world.until_gone(&path("app")).await;
    world.until_gone(&map_at("app")).await;
    assert_eq!(world.until_there(&map_at("needed-by-app")).await["data"]["k"], "one");
}

/// An Addon that is deleted and made again at once is installed anew (#124), as often as that happens.
#[tokio::test]
async fn keiko_b11_124_an_addon_that_is_made_again_at_once_is_installed() {
    let world = World::with_addons().await;
    for round in 0..4 {
        let value = format!("v{round}");
        world.apply_text(&simple("app", "team/app", "{}", &value)).await;
        if round % 2 == 0 {
            world.until_succeeded("addons/app").await;
        }
        world.kubectl(&["-n", ADDONS, "delete", "addon", "app"]).await;
    }
    world.apply_text(&simple("app", "team/app", "{}", "last")).await;
    let addon = world.until_succeeded("addons/app").await;
    let map = world.until(&map_at("app"), "the last one is there", |map| map["data"]["k"] == "last").await;
    let member = format!("ConfigMap/addons/app {}", map["metadata"]["uid"].as_str().unwrap());
    world
        .until_addon("addons/app", "its inventory names the new object", |addon| {
            let mut all = addon["status"]["inventory"].as_array().into_iter().flatten().filter_map(Value::as_str);
            all.any(|one| one.starts_with(&member))
        })
        .await;
    assert_eq!(addon["status"]["lifecycle"]["installed"], "Succeeded");
}
