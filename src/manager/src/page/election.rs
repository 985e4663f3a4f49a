//! Masters, who led when, and what gate and fence refused.

use quarterdeck_api::status::{MasterPart, RefusalPart, Status, TermPart};

use super::html::Html;
use super::summary::open;
use super::table::{Column, Table, number, words};
use super::words::{moment, span};

const MASTERS: &[Column] = &[
    words("Replica"),
    words("State"),
    words("Leads since"),
    words("Version"),
    words("Serves at"),
    words("Last heard of"),
];
const HISTORY: &[Column] = &[
    number("Epoch"),
    words("Replica"),
    words("Began"),
    words("Ended"),
    words("Why it ended"),
    number("Nobody led before for"),
];
const REFUSALS: &[Column] = &[words("When"), words("Refused by"), words("Controller"), words("What"), words("Why")];

pub(super) fn masters(html: &mut Html, masters: &[MasterPart]) {
    open(html, "masters", "");
    if masters.is_empty() {
        html.raw("<p>No replica has said yet that it is there.</p></section>");
        return;
    }
    let mut table = Table::begin(html, "Replicas that stand for this election", MASTERS);
    for master in masters {
        table.row(&master.name, |row| {
            row.head(|html| {
                html.raw("<span").attr("title", master.identity.as_deref().unwrap_or_default()).raw(">");
                html.code(&master.name).raw("</span>");
                html.raw(if master.me { " <span class=\"tag\">tells this</span>" } else { "" })
            });
            row.cell(|html| {
                let (class, text) = state(master);
                html.raw("<span").attr("class", class).raw(">").text(text).raw("</span>")
            });
            row.cell(|html| match &master.since {
                Some(since) => moment(html, since),
                None => html.raw("<span class=\"none\">–</span>"),
            });
            row.or_none(master.version.as_deref());
            row.cell(|html| match &master.address {
                Some(address) => html.code(address),
                None => html.raw("<span class=\"none\">–</span>"),
            });
            row.text(&format!("{} ago", span(master.seen_seconds)));
        });
    }
    table.end();
    html.raw("</section>");
}

/// How a replica is: the class of its word, and the word.
fn state(master: &MasterPart) -> (&'static str, &'static str) {
    match (master.leads, master.alive, master.identity.is_some()) {
        (true, true, _) => ("state good", "leads"),
        (true, false, _) => ("state bad", "holds the lease, not heard of"),
        (false, true, _) => ("state", "stands by"),
        (false, false, true) => ("state bad", "gone"),
        (false, false, false) => ("state", "left"),
    }
}

pub(super) fn history(html: &mut Html, history: &[TermPart]) {
    open(
        html,
        "history",
        "Times are by the clock of the replica that led; the last ten terms of each replica are kept.",
    );
    if history.is_empty() {
        html.raw("<p>Nobody has led yet.</p></section>");
        return;
    }
    let mut table = Table::begin(html, "Who led when, newest first", HISTORY);
    for part in history {
        let term = &part.term;
        table.row(&format!("{}-{}", term.version, term.holder), |row| {
            row.text(&term.epoch.to_string());
            row.head(|html| html.raw("<span").attr("title", &term.holder).raw(">").code(&part.replica).raw("</span>"));
            row.cell(|html| moment(html, &term.began));
            row.cell(|html| match (&term.ended, part.lasts) {
                (Some(ended), _) => moment(html, ended),
                (None, true) => html.raw("<span class=\"state good\">leads now</span>"),
                (None, false) => html.raw("not known"),
            });
            row.or_none(term.why.as_deref());
            row.or_none(term.gap_seconds.map(span).as_deref());
        });
    }
    table.end();
    html.raw("</section>");
}

pub(super) fn refusals(html: &mut Html, status: &Status) {
    open(html, "refusals", "");
    let gate = &status.gate;
    let counts = [
        (gate.admitted, " writes were let out since the start; "),
        (gate.not_leading, " were refused because this replica did not lead, "),
        (gate.too_late, " because they could not have ended in time."),
    ];
    html.raw("<p class=\"note\">");
    for (count, what) in counts {
        html.text(&count.to_string()).raw(what);
    }
    html.raw("</p>");
    if status.refusals.is_empty() {
        html.raw("<p>Neither gate nor fence has refused a write of this replica.</p></section>");
        return;
    }
    let mut table = Table::begin(html, "The last writes that gate or fence refused, newest first", REFUSALS);
    for refusal in &status.refusals {
        row(&mut table, refusal);
    }
    table.end();
    html.raw("</section>");
}

fn row(table: &mut Table<'_>, refusal: &RefusalPart) {
    table.row(&format!("{} {}", refusal.at, refusal.what), |row| {
        row.cell(|html| moment(html, &refusal.at));
        row.text(&refusal.by);
        row.or_none(Some(&refusal.controller));
        row.cell(|html| html.code(&refusal.what));
        row.text(&refusal.why);
    });
}
