//! The epoch fence on a real server: it refuses the writes of the past, and never those of anybody else, whatever befalls
//! its parts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use http::{HeaderValue, Request};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use parking_lot::Mutex;
use quarterdeck_election::epoch::{NAMESPACE_DELETION_KEY, epoch_key, extra_header};
use quarterdeck_election::fence::{KubeFenceProver, NAMESPACE_MESSAGE};
use quarterdeck_election::{EpochToken, FenceState, LeaseView};
use quarterdeck_it::audit::Event;
use quarterdeck_it::deck::{install, program, uninstall};
use quarterdeck_it::{ControlPlane, Deck, eventually};
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

/// Time that anything gets on a loaded machine.
const LONG: Duration = Duration::from_secs(60);
/// Name of the policy and of its binding.
const FENCE: &str = "quarterdeck-fence-quarterdeck";
const DECK: [&str; 4] = [
    "--controllers=endpointslice-controller",
    "--leader-elect-lease-duration=4s",
    "--leader-elect-renew-deadline=3s",
    "--leader-elect-retry-period=500ms",
];

/// People and programs that have nothing to do with us, writing all the time.
struct Strangers {
    refusals: Arc<Mutex<Vec<String>>>,
    written: Arc<Mutex<u64>>,
    _task: AbortOnDropHandle<()>,
}

impl Strangers {
    async fn start(control_plane: &ControlPlane) -> Result<Self> {
        control_plane.namespace("strangers").await?;
        let (refusals, written) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let client = control_plane.admin().await?;
        let task = write_for_ever(client, refusals.clone(), written.clone());
        Ok(Self { refusals, written, _task: AbortOnDropHandle::new(tokio::spawn(task)) })
    }

    /// Waits until each of them has written since this call; none may have been refused so far.
    async fn are_well(&self) {
        let before = *self.written.lock();
        eventually("strangers write", LONG, async || {
            ensure!(*self.written.lock() >= before + 8, "{} writes", self.written.lock());
            Ok(())
        })
        .await
        .unwrap();
        assert!(self.refusals.lock().is_empty(), "refused: {:#?}", self.refusals.lock());
    }
}

/// As an administrator, as an account without extras, and with extras of other keys; on an object and a subresource.
async fn write_for_ever(client: kube::Client, refusals: Arc<Mutex<Vec<String>>>, written: Arc<Mutex<u64>>) {
    let extras =
        [("impersonate-extra-example.com%2fother", "x"), ("impersonate-extra-quarterdeck.dev%2fepoch-other", "x/1")];
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    for number in 0_u64.. {
        pace.tick().await;
        let map = json!({ "metadata": { "generateName": "map-" }, "data": { "number": number.to_string() } });
        let mut request = Request::post("/api/v1/namespaces/strangers/configmaps")
            .header("content-type", "application/json")
            .body(map.to_string().into_bytes())
            .expect("a request");
        let headers = request.headers_mut();
        if number % 4 > 0 {
            headers.insert("impersonate-user", HeaderValue::from_static("stranger"));
            headers.insert("impersonate-group", HeaderValue::from_static("system:masters"));
        }
        if let Some((name, value)) = extras.get(usize::try_from(number % 4).unwrap_or_default().wrapping_sub(2)) {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        match client.request::<serde_json::Value>(request).await {
            Ok(_) => *written.lock() += 1,
            // A server that is down or just starting refuses nobody in particular.
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                refusals.lock().push(status.message.clone());
            }
            Err(_) => {}
        }
    }
}

async fn token(control_plane: &ControlPlane) -> Result<EpochToken> {
    let leases: Api<Lease> = Api::namespaced(control_plane.admin().await?, "kube-system");
    Ok(LeaseView::from(leases.get("quarterdeck").await?).token())
}

/// What two dry runs show right now.
async fn fence_for(control_plane: &ControlPlane, token: &EpochToken) -> Result<FenceState> {
    let prover = KubeFenceProver::new(control_plane.admin().await?, "quarterdeck");
    prover.verify(token).await.map_err(|error| anyhow!(error))
}

/// Waits until the fence stands for the present epoch.
async fn stands(control_plane: &ControlPlane) {
    eventually("the fence stands", LONG, async || {
        let state = fence_for(control_plane, &token(control_plane).await?).await?;
        ensure!(state.is_verified(), "{state:?}");
        Ok(())
    })
    .await
    .unwrap();
}

/// What the leader knows of the fence, which is another one than `before`.
async fn new_tenure(deck: &Deck, before: &str) -> String {
    eventually("a new tenure", LONG, async || {
        let leader = deck.leader(LONG).await?;
        let status = deck.replica(leader).status().await?;
        let epoch = status.0["election"]["transitions"].to_string();
        ensure!(epoch != before, "still {epoch}");
        Ok(status.0["election"]["fence"].as_str().unwrap_or_default().to_owned())
    })
    .await
    .unwrap()
}

/// Waits until a tenure after `before` has proven the fence. The server may not have looked at its Lease when the fence is
/// proven first; it is proven again soon.
async fn leader_knows_of_it(deck: &Deck, before: &str) {
    eventually("the leader knows of the fence", 2 * LONG, async || {
        let fence = new_tenure(deck, before).await;
        ensure!(fence == "verified", "{fence}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn end_tenure(deck: &Deck) -> String {
    let leader = deck.leader(LONG).await.unwrap();
    let replica = deck.replica(leader);
    let epoch = replica.status().await.unwrap().0["election"]["transitions"].to_string();
    replica.process().stop(LONG).await.unwrap();
    replica.restart().unwrap();
    epoch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_befalls_the_fence_no_stranger_is_refused() {
    let control_plane = ControlPlane::builder().start().await.unwrap();
    let strangers = Strangers::start(&control_plane).await.unwrap();
    let client = control_plane.admin().await.unwrap();
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");

    // Installed before there is any Lease: our own key passes too, the Lease can be made, and then it stands.
    install(&program().unwrap(), &control_plane.admin_kubeconfig().unwrap(), &[]).await.unwrap();
    let nobody = EpochToken { lease_uid: "none".into(), transitions: 1 };
    assert_eq!(fence_for(&control_plane, &nobody).await.unwrap(), FenceState::Absent);
    strangers.are_well().await;
    let deck = Deck::builder(&control_plane).replicas(2).without_install().args(DECK).start().await.unwrap();
    deck.ready(LONG).await.unwrap();
    leader_knows_of_it(&deck, "none").await;
    strangers.are_well().await;

    // The Lease is deleted under its holder: the tenure ends, and the fence refuses its token.
    let past = token(&control_plane).await.unwrap();
    leases.delete("quarterdeck", &DeleteParams::default()).await.unwrap();
    eventually("another lease", LONG, async || {
        let token = token(&control_plane).await?;
        ensure!(token.lease_uid != past.lease_uid, "the old one");
        Ok(())
    })
    .await
    .unwrap();
    deck.leader(LONG).await.unwrap();
    stands(&control_plane).await;
    let late = fence_for(&control_plane, &past).await.unwrap();
    assert!(matches!(late, FenceState::Broken(_)), "a token of the deleted lease is taken: {late:?}");
    strangers.are_well().await;

    // The server restarts: it stands at once.
    control_plane.apiserver(0).restart().await.unwrap();
    stands(&control_plane).await;
    deck.leader(LONG).await.unwrap();
    strangers.are_well().await;

    // The binding goes for five seconds and comes back: the server's copy of the Lease may be dead from then on, and with it
    // the fence, which a new tenure notices and does without; a restart of the server is the cure.
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let mut binding = bindings.get(FENCE).await.unwrap();
    bindings.delete(FENCE, &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    strangers.are_well().await;
    binding.metadata =
        ObjectMeta { name: binding.metadata.name, labels: binding.metadata.labels, ..Default::default() };
    bindings.create(&PostParams::default(), &binding).await.unwrap();
    strangers.are_well().await;
    let before = end_tenure(&deck).await;
    eventually("the leader knows how it is", 2 * LONG, async || {
        let state = new_tenure(&deck, &before).await;
        let now = fence_for(&control_plane, &token(&control_plane).await?).await?;
        ensure!((state == "verified") == now.is_verified(), "{state} {now:?}");
        Ok(())
    })
    .await
    .unwrap();
    strangers.are_well().await;
    control_plane.apiserver(0).restart().await.unwrap();
    stands(&control_plane).await;
    let before = end_tenure(&deck).await;
    leader_knows_of_it(&deck, &before).await;
    strangers.are_well().await;

    // Uninstalled: the policy goes before the binding, and nothing is refused any more.
    let mut audit = control_plane.audit_from_now().unwrap();
    uninstall(&program().unwrap(), &control_plane.admin_kubeconfig().unwrap(), &[]).await.unwrap();
    let deleted = |resource: &'static str| {
        move |event: &Event| event.verb == "delete" && event.name() == FENCE && event.resource().starts_with(resource)
    };
    let policy = audit.wait_for("the policy's end", LONG, deleted("validatingadmissionpolicies.")).await.unwrap();
    let binding =
        audit.wait_for("the binding's end", LONG, deleted("validatingadmissionpolicybindings.")).await.unwrap();
    assert!(policy.stage_timestamp < binding.request_received_timestamp, "the binding went first");
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    assert!(policies.get_opt(FENCE).await.unwrap().is_none());
    strangers.are_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_with_a_namespace_is_deleted_with_it_only() {
    let control_plane = ControlPlane::builder().start().await.unwrap();
    let deck = Deck::builder(&control_plane).replicas(1).args(DECK).start().await.unwrap();
    deck.leader(LONG).await.unwrap();
    stands(&control_plane).await;
    control_plane.namespace("alive").await.unwrap();
    let client = control_plane.admin().await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "alive");
    let map = ConfigMap {
        metadata: ObjectMeta { name: Some("map".to_owned()), ..Default::default() },
        data: Some(BTreeMap::new()),
        ..Default::default()
    };
    maps.create(&PostParams::default(), &map).await.unwrap();
    let token = token(&control_plane).await.unwrap().to_string();
    let request = Request::delete("/api/v1/namespaces/alive/configmaps")
        .header("impersonate-user", "somebody")
        .header("impersonate-group", "system:masters")
        .header(extra_header(&epoch_key("quarterdeck")), token)
        .header(extra_header(NAMESPACE_DELETION_KEY), "true")
        .body(Vec::new())
        .unwrap();
    let error = client.request::<serde_json::Value>(request).await.unwrap_err();
    assert!(error.to_string().contains(NAMESPACE_MESSAGE), "{error}");
    maps.get("map").await.unwrap();
}
