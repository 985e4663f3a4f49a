use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use quarterdeck_api::duration::parse as go_duration;

use super::testing::descriptor;
use super::*;

/// Flags of a controller, as an author writes them.
#[derive(Clone, Debug, clap::Args)]
struct SliceFlags {
    /// Endpoints a slice may hold.
    #[arg(long, default_value_t = 100)]
    max_endpoints_per_slice: i32,
    /// How long to gather changes.
    #[arg(long, value_parser = go_duration, default_value = "0s")]
    endpointslice_updates_batch_period: Duration,
    /// Try it first.
    #[arg(long)]
    slice_dry_run: bool,
}

/// Another controller's flags, with a field of the same name as one above.
#[derive(Clone, Debug, clap::Args)]
struct NamespaceFlags {
    /// How many at once.
    #[arg(long = "concurrent-namespace-syncs", default_value_t = 10)]
    workers: i32,
    /// Paths to read.
    #[arg(long, value_delimiter = ',', help_heading = "namespace extras")]
    namespace_paths: Vec<String>,
}

/// Flags of a subcommand.
#[derive(Clone, Debug, clap::Args)]
struct InstallFlags {
    /// Only show what would be done.
    #[arg(long)]
    dry_run: bool,
}

fn flags() -> FlagSet {
    let mut off = descriptor("cloud-node-controller", &["cloud-node"]);
    off.enabled_by_default = false;
    FlagSet::new(Program {
        name: "quarterdeck".into(),
        version: "0.1.0".into(),
        about: "Runs the controllers of a control plane, on every master, one of them at work.".into(),
        controllers: vec![
            descriptor("namespace-controller", &["namespace"]),
            descriptor("endpointslice-controller", &["endpointslice"]),
            off,
        ],
        upstream: true,
    })
    .with::<SliceFlags>("endpointslice-controller")
    .with::<NamespaceFlags>("namespace-controller")
    .subcommand::<InstallFlags>("install", "Bring what the server needs")
}

fn run(line: &str) -> Parsed {
    match flags().parse(line.split_whitespace(), 0) {
        Ok(Outcome::Run(parsed)) => *parsed,
        other => panic!("{line}: {other:?}"),
    }
}

fn errors(line: &str) -> Vec<String> {
    match flags().parse(line.split_whitespace(), 0) {
        Err(error) => error.errors,
        other => panic!("{line}: {other:?}"),
    }
}

fn print(line: &str) -> String {
    match flags().parse(line.split_whitespace(), 0) {
        Ok(Outcome::Print(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn defaults_are_upstreams_but_for_two() {
    let options = run("").options;
    let seconds = Duration::from_secs;
    assert_eq!(options.election.leader_elect_resource_name, "quarterdeck");
    assert_eq!(options.serving.secure_port, 10267);
    assert_eq!(options.serving.bind_address.to_string(), "0.0.0.0");
    assert!(options.election.leader_elect && options.debug.profiling);
    assert_eq!(options.election.leader_elect_lease_duration, seconds(15));
    assert_eq!(options.election.leader_elect_renew_deadline, seconds(10));
    assert_eq!(options.election.leader_elect_retry_period, seconds(2));
    assert_eq!(options.election.leader_elect_resource_namespace, "kube-system");
    assert_eq!(options.election.fence, FenceMode::Auto);
    assert_eq!(options.generic.min_resync_period, seconds(12 * 3600));
    assert_eq!(options.generic.controller_shutdown_timeout, seconds(10));
    assert!((options.generic.kube_api_qps - 20.0).abs() < f32::EPSILON);
    assert_eq!(options.generic.kube_api_burst, 30);
    assert_eq!(options.authentication.authentication_token_webhook_cache_ttl, seconds(10));
    assert_eq!(options.authentication.requestheader_group_headers, ["x-remote-group"]);
    assert_eq!(options.authorization.authorization_always_allow_paths, ["/healthz", "/readyz", "/livez"]);
    assert_eq!(options.logs.logging_format, LogFormat::Text);
    assert!(!options.generic.allow_partial_takeover);
}

#[test]
fn reads_flags_as_pflag_does() {
    let leader_elect = |line: &str| run(line).options.election.leader_elect;
    for line in ["--leader-elect=false", "--leader_elect=F", "--leader-elect=true --leader-elect=0"] {
        assert!(!leader_elect(line), "{line}");
    }
    for line in ["--leader-elect", "--leader-elect=T", "--leader-elect=false --leader-elect"] {
        assert!(leader_elect(line), "{line}");
    }
    let verbosity = |line: &str| run(line).options.logs.verbosity;
    for line in ["-v 4", "-v=4", "-v4", "--v=4", "--v 4", "-v=2 --v=4"] {
        assert_eq!(verbosity(line), 4, "{line}");
    }
    assert_eq!(verbosity("-v=-1"), -1);
    assert_eq!(run("--kubeconfig /a --kubeconfig=/b").options.misc.kubeconfig, "/b");
    assert_eq!(run("--kubeconfig=/a --kubeconfig=").options.misc.kubeconfig, "");
    assert_eq!(run("--master https://x/?a=b").options.misc.master, "https://x/?a=b");
    assert_eq!(run("--log-format=json").options.logs.logging_format, LogFormat::Json);
    assert_eq!(run("--logging_format json").options.logs.logging_format, LogFormat::Json);
    assert_eq!(run("--fence required").options.election.fence, FenceMode::Required);
    let renew = run("--leader-elect-lease-duration 1m --leader-elect-renew-deadline=40s");
    assert_eq!(renew.options.election.leader_elect_renew_deadline, Duration::from_secs(40));
}

#[test]
fn lists_add_up_and_can_be_emptied() {
    let enabled = |line: &str| run(line).selection.enabled().collect::<Vec<_>>();
    assert_eq!(enabled(""), ["endpointslice-controller", "namespace-controller"]);
    assert_eq!(enabled("--controllers=namespace --controllers=endpointslice").len(), 2);
    assert_eq!(enabled("--controllers=* --controllers -namespace"), ["endpointslice-controller"]);
    assert_eq!(enabled("--controllers="), [""; 0]);
    assert_eq!(enabled("--controllers= --controllers=namespace"), ["namespace-controller"]);
    assert_eq!(enabled("--controllers *,cloud-node").len(), 3);
    let headers = run("--requestheader-username-headers=a,b --requestheader-username-headers=c");
    assert_eq!(headers.options.authentication.requestheader_username_headers, ["a", "b", "c"]);
    let paths = run("--authorization-always-allow-paths=").options.authorization.authorization_always_allow_paths;
    assert_eq!(elements(&paths), [""; 0]);
    let pairs = run("--tls-sni-cert-key=a,b --tls-sni-cert-key=c,d:e,f").options.serving.tls_sni_cert_key;
    assert_eq!(pairs, ["a,b", "c,d:e,f"]);
}

#[test]
fn names_every_mistake() {
    let cases: [(&str, &[&str]); 22] = [
        ("--leader-elct", &["unknown flag: --leader-elct (did you mean --leader-elect?)"]),
        ("--nothing-like-it-at-all", &["unknown flag: --nothing-like-it-at-all"]),
        (
            "--concurrent-deploment-syncs=1",
            &["unknown flag: --concurrent-deploment-syncs (did you mean --concurrent-deployment-syncs?)"],
        ),
        ("-x", &["unknown shorthand flag: 'x' in -x"]),
        ("start", &["unexpected argument \"start\": this command takes flags only"]),
        ("--leader-elect false", &["unexpected argument \"false\": this command takes flags only"]),
        ("-- --leader-elect", &["unexpected argument \"--leader-elect\": this command takes flags only"]),
        ("-", &["unexpected argument \"-\": this command takes flags only"]),
        ("--kubeconfig", &["flag needs an argument: --kubeconfig"]),
        ("--=x", &["bad flag syntax: --=x"]),
        ("--leader-elect=maybe", &["invalid argument \"maybe\" for \"--leader-elect\" flag: must be true or false"]),
        ("--secure-port=x", &["invalid argument \"x\" for \"--secure-port\" flag: invalid digit found in string"]),
        ("--secure-port=70000", &["invalid argument \"70000\" for \"--secure-port\" flag: 70000 is not in 0..=65535"]),
        ("--fence=off", &["invalid argument \"off\" for \"--fence\" flag: must be one of auto, required"]),
        (
            "--logging-format=xml",
            &["invalid argument \"xml\" for \"--logging-format\" flag: must be one of text, json"],
        ),
        (
            "--bind-address=localhost",
            &["invalid argument \"localhost\" for \"--bind-address\" flag: invalid IP address syntax"],
        ),
        (
            "--min-resync-period=12 --leader-elct --slice-dry-run=2 --controllers=x,y",
            &[
                "unknown flag: --leader-elct (did you mean --leader-elect?)",
                "invalid argument \"2\" for \"--slice-dry-run\" flag: must be true or false",
                "invalid argument \"12\" for \"--min-resync-period\" flag: duration \"12\" lacks a unit (ns, us, ms, s, m or h)",
            ],
        ),
        (
            "--controllers=namespce,*,-foo",
            &[
                "--controllers: \"namespce\" is not in the list of known controllers (did you mean \"namespace\"?)",
                "--controllers: \"foo\" is not in the list of known controllers",
            ],
        ),
        (
            "--leader-elect-resource-lock=endpoints",
            &["--leader-elect-resource-lock: \"endpoints\" is not supported; the only lock is \"leases\""],
        ),
        (
            "--leader-elect-lease-duration=10s",
            &["--leader-elect-lease-duration: 10s must be greater than --leader-elect-renew-deadline, 10s"],
        ),
        ("--tls-cert-file=a", &["--tls-cert-file and --tls-private-key-file: give both or neither"]),
        (
            "--authorization-always-allow-paths=/a*b",
            &["--authorization-always-allow-paths: \"/a*b\" may hold a * only at its end"],
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(errors(line), expected, "{line}");
    }
    let text = flags().parse(["--leader-elct"], 0).unwrap_err().to_string();
    assert_eq!(
        text,
        "Error: unknown flag: --leader-elct (did you mean --leader-elect?)\nSee 'quarterdeck --help' for usage."
    );
}

#[cfg(unix)]
#[test]
fn refuses_arguments_that_are_no_text() {
    use std::os::unix::ffi::OsStringExt as _;
    let error = flags().parse([std::ffi::OsString::from_vec(vec![b'-', b'-', 0xff])], 0).unwrap_err();
    assert!(error.errors[0].contains("is not valid UTF-8"), "{error}");
}

#[test]
fn upstreams_other_flags_are_accepted_with_one_warning_each() {
    let parsed = run("--concurrent-deployment-syncs 7 --enable-taint-manager --pod_eviction_timeout=5m \
                      --concurrent_rc_syncs=3 --concurrent-rc-syncs=4 --feature-gates=A=true,B=false --node-sync-period=0");
    assert_eq!(
        parsed.warnings,
        [
            "--concurrent-deployment-syncs has no effect: it belongs to deployment-controller, which this build does not have",
            "--enable-taint-manager has no effect: kube-controller-manager removed it; remove it here too",
            "--pod-eviction-timeout has no effect: kube-controller-manager removed it; remove it here too",
            "--concurrent-rc-syncs has no effect: it belongs to replicationcontroller-controller, which this build does not have",
            "--feature-gates has no effect: this build does not have feature gates",
            "--node-sync-period has no effect, here or in kube-controller-manager; remove it",
        ]
    );
    // A switch does not eat what follows it.
    assert_eq!(run("--allocate-node-cidrs --kubeconfig=/a").options.misc.kubeconfig, "/a");
    assert_eq!(errors("--allocate-node-cidrs true").len(), 1);
    // What a controller of this build defines is not ignored.
    assert!(run("--max-endpoints-per-slice=5").warnings.is_empty());
}

/// Every flag that kube-controller-manager 1.36 has: ours or known.
#[test]
fn every_flag_of_upstream_is_accepted() {
    let set = flags();
    let ours: BTreeSet<&str> =
        set.groups.iter().flat_map(|group| group.command.get_arguments()).filter_map(|arg| arg.get_long()).collect();
    let upstream = include_str!("testdata/kube-controller-manager-1.36.flags");
    assert_eq!(upstream.lines().count(), 146);
    for line in upstream.lines() {
        let (name, kind) = line.split_once(' ').unwrap_or((line, ""));
        let known = known::find(name);
        assert!(ours.contains(name) || known.is_some(), "--{name}");
        if let Some(known) = known {
            assert_eq!(known.switch, kind.is_empty(), "--{name}");
        }
    }
    // And none of those ignored is one of the manager's own.
    let manager = FlagSet::new(Program { controllers: Vec::new(), ..set.program });
    for arg in manager.groups[0].command.get_arguments() {
        let name = arg.get_long().unwrap();
        assert!(known::find(name).is_none(), "--{name} is both ours and ignored");
    }
}

#[test]
fn kubeadms_own_arguments_start() {
    let parsed = run("--allocate-node-cidrs=true \
        --authentication-kubeconfig=/etc/kubernetes/controller-manager.conf \
        --authorization-kubeconfig=/etc/kubernetes/controller-manager.conf \
        --bind-address=127.0.0.1 \
        --client-ca-file=/etc/kubernetes/pki/ca.crt \
        --cluster-cidr=10.244.0.0/16 \
        --cluster-name=kubernetes \
        --cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt \
        --cluster-signing-key-file=/etc/kubernetes/pki/ca.key \
        --controllers=*,bootstrapsigner,tokencleaner \
        --kubeconfig=/etc/kubernetes/controller-manager.conf \
        --leader-elect=true \
        --requestheader-client-ca-file=/etc/kubernetes/pki/front-proxy-ca.crt \
        --root-ca-file=/etc/kubernetes/pki/ca.crt \
        --service-account-private-key-file=/etc/kubernetes/pki/sa.key \
        --service-cluster-ip-range=10.96.0.0/12 \
        --use-service-account-credentials=true");
    assert_eq!(parsed.options.misc.kubeconfig, "/etc/kubernetes/controller-manager.conf");
    assert_eq!(parsed.options.serving.bind_address.to_string(), "127.0.0.1");
    assert_eq!(parsed.selection.enabled().count(), 2);
    // One for each ignored flag, and one for each controller that was named.
    assert_eq!(parsed.warnings.len(), 8 + 2, "{:#?}", parsed.warnings);
}

#[test]
fn controllers_flags_reach_their_owners() {
    let parsed = run("--max-endpoints-per-slice=7 --endpointslice-updates-batch-period 500ms --slice_dry_run \
                      --concurrent-namespace-syncs=3 --namespace-paths=a,b");
    let slices: SliceFlags = parsed.get("endpointslice-controller");
    assert_eq!((slices.max_endpoints_per_slice, slices.slice_dry_run), (7, true));
    assert_eq!(slices.endpointslice_updates_batch_period, Duration::from_millis(500));
    let namespaces: NamespaceFlags = parsed.get("namespace-controller");
    assert_eq!((namespaces.workers, namespaces.namespace_paths.len()), (3, 2));
    assert!(!run("--slice-dry-run=false").get::<SliceFlags>("endpointslice-controller").slice_dry_run);
    let values = parsed.values();
    assert_eq!(values["max-endpoints-per-slice"], "7");
    assert_eq!(values["namespace-paths"], "[a,b]");
    assert_eq!(values["min-resync-period"], "12h0m0s");
    assert_eq!(values["leader-elect"], "true");
    assert_eq!(values["allow-partial-takeover"], "false");
    assert_eq!(values["controllers"], "[*]");
}

#[test]
fn subcommands_take_all_flags_and_their_own() {
    match flags().parse(["install", "--dry-run", "--leader-elect-resource-name=x"], 0) {
        Ok(Outcome::Command("install", parsed)) => {
            assert!(parsed.get::<InstallFlags>("install").dry_run);
            assert_eq!(parsed.options.election.leader_elect_resource_name, "x");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(errors("--dry-run"), ["unknown flag: --dry-run"]);
    assert!(print("install --help").contains("quarterdeck install [flags]"));
    assert!(print("install -h").contains("--dry-run"));
}

#[test]
fn prints_and_ends() {
    assert_eq!(print("--version"), "quarterdeck 0.1.0\n");
    assert!(print("--version=raw").starts_with("quarterdeck version=0.1.0 os="));
    assert_eq!(print("--print-kcm-controllers"), "*,-endpointslice-controller,-namespace-controller\n");
    assert_eq!(
        print("--controllers=endpointslice,tokencleaner --print-kcm-controllers"),
        "*,-endpointslice-controller,token-cleaner-controller\n"
    );
    assert_eq!(print("-h"), print("--help"));
    assert_eq!(print("help"), print("--help"));
    assert_eq!(print("--help --no-such-flag"), print("-h"));
}

#[test]
fn help_has_upstreams_form() {
    let help = print("--help");
    let mut at = 0;
    for part in [
        "Runs the controllers of a control plane, on every master, one of them at work.\n\nUsage:\n  quarterdeck [flags]\n",
        "\nAvailable Commands:\n  install   Bring what the server needs\n",
        "\nDebugging flags:\n\n      --profiling   Serve",
        "\nGeneric flags:\n\n      --allow-partial-takeover ",
        "      --controller-shutdown-timeout duration ",
        "      --controllers strings ",
        " All controllers: cloud-node-controller, endpointslice-controller, namespace-controller\n",
        " Disabled-by-default controllers: cloud-node-controller\n",
        " Controllers of upstream's managers that this build lacks (accepted, not run): bootstrap-signer-controller, ",
        " (default [*])\n",
        "      --kube-api-burst int32 ",
        "      --kube-api-qps float32 ",
        "      --leader-elect-resource-name string ",
        "Name of the Lease (default \"quarterdeck\")\n",
        "\nSecure serving flags:\n",
        "      --bind-address ip ",
        "      --secure-port int ",
        " (default 10267)\n",
        "      --tls-cipher-suites strings ",
        "\nAuthentication flags:\n",
        " (default [x-remote-extra-])\n",
        "\nAuthorization flags:\n",
        " (default [/healthz,/readyz,/livez])\n",
        "\nEndpointslice-controller flags:\n\n      --endpointslice-updates-batch-period duration   How long to gather changes\n      --max-endpoints-per-slice int32                 Endpoints a slice may hold (default 100)\n      --slice-dry-run                                 Try it first\n",
        "\nNamespace-controller flags:\n\n      --concurrent-namespace-syncs int32 ",
        "\nNamespace extras flags:\n",
        "\nMetrics flags:\n",
        "\nLogs flags:\n\n      --logging-format string ",
        "\n  -v, --v Level ",
        "\nMisc flags:\n\n      --kubeconfig string ",
        "\nGlobal flags:\n\n  -h, --help                     help for quarterdeck\n      --version version[=true]   ",
    ] {
        let found = help[at..].find(part).unwrap_or_else(|| panic!("missing after byte {at}: {part:?}\n{help}"));
        at += found + part.len();
    }
    assert!(!help.contains("--concurrent-deployment-syncs"), "ignored flags are not advertised");
}

#[test]
fn help_fits_the_terminal() {
    let Ok(Outcome::Print(help)) = flags().parse(["--help"], 80) else { panic!("no help") };
    assert!(help.contains(
        "      --secure-port int\n                Port to serve HTTPS on; 0 serves nothing (default 10267)\n"
    ));
    for line in help.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn an_out_of_tree_manager_is_its_own() {
    let set = FlagSet::new(Program {
        name: "account-manager".into(),
        version: "1".into(),
        about: "Accounts.".into(),
        controllers: vec![descriptor("account-controller", &[])],
        upstream: false,
    });
    let Ok(Outcome::Run(parsed)) = set.parse([""; 0], 0) else { panic!("does not run") };
    assert_eq!(parsed.options.election.leader_elect_resource_name, "account-manager");
    let error = set.parse(["--concurrent-deployment-syncs=1"], 0).unwrap_err();
    assert_eq!(error.errors, ["unknown flag: --concurrent-deployment-syncs"]);
    assert!(!set.help(0).contains("lacks (accepted"));
}

proptest! {
    #[test]
    fn parsing_never_panics(args in proptest::collection::vec("\\PC{0,30}", 0..6)) {
        let _ = flags().parse(args, 0);
    }

    #[test]
    fn parsing_of_likely_lines_never_panics(
        args in proptest::collection::vec(
            "(-{0,3}(v|h|x|leader[-_]elect|controllers|tls-sni-cert-key|secure-port|min-resync-period|fence|feature-gates|version)?=?)?(true|[*,a-z:0-9-]{0,12})",
            0..6,
        ),
        width in 0usize..200,
    ) {
        let _ = flags().parse(args, width);
    }
}
