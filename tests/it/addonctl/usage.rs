//! The table of addonctl's usage in the document, line by line. No server is anywhere.

use quarterdeck_api::addon::Addon;
use serde_json::json;

use super::{Ran, alone};

/// The flags as the document lists them: shorthand, name, whether it takes a text, and what its
/// description is about.
const TABLE: [(&str, &str, bool, &str); 14] = [
    ("-c", "--channel", true, "channel for the addon package"),
    ("", "--cluster-name", true, "name of the cluster context being used"),
    ("", "--cluster-region", true, "cluster region"),
    ("", "--deps", true, "dependencies list in the format 'pkgname:pkgversion'"),
    ("", "--desc", true, "description of the addon"),
    ("", "--dryrun", false, "outputs the addon spec but doesn't submit"),
    ("", "--install", true, "to submit as install step"),
    ("-n", "--namespace", true, "namespace where the addon will be deployed"),
    ("-p", "--params", true, "params to supply to the resource yaml"),
    ("", "--prereqs", true, "to submit as prereqs step"),
    ("", "--secrets", true, "list of secret names which are validated"),
    ("", "--selector", true, "selector"),
    ("-t", "--type", true, "addon package type"),
    ("-v", "--version", true, "addon package version"),
];

fn addon(ran: Ran) -> Addon {
    serde_json::from_str(&ran.fine()).expect("the output is the object and nothing else")
}

#[tokio::test]
async fn every_line_of_the_documents_table_is_in_the_help() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["--help"][..], &["create", "--help"], &["help", "create"]] {
        let help = alone(home.path(), args).await.fine();
        for (short, long, takes, about) in TABLE {
            let mut wanted = if short.is_empty() { format!("      {long}") } else { format!("  {short}, {long}") };
            if takes {
                wanted.push_str(" <string>");
            }
            let line =
                help.lines().find(|line| line.starts_with(&wanted)).unwrap_or_else(|| panic!("{wanted} in:\n{help}"));
            assert!(line.to_lowercase().contains(about), "{about:?} in {line:?}");
            assert!(takes || !line.contains("<string>"), "{line}");
        }
    }
    let help = alone(home.path(), &["--help"]).await.fine();
    for line in [
        "A control plane for managing addons",
        "Usage: addonctl [command]",
        "Available Commands:",
        "  create      Create the addon resource with the supplied arguments",
        "  -h, --help",
        "Use \"addonctl [command] --help\" for more information about a command.",
    ] {
        assert!(help.lines().any(|found| found.starts_with(line)), "{line:?} in:\n{help}");
    }
}

#[tokio::test]
async fn the_documents_command_prints_the_object_and_asks_no_server() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
    write(
        "prereq_resources.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: \"{{workflow.parameters.namespace}}\"\n",
    );
    write("install_resources.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: cm\n");
    let words = "create my-addon -n my-addon-ns --type composite --version v0.2 --cluster-name my.cluster.k8s.local \
         --cluster-region us-west-2 --selector app:myaddon --prereqs ./prereq_resources.yaml --install \
         ./install_resources.yaml --dryrun";
    let args: Vec<&str> = words.split_whitespace().collect();
    let yaml = alone(home.path(), &args).await.fine();
    assert!(yaml.starts_with("apiVersion: addonmgr.keikoproj.io/v1alpha1\nkind: Addon\n"), "{yaml}");
    let made = addon(alone(home.path(), &[&args[..], &["-o", "json"]].concat()).await);
    assert_eq!((made.name(), &*made.spec.pkg_name, &*made.spec.pkg_version), ("my-addon", "my-addon", "v0.2"));
    let wanted = json!({
        "namespace": "my-addon-ns", "context": {"clusterName": "my.cluster.k8s.local", "clusterRegion": "us-west-2"},
    });
    assert_eq!(serde_json::to_value(&made.spec.params).unwrap(), wanted);
    assert_eq!(made.spec.selector.match_labels.unwrap()["app"], "myaddon");
    for template in [&made.spec.lifecycle.prereqs, &made.spec.lifecycle.install].map(|step| &step.template) {
        assert!(template.contains("kubectl apply -f /tmp/doc"), "{template}");
        // The same text stands in the YAML, a block deeper.
        assert!(template.lines().all(|line| yaml.contains(line)), "{yaml}");
    }
    let delete = &made.spec.lifecycle.delete.template;
    assert!(delete.contains("kubectl delete --ignore-not-found -f /tmp/doc"), "{delete}");
    assert!(!delete.contains("--all"), "{delete}");
}

#[tokio::test]
async fn every_flag_works_by_name_by_shorthand_and_before_the_command() {
    let home = tempfile::tempdir().unwrap();
    let values = [
        ("--channel", "c", "spec", "pkgChannel", json!("c")),
        ("--desc", "what it is", "spec", "pkgDescription", json!("what it is")),
        ("--namespace", "other", "params", "namespace", json!("other")),
        ("--type", "helm", "spec", "pkgType", json!("helm")),
        ("--version", "v2", "spec", "pkgVersion", json!("v2")),
        ("--deps", "a:v1,b/c:*", "spec", "pkgDeps", json!({"a": "v1", "b/c": "*"})),
        ("--params", "x=1,y=a b", "params", "data", json!({"x": "1", "y": "a b"})),
        ("--secrets", "s1,s2", "spec", "secrets", json!([{"name": "s1"}, {"name": "s2"}])),
        ("--cluster-name", "n", "params", "context", json!({"clusterName": "n"})),
        ("--cluster-region", "r", "params", "context", json!({"clusterRegion": "r"})),
        ("--selector", "k:v", "spec", "selector", json!({"matchLabels": {"k": "v"}})),
    ];
    for (long, value, place, field, wanted) in values {
        let (short, ..) = TABLE.iter().find(|row| row.1 == long).unwrap();
        // What is not tried itself is given all the same, where it is needed.
        let needed = [("--namespace", "--namespace=ns"), ("--version", "--version=v1")];
        let needed: Vec<&str> = needed.iter().filter(|(flag, _)| *flag != long).map(|(_, arg)| *arg).collect();
        let tail = [&needed[..], &["--dryrun", "-o=json"]].concat();
        let joined = format!("{long}={value}");
        let mut forms = vec![
            [&["create", "core/app", long, value], &tail[..]].concat(),
            [&["create", &joined, "core/app"], &tail[..]].concat(),
            [&[long, value, "create", "core/app"], &tail[..]].concat(),
        ];
        if !short.is_empty() {
            forms.push([&["create", short, value, "core/app"], &tail[..]].concat());
        }
        for form in forms {
            let made = serde_json::to_value(addon(alone(home.path(), &form).await)).unwrap();
            let place = if place == "spec" { &made["spec"] } else { &made["spec"]["params"] };
            assert_eq!(place[field], wanted, "{form:?}");
            assert_eq!((&made["metadata"]["name"], &made["spec"]["pkgName"]), (&json!("core-app"), &json!("core/app")));
        }
    }
}

#[tokio::test]
async fn directories_and_scripts_become_steps() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("steps");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("1.yaml"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n").unwrap();
    std::fs::write(folder.join("2.py"), "print('hello')\n").unwrap();
    let args =
        ["create", "a", "-n", "ns", "-v", "1", "--prereqs", "steps", "--install", "steps/2.py", "--dryrun", "-o=json"];
    let made = addon(alone(home.path(), &args).await);
    let (prereqs, install) = (&made.spec.lifecycle.prereqs.template, &made.spec.lifecycle.install.template);
    assert!(prereqs.contains("kind: ConfigMap") && prereqs.contains("print('hello')"), "{prereqs}");
    assert!(install.contains("script:") && !install.contains("kubectl"), "{install}");
}

#[tokio::test]
async fn what_is_wrong_is_said_and_coded() {
    let home = tempfile::tempdir().unwrap();
    let usage = [&["create"][..], &["create", "a", "--unknown"], &["nonsense"], &[], &["get", "-o", "xml"]];
    for args in usage {
        let ran = alone(home.path(), args).await;
        assert_eq!((ran.code, ran.out.as_str()), (64, ""), "{args:?}: {}", ran.err);
    }
    let error = alone(home.path(), &["create", "a", "--dryrun"]).await.failed(1);
    assert_eq!(error, "error: --namespace and --version must be given\n");
    // What is wrong with the files is said before a server is looked for.
    let error = alone(home.path(), &["create", "a", "-n=n", "-v=1", "--install=none.yaml"]).await.failed(1);
    assert!(error.starts_with("error: --install none.yaml: "), "{error}");
    let error = alone(home.path(), &["get"]).await.failed(1);
    assert!(error.contains("there is no kubeconfig"), "{error}");
    let error = alone(home.path(), &["get", "--kubeconfig=/nowhere"]).await.failed(1);
    assert!(error.contains("kubeconfig /nowhere"), "{error}");
}

#[tokio::test]
async fn shells_and_manuals_are_served_without_a_server() {
    let home = tempfile::tempdir().unwrap();
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef addonctl"), ("fish", "complete -c addonctl")] {
        let script = alone(home.path(), &["completion", shell]).await.fine();
        assert!(script.contains(word) && script.contains("cluster-region"), "{shell}");
    }
    let page = alone(home.path(), &["man"]).await.fine();
    assert!(page.contains(".TH addonctl 1") && page.contains("addonctl\\-create(1)"), "{page}");
    alone(home.path(), &["man", "--dir", "pages"]).await.fine();
    for name in ["addonctl.1", "addonctl-create.1", "addonctl-wait.1", "addonctl-channels-get.1"] {
        let page = std::fs::read_to_string(home.path().join("pages").join(name)).unwrap();
        assert!(page.contains(&format!(".TH {} 1", name.trim_end_matches(".1"))), "{name}: {page}");
    }
    assert!(alone(home.path(), &["version"]).await.fine().starts_with("addonctl 0."));
}
