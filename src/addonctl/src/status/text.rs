//! `status` for people: what is wrong first.

use jiff::Timestamp;
use quarterdeck_api::status::{AddonPart, ControllerPart, MasterPart, ProviderPart, RefusalPart, Status, TermPart};

use super::page::Page;
use super::verdict::{Verdict, colour};
use crate::columns::{Cell, Dress, Sheet, bytes, coloured, harmless, numbers, rate, some, texts, words};
use crate::output::{age, span};

/// Terms of leadership that are shown when there is more to show.
const TERMS: usize = 4;
/// Refused writes that are shown.
const REFUSALS: usize = 5;

/// The whole text.
pub(super) fn render(page: &Page, verdict: &Verdict, wide: bool, now: Timestamp, dress: Dress) -> String {
    let status = page.status();
    let mut text = headline(page, verdict, now, dress);
    let mut part = |title: &str, table: String| {
        if !table.is_empty() {
            text.push_str(&format!("\n{}\n{table}", dress.paint("1", title)));
        }
    };
    part("Masters", masters(&status.masters, wide, now).render(dress));
    part("Leaders of late", terms(&status.history, if wide { usize::MAX } else { TERMS }, now).render(dress));
    part("Controllers", controllers(&status.controllers, wide).render(dress));
    part("Addons", addons(status.addons.as_deref().unwrap_or_default()).render(dress));
    part("Clouds", clouds(status.cloud.as_deref().unwrap_or_default()).render(dress));
    if wide {
        part("Caches", caches(status).render(dress));
    }
    part("Refused writes", refusals(&status.refusals, if wide { usize::MAX } else { REFUSALS }, now).render(dress));
    text
}

/// What is wrong, who leads, and who says so.
fn headline(page: &Page, verdict: &Verdict, now: Timestamp, dress: Dress) -> String {
    let status = page.status();
    let mut text = format!("{}\n", dress.paint(verdict.colour(), &verdict.headline()));
    for problem in &verdict.problems {
        let severity = dress.paint(colour(problem.severity), &problem.severity.to_string());
        let said = format!("{}: {}", harmless(&problem.subject), harmless(&problem.text));
        text.push_str(&format!("  {severity}: {said}"));
        if let Some(runbook) = &problem.runbook {
            text.push_str(&format!(" (docs/runbooks/{}.md)", harmless(runbook)));
        }
        text.push('\n');
    }
    text.push('\n');
    text.push_str(&format!("Leader:  {}\n", leader(status, now)));
    match &page.told_by {
        Some(place) => {
            let version = harmless(&page.statusz.binary_version);
            let up = span(i64::try_from(page.statusz.uptime_seconds).unwrap_or(i64::MAX));
            text.push_str(&format!("Told by: {}, version {version}, up for {up}\n", harmless(place)));
        }
        None => text.push_str("Told by: the Leases alone\n"),
    }
    text
}

/// Who leads since when.
pub(crate) fn leader(status: &Status, now: Timestamp) -> String {
    let Some(election) = &status.election else { return "there is no election: this replica works alone".to_owned() };
    let Some(holder) = &election.holder else { return format!("nobody (Lease {})", harmless(&election.lease)) };
    let master = status.masters.iter().find(|master| master.identity.as_ref() == Some(holder));
    let mut said = harmless(master.map_or(holder, |master| &master.name));
    let own = election.began.as_ref().filter(|_| election.leading);
    if let Some(since) = master.and_then(|master| master.since.as_ref()).or(own) {
        said.push_str(&format!(" for {}, since {}", ago(since, now), moment(since)));
    }
    if let Some(fence) = &election.fence {
        said.push_str(&format!("; fence {}", harmless(fence)));
    }
    if let Some(transitions) = election.transitions {
        said.push_str(&format!("; epoch {transitions}"));
    }
    format!("{said} (Lease {})", harmless(&election.lease))
}

/// How long ago a time was; the text itself if it is none.
fn ago(time: &str, now: Timestamp) -> String {
    time.parse().map_or_else(|_| harmless(time), |time| age(time, now))
}

/// A time, to the second; the text itself if it is none.
fn moment(time: &str) -> String {
    time.parse::<Timestamp>().map_or_else(|_| harmless(time), |time| format!("{time:.0}"))
}

/// A number of seconds as an age.
pub(crate) fn seconds(number: f64) -> String {
    // Ages are whole and never below zero; whoever waits for more than the time that is known waits for ever.
    span(number.max(0.0).round() as i64)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn masters(masters: &[MasterPart], wide: bool, now: Timestamp) -> Sheet {
    let mut sheet = Sheet::new(&[
        words("NAME"),
        words("ROLE"),
        words("STATE"),
        words("LEADS FOR"),
        numbers("SEEN"),
        words("VERSION"),
        words("ADDRESS"),
        words("IDENTITY"),
    ]);
    for master in masters {
        let state = match (master.alive, &master.identity) {
            (true, _) => coloured("32", "well"),
            (false, Some(_)) => coloured("31", "silent"),
            (false, None) => Cell::from("left"),
        };
        sheet.row([
            master.name.as_str().into(),
            match (master.leads, master.alive) {
                (true, _) => coloured("1", "leader"),
                (false, true) => Cell::from("standby"),
                (false, false) => Cell::default(),
            },
            state,
            master.since.as_ref().filter(|_| master.leads).map(|since| ago(since, now)).unwrap_or_default().into(),
            format!("{} ago", seconds(master.seen_seconds)).into(),
            master.version.as_deref().unwrap_or_default().into(),
            master.address.as_deref().unwrap_or_default().into(),
            master.identity.as_deref().filter(|_| wide).unwrap_or_default().into(),
        ]);
    }
    sheet
}

fn terms(history: &[TermPart], most: usize, now: Timestamp) -> Sheet {
    let mut sheet = Sheet::new(&[
        words("LEADER"),
        numbers("EPOCH"),
        words("BEGAN"),
        numbers("LASTED"),
        numbers("GAP BEFORE"),
        texts("ENDED BECAUSE"),
    ]);
    // One who has always led is told of above.
    if history.len() < 2 && most <= TERMS {
        return sheet;
    }
    for part in history.iter().take(most) {
        let term = &part.term;
        let end: Option<Timestamp> =
            if part.lasts { Some(now) } else { term.ended.as_ref().and_then(|ended| ended.parse().ok()) };
        let lasted = end.and_then(|end| Some(age(term.began.parse().ok()?, end))).unwrap_or_default();
        let why = if part.lasts { "" } else { term.why.as_deref().unwrap_or_default() };
        sheet.row([
            part.replica.as_str().into(),
            term.epoch.to_string().into(),
            moment(&term.began).into(),
            lasted.into(),
            term.gap_seconds.map_or_else(String::new, |gap| format!("{gap:.1}s")).into(),
            why.into(),
        ]);
    }
    sheet
}

/// The colour of a controller's state.
pub(crate) fn state_colour(state: &str) -> &'static str {
    match state {
        "running" => "32",
        "failed" => "31",
        "blocked" | "warming" | "draining" => "33",
        _ => "",
    }
}

fn controllers(controllers: &[ControllerPart], wide: bool) -> Sheet {
    let mut sheet = Sheet::new(&[
        words("NAME"),
        words("STATE"),
        numbers("WAITING"),
        numbers("RETRIES"),
        numbers("DONE/S"),
        words("OLDEST"),
        texts("REASON"),
    ]);
    for part in controllers.iter().filter(|part| wide || part.state != "disabled") {
        let queue = part.queue.clone().unwrap_or_default();
        sheet.row([
            part.name.as_str().into(),
            coloured(state_colour(&part.state), part.state.as_str()),
            some(count(queue.depth)).into(),
            some(count(queue.delayed)).into(),
            if part.state == "running" { rate(queue.done_per_second) } else { String::new() }.into(),
            queue.oldest.map_or_else(String::new, |(key, waited)| format!("{} {key}", seconds(waited))).into(),
            part.reason.as_deref().unwrap_or_default().into(),
        ]);
    }
    sheet
}

fn addons(addons: &[AddonPart]) -> Sheet {
    let mut sheet = Sheet::new(&[
        words("NAME"),
        words("SOURCE"),
        words("VERSION"),
        words("STATE"),
        numbers("OBJECTS"),
        numbers("UNHEALTHY"),
        numbers("DRIFTED"),
        numbers("REPAIRED"),
        numbers("HELD"),
        texts("MESSAGE"),
    ]);
    for part in addons {
        let colour = match part.state.as_str() {
            "ready" => "32",
            "degraded" | "held" | "blocked" => "31",
            "progressing" | "observing" | "paused" | "deleting" => "33",
            _ => "",
        };
        sheet.row([
            part.name.as_str().into(),
            part.source.as_str().into(),
            part.version.as_str().into(),
            coloured(colour, part.state.as_str()),
            part.objects.to_string().into(),
            some(count(part.unhealthy)).into(),
            some(count(part.drifted)).into(),
            some(part.repaired).into(),
            some(count(part.held)).into(),
            part.message.as_deref().unwrap_or_default().into(),
        ]);
    }
    sheet
}

fn clouds(clouds: &[ProviderPart]) -> Sheet {
    let mut sheet = Sheet::new(&[
        words("PROVIDER"),
        words("BREAKER"),
        words("ACCOUNT"),
        numbers("CALLS"),
        numbers("STUCK"),
        texts("TROUBLE"),
        texts("LAST ERROR"),
    ]);
    for part in clouds {
        let breaker = match part.breaker.as_str() {
            "closed" => coloured("32", "closed"),
            "open" => coloured("31", "open"),
            other => coloured("33", other),
        };
        let error = part.last_error.as_deref().map_or_else(String::new, |error| {
            let when =
                part.last_error_seconds_ago.map_or_else(String::new, |ago| format!(" ({} ago)", seconds(ago as f64)));
            format!("{error}{when}")
        });
        sheet.row([
            part.provider.as_str().into(),
            breaker,
            part.account.as_deref().unwrap_or_default().into(),
            part.in_flight.values().sum::<usize>().to_string().into(),
            some(count(part.stuck)).into(),
            part.trouble.as_deref().unwrap_or_default().into(),
            error.into(),
        ]);
    }
    sheet
}

/// The caches, the largest first.
pub(crate) fn caches(status: &Status) -> Sheet {
    let mut sheet = Sheet::new(&[
        words("CACHE"),
        words("FORM"),
        numbers("OBJECTS"),
        numbers("BYTES"),
        numbers("RELISTS"),
        numbers("UNREADABLE"),
        words("SELECTION"),
        texts("STATE"),
    ]);
    let mut all: Vec<_> = status.informers.iter().collect();
    all.sort_by(|a, b| (b.bytes, b.objects, &a.resource).cmp(&(a.bytes, a.objects, &b.resource)));
    for part in all {
        let colour = if part.synced { "" } else { "33" };
        sheet.row([
            part.resource.as_str().into(),
            part.form.as_str().into(),
            part.objects.to_string().into(),
            bytes(part.bytes).into(),
            some(part.relists).into(),
            some(part.decode_errors).into(),
            part.selection.as_deref().unwrap_or_default().into(),
            coloured(colour, part.state.as_str()),
        ]);
    }
    sheet
}

fn refusals(refusals: &[RefusalPart], most: usize, now: Timestamp) -> Sheet {
    let mut sheet = Sheet::new(&[words("AGO"), words("BY"), words("CONTROLLER"), words("WRITE"), texts("WHY")]);
    for part in refusals.iter().take(most) {
        sheet.row([
            ago(&part.at, now).into(),
            part.by.as_str().into(),
            part.controller.as_str().into(),
            part.what.as_str().into(),
            part.why.as_str().into(),
        ]);
    }
    sheet
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2024-01-01T03:02:00Z";

    fn shown(edit: impl FnOnce(&mut serde_json::Value), wide: bool) -> String {
        let mut whole = json!({
            "kind": "Statusz", "binaryVersion": "0.1.0", "uptimeSeconds": 300,
            "status": {
                "election": {
                    "leading": true, "identity": "one_1", "holder": "one_1", "lease": "kube-system/quarterdeck",
                    "transitions": 7, "fence": "verified",
                },
                "masters": [
                    {"name": "one", "identity": "one_1", "alive": true, "leads": true, "since": "2024-01-01T00:00:00Z",
                        "seen_seconds": 1.2, "version": "0.1.0", "address": "10.0.0.1:10267"},
                    {"name": "two", "identity": "two_1", "alive": true, "seen_seconds": 3.0, "version": "0.1.0"},
                ],
                "controllers": [
                    {"name": "namespace-controller", "state": "running",
                        "queue": {"depth": 3, "done_per_second": 1.25, "oldest": ["team", 4.2]}},
                    {"name": "node-route-controller", "state": "disabled"},
                ],
                "informers": [{"resource": "pods", "form": "slim", "objects": 3000, "bytes": 3_000_000, "synced": true,
                    "state": "watching"}],
                "history": [],
            },
        });
        edit(&mut whole["status"]);
        let page = Page::read(whole.to_string().as_bytes(), "replica one at 10.0.0.1:10267").expect("a page");
        render(&page, &Verdict::of(&page), wide, NOW.parse().expect("a time"), Dress::default())
    }

    #[test]
    fn what_is_well_is_told_in_short() {
        let text = shown(|_| {}, false);
        let wanted = "healthy\n\n\
            Leader:  one for 3h2m, since 2024-01-01T00:00:00Z; fence verified; epoch 7 (Lease kube-system/quarterdeck)\n\
            Told by: replica one at 10.0.0.1:10267, version 0.1.0, up for 5m\n\n\
            Masters\n\
            NAME  ROLE     STATE  LEADS FOR    SEEN  VERSION  ADDRESS\n\
            one   leader   well   3h2m       1s ago  0.1.0    10.0.0.1:10267\n\
            two   standby  well              3s ago  0.1.0\n\n\
            Controllers\n\
            NAME                  STATE    WAITING  DONE/S  OLDEST\n\
            namespace-controller  running        3     1.2  4s team\n";
        assert_eq!(text, wanted);
    }

    #[test]
    fn more_is_shown_to_who_wants_it() {
        let text = shown(|_| {}, true);
        assert!(text.contains("node-route-controller  disabled") && text.contains("IDENTITY"), "{text}");
        assert!(text.contains("pods   slim     3000  2.9Mi  watching"), "{text}");
    }

    #[test]
    fn what_is_wrong_comes_first_and_is_harmless() {
        let text = shown(
            |status| {
                status["addons"] = json!([{"name": "dns\u{1b}[2J", "source": "directory", "state": "degraded",
                    "message": "no\nsecond line", "objects": 4, "unhealthy": 1}]);
                status["masters"][1]["alive"] = json!(false);
                status["history"] = json!([
                    {"replica": "one", "epoch": 7, "began": "2024-01-01T00:00:00Z", "lasts": true, "gap_seconds": 0.31},
                    {"replica": "two", "epoch": 6, "began": "2023-12-31T00:00:00Z", "ended": "2024-01-01T00:00:00Z",
                        "why": "it was told to stop"},
                ]);
            },
            false,
        );
        assert!(text.starts_with("unhealthy: "), "{text}");
        assert!(
            text.contains("\n  warning: two: not heard of for 3 s (docs/runbooks/QuarterdeckReplicaDown.md)\n"),
            "{text}"
        );
        assert!(text.contains("warning: addon dns [2J (directory): degraded: no ("), "{text}");
        assert!(text.contains("\ntwo           silent"), "{text}");
        assert!(text.contains("one         7  2024-01-01T00:00:00Z    3h2m        0.3s\n"), "{text}");
        assert!(
            text.contains("two         6  2023-12-31T00:00:00Z     24h              it was told to stop"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn without_a_leader_that_is_said() {
        let text = shown(|status| status["election"]["holder"] = json!(null), false);
        assert!(text.starts_with("unhealthy: 1 critical problem"), "{text}");
        assert!(text.contains("Leader:  nobody (Lease kube-system/quarterdeck)"), "{text}");
    }
}
