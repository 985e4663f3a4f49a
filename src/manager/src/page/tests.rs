use http_body_util::BodyExt as _;
use quarterdeck_api::status::{
    AddonPart, ControllerPart, ElectionPart, InformerPart, MasterPart, ProviderPart, QueuePart, RefusalPart, SlowPart,
    Status, TermNote, TermPart,
};

use super::*;

const NASTY: &str = "</td><script>alert(1)</script>\"' onload=x &amp;";

async fn body(answer: Answer) -> String {
    let bytes = answer.into_body().collect().await.expect("it is whole").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("it is text")
}

/// A status with something of everything, `text` wherever somebody else's text may stand.
fn full(text: &str, controllers: usize) -> Statusz {
    let own = || text.to_owned();
    let some = || Some(text.to_owned());
    let queue = QueuePart {
        depth: 3,
        oldest: Some((own(), 61.0)),
        idle_seconds: Some(1.0),
        added_per_second: 0.5,
        ..QueuePart::default()
    };
    let controller = |number: usize| ControllerPart {
        name: format!("{text}{number}"),
        state: if number == 0 { "blocked".to_owned() } else { "running".to_owned() },
        reason: some().filter(|_| number == 0),
        queue: Some(queue.clone()),
        stuck_seconds: None,
        slowest: vec![SlowPart { key: own(), seconds: 0.2 }; 5],
    };
    let term = TermNote { holder: own(), began: own(), why: some(), ended: some(), ..TermNote::default() };
    Statusz {
        metadata: [("name".to_owned(), own())].into(),
        binary_version: own(),
        status: Status {
            server: own(),
            election: Some(ElectionPart {
                lease: own(),
                holder: some(),
                identity: own(),
                fence: Some(format!("broken: {text}")),
                transitions: Some(3),
                ..ElectionPart::default()
            }),
            controllers: (0..controllers).map(controller).collect(),
            informers: (0..controllers * 2)
                .map(|number| InformerPart {
                    resource: format!("{text}{number}"),
                    form: own(),
                    selection: some(),
                    state: format!("retrying: {text}"),
                    ..InformerPart::default()
                })
                .collect(),
            masters: (0..3)
                .map(|number| MasterPart {
                    name: format!("{text}{number}"),
                    identity: some(),
                    address: some(),
                    version: some(),
                    since: some(),
                    leads: number == 0,
                    alive: number < 2,
                    me: number == 1,
                    ..MasterPart::default()
                })
                .collect(),
            masters_unknown: some(),
            history: (0..30).map(|_| TermPart { replica: own(), term: term.clone(), lasts: false }).collect(),
            refusals: (0..20)
                .map(|_| RefusalPart { at: own(), by: own(), controller: own(), what: own(), why: own() })
                .collect(),
            addons: Some(vec![AddonPart {
                name: own(),
                source: own(),
                version: own(),
                state: "degraded".to_owned(),
                message: some(),
                ..AddonPart::default()
            }]),
            cloud: Some(vec![ProviderPart {
                provider: own(),
                breaker: own(),
                trouble: some(),
                in_flight: [(own(), 1)].into(),
                account: some(),
                last_error: some(),
                last_error_of: some(),
                ..ProviderPart::default()
            }]),
            ..Status::default()
        },
        ..Statusz::default()
    }
}

#[tokio::test]
async fn whatever_others_write_is_shown_and_never_markup() {
    let page = body(page(&full(NASTY, 3), "")).await;
    assert!(!page.contains("<script>alert"), "{page}");
    assert!(!page.contains("\" onload") && !page.contains("' onload"));
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert_eq!(page.matches("<script").count(), 1);
    assert_eq!(page.matches("<td").count(), page.matches("</td>").count());
    assert_eq!(page.matches("<th").count() - page.matches("<thead").count(), page.matches("</th>").count());
}

#[tokio::test]
async fn only_its_own_style_and_script_are_let_in() {
    let answer = page(&full("x", 1), "");
    let header = |name: &str| answer.headers()[name].to_str().expect("plain text").to_owned();
    let policy = header("content-security-policy");
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(header("cache-control"), "no-store");
    assert_eq!(header("x-content-type-options"), "nosniff");
    // The hashes are those of what stands between the tags.
    let text = body(page(&full("x", 1), "")).await;
    for tag in ["style", "script"] {
        let (_, rest) = text.split_once(&format!("<{tag}>")).expect("there is one");
        let (content, _) = rest.split_once(&format!("</{tag}>")).expect("it ends");
        assert!(policy.contains(&format!("{tag}-src 'sha256-{}'", hash(content))), "{tag}");
    }
    assert!(!text.contains(" style=") && !text.contains(" onclick="), "no such attribute would be let in");
}

#[tokio::test]
async fn a_page_of_ten_controllers_is_small() {
    let text = body(page(&full("endpointslice-mirroring-controller", 10), "")).await;
    assert!(text.len() < 100_000, "{} bytes", text.len());
}

#[tokio::test]
async fn the_part_that_changes_is_served_alone() {
    let part = body(page(&full("x", 1), "a=b&part=live")).await;
    assert!(part.starts_with("<div id=\"live\"") && part.ends_with("</div>"), "{part}");
    assert!(!part.contains("<script") && !part.contains("<style"));
    assert!(body(page(&full("x", 1), "part=other")).await.starts_with("<!doctype html>"));
}

#[tokio::test]
async fn an_empty_status_is_a_page_too() {
    let text = body(page(&Statusz::default(), "")).await;
    for (id, name) in summary::SECTIONS {
        assert!(text.contains(&format!("id=\"{id}\"")) && text.contains(name), "{name}");
    }
    assert!(text.contains("takes part in no election"));
}

#[tokio::test]
async fn what_is_wrong_comes_first_with_its_runbook() {
    let mut statusz = full("x", 2);
    statusz.status.masters_unknown = None;
    let text = body(page(&statusz, "")).await;
    let wrong = text.find("id=\"wrong\"").expect("the section is there");
    assert!(wrong < text.find("id=\"masters\"").expect("the section is there"));
    assert!(text.contains("https://quarterdeck.dev/runbooks/QuarterdeckFenceBroken"));
    assert!(text.find("critical").expect("the fence is broken") < text.find("blocked: x").expect("x0 is blocked"));
}
