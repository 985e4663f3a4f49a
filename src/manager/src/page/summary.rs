//! The top of the page: who tells, what is wrong, who has the deck.

use quarterdeck_api::status::{MasterPart, Problem, Severity, Status, Statusz, problems};

use super::html::Html;
use super::words::{count, moment, span};

/// Where the runbooks are.
const RUNBOOKS: &str = "https://quarterdeck.dev/runbooks/";

/// Sections that can be jumped to: id and name.
pub(super) const SECTIONS: [(&str, &str); 9] = [
    ("wrong", "What is wrong"),
    ("masters", "Masters"),
    ("history", "History"),
    ("controllers", "Controllers"),
    ("queues", "Queues"),
    ("addons", "Addons"),
    ("clouds", "Clouds"),
    ("refusals", "Refusals"),
    ("caches", "Caches"),
];

/// The verdict in one sentence.
pub(super) fn verdict(problems: &[Problem]) -> String {
    let wrong = problems.iter().filter(|problem| problem.severity != Severity::Notice).count();
    match wrong {
        0 => "Nothing is wrong".to_owned(),
        _ => format!("{} wrong", count(wrong, "thing is", "things are")),
    }
}

/// The replica that leads.
pub(super) fn leader(status: &Status) -> Option<&MasterPart> {
    status.masters.iter().find(|master| master.leads)
}

/// Who has the deck, by the name of the replica where it is known.
pub(super) fn leader_name(status: &Status) -> Option<String> {
    let holder = || status.election.as_ref().and_then(|election| election.holder.clone());
    leader(status).map(|master| master.name.clone()).or_else(holder)
}

pub(super) fn header(html: &mut Html, statusz: &Statusz, problems: &[Problem]) {
    let (status, name) = (&statusz.status, statusz.metadata.get("name").map_or("manager", String::as_str));
    html.raw("<header><div class=\"who\"><h1>").text(name).raw("</h1><p>");
    if let Some(me) = status.masters.iter().find(|master| master.me) {
        html.raw("told by ").code(&me.name).raw(" · ");
    }
    #[expect(clippy::cast_precision_loss, reason = "seconds of uptime")]
    let up = span(statusz.uptime_seconds as f64);
    html.raw("version ").text(&statusz.binary_version).raw(" · up ").text(&up);
    html.raw(" · server ").code(&status.server).raw("</p></div>");
    let tone = match problems.first().map(|problem| problem.severity) {
        Some(Severity::Critical) => "critical",
        Some(Severity::Warning) => "warning",
        Some(Severity::Notice) | None => "well",
    };
    html.raw("<p").attr("class", &format!("verdict {tone}")).raw(">").text(&verdict(problems)).raw("</p>");
    deck(html, status);
    html.raw("</header>");
}

/// Who has the deck, in a sentence.
fn deck(html: &mut Html, status: &Status) {
    html.raw("<p class=\"deck\">");
    let Some(election) = &status.election else {
        html.raw("This replica stands alone: it takes part in no election.</p>");
        return;
    };
    match leader_name(status) {
        Some(name) => {
            html.raw("<strong>").text(&name).raw("</strong> has the deck");
            if let Some(since) = leader(status).and_then(|master| master.since.as_deref()) {
                html.raw(" since ");
                moment(html, since);
            }
        }
        None => {
            html.raw("<strong>Nobody</strong> has the deck");
        }
    }
    if let Some(epoch) = election.transitions {
        html.raw(" · epoch ").text(&epoch.to_string());
    }
    html.raw(" · lease ").code(&election.lease);
    if let Some(fence) = &election.fence {
        html.raw(" · fence ").text(fence);
    }
    html.raw("</p>");
}

pub(super) fn sections(html: &mut Html) {
    html.raw("<nav aria-label=\"Sections\"><ul>");
    for (id, name) in SECTIONS {
        html.raw("<li><a").attr("href", &format!("#{id}")).raw(">").text(name).raw("</a></li>");
    }
    html.raw("</ul></nav>");
}

/// Opens a section under its heading.
pub(super) fn open(html: &mut Html, id: &'static str, note: &'static str) {
    let name = SECTIONS.iter().find(|(section, _)| *section == id).map_or("", |(_, name)| name);
    let heading = format!("{id}-heading");
    html.raw("<section").attr("id", id).attr("aria-labelledby", &heading).raw("><h2").attr("id", &heading);
    html.raw(" tabindex=\"-1\">").text(name).raw("</h2>");
    if !note.is_empty() {
        html.raw("<p class=\"note\">").text(note).raw("</p>");
    }
}

pub(super) fn wrong(html: &mut Html, problems: &[Problem]) {
    open(html, "wrong", "");
    if problems.is_empty() {
        html.raw("<p>Nothing that this replica knows of.</p></section>");
        return;
    }
    html.raw("<ul class=\"problems\">");
    for problem in problems {
        let key = format!("{} {}", problem.subject, problem.runbook.as_deref().unwrap_or_default());
        html.raw("<li").attr("data-key", &key).attr("class", &problem.severity.to_string()).raw(">");
        html.raw("<span class=\"severity\">").text(&problem.severity.to_string()).raw("</span> <strong>");
        html.text(&problem.subject).raw("</strong> <span class=\"what\">").text(&problem.text).raw("</span>");
        if let Some(runbook) = &problem.runbook {
            html.raw(" <a rel=\"noreferrer\"").attr("href", &format!("{RUNBOOKS}{runbook}"));
            html.raw(">").text(runbook).raw("</a>");
        }
        html.raw("</li>");
    }
    html.raw("</ul></section>");
}

/// What is wrong with a status.
pub(super) fn judged(statusz: &Statusz) -> Vec<Problem> {
    problems(&statusz.status)
}
