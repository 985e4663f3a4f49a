//! Addons and clouds.

use std::collections::BTreeMap;
use std::fmt::Display;

use quarterdeck_api::status::{AddonPart, ProviderPart};

use super::html::Html;
use super::summary::open;
use super::table::{Column, Table, number, words};

/// Addons that are named; beyond it only those that are not well, up to the same number.
const MOST: usize = 100;

const ADDONS: &[Column] = &[
    words("Addon"),
    words("Source"),
    words("State"),
    number("Objects"),
    number("Unhealthy"),
    number("Left changed"),
    number("Put back"),
    number("Held"),
    words("What is wrong"),
];
const CLOUDS: &[Column] = &[
    words("Provider"),
    words("Breaker"),
    words("Calls that run"),
    words("Most a second"),
    number("Abandoned"),
    number("Stuck"),
    words("Nodes read"),
    words("Last error"),
];

pub(super) fn addons(html: &mut Html, addons: Option<&[AddonPart]>) {
    open(html, "addons", "");
    let Some(addons) = addons else {
        html.raw("<p>The addon controller does not run here.</p></section>");
        return;
    };
    if addons.is_empty() {
        html.raw("<p>There are none.</p></section>");
        return;
    }
    // Those that are not well come first; within that, the order is by source and name.
    let mut shown: Vec<&AddonPart> = addons.iter().collect();
    shown.sort_by_key(|part| class(&part.state));
    let left = shown.len().saturating_sub(MOST);
    shown.truncate(MOST);
    let mut table = Table::begin(html, "Addons, those that are not well first", ADDONS);
    for part in shown {
        table.row(&format!("{} {}", part.source, part.name), |row| {
            row.head(|html| html.code(&part.name));
            row.text(&part.source);
            row.cell(|html| {
                let class = [" bad", " poor", "", " good"][usize::from(class(&part.state))];
                html.raw("<span").attr("class", &format!("state{class}")).raw(">").text(&part.state).raw("</span>")
            });
            for number in [part.objects, part.unhealthy, part.drifted] {
                row.text(&number.to_string());
            }
            row.text(&part.repaired.to_string());
            row.text(&part.held.to_string());
            row.or_none(part.message.as_deref());
        });
    }
    table.end();
    if left > 0 {
        html.raw("<p class=\"note\">").text(&left.to_string()).raw(" more are not shown.</p>");
    }
    html.raw("</section>");
}

/// How much a state wants to be looked at: 0 first.
fn class(state: &str) -> u8 {
    match state {
        "degraded" | "blocked" => 0,
        "held" => 1,
        "ready" => 3,
        _ => 2,
    }
}

pub(super) fn clouds(html: &mut Html, clouds: Option<&[ProviderPart]>) {
    open(html, "clouds", "");
    let clouds = clouds.unwrap_or_default();
    if clouds.is_empty() {
        html.raw("<p>No cloud provider is configured.</p></section>");
        return;
    }
    let mut table = Table::begin(html, "Cloud providers, their calls and breakers", CLOUDS);
    for part in clouds {
        table.row(&part.provider, |row| {
            row.head(|html| {
                html.code(&part.provider);
                match &part.account {
                    Some(account) => html.raw(" <span class=\"form\">account ").text(account).raw("</span>"),
                    None => html,
                }
            });
            row.cell(|html| {
                let class = if part.breaker == "closed" { "state good" } else { "state bad" };
                html.raw("<span").attr("class", class).raw(">").text(&part.breaker.replace('_', " ")).raw("</span>");
                match part.left_alone_for_seconds {
                    Some(seconds) => html.raw(", left alone for ").text(&seconds.to_string()).raw(" s"),
                    None => html,
                }
            });
            row.or_none(Some(&listed(&part.in_flight, |running| *running > 0)));
            row.or_none(Some(&listed(&part.calls_per_second, |_| true)));
            row.text(&part.abandoned.to_string());
            row.text(&part.stuck.to_string());
            row.or_none(part.nodes_read_seconds_ago.map(|seconds| format!("{seconds} s ago")).as_deref());
            row.or_none(error(part).as_deref());
        });
    }
    table.end();
    html.raw("</section>");
}

fn listed<N: Display>(numbers: &BTreeMap<String, N>, worth: impl Fn(&N) -> bool) -> String {
    let worth: Vec<String> =
        numbers.iter().filter(|(_, number)| worth(number)).map(|(name, number)| format!("{name} {number}")).collect();
    worth.join(", ")
}

fn error(part: &ProviderPart) -> Option<String> {
    let message = part.trouble.as_ref().or(part.last_error.as_ref())?;
    let method = part.last_error_of.as_deref().map(|method| format!("{method}: ")).unwrap_or_default();
    let when = part.last_error_seconds_ago.map(|seconds| format!(", {seconds} s ago")).unwrap_or_default();
    Some(format!("{method}{message}{when}"))
}
