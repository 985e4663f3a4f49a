//! Controllers, their queues, and the caches.

use quarterdeck_api::status::{ControllerPart, InformerPart, QueuePart};

use super::html::Html;
use super::summary::open;
use super::table::{Column, Table, number, words};
use super::words::{bytes, rate, span};

const CONTROLLERS: &[Column] = &[words("Controller"), words("State"), words("Why"), words("Slowest reconciles")];
const QUEUES: &[Column] = &[
    words("Controller"),
    number("Waiting"),
    words("Oldest key"),
    number("Waits for"),
    number("In hand"),
    number("Later"),
    number("Added a second"),
    number("Done a second"),
    number("Last done"),
];
const CACHES: &[Column] = &[
    words("Resource"),
    words("State"),
    number("Objects"),
    number("Bytes"),
    number("Lists after the first"),
    number("Unreadable"),
];

pub(super) fn controllers(html: &mut Html, controllers: &[ControllerPart]) {
    open(html, "controllers", "");
    let (off, on): (Vec<_>, Vec<_>) = controllers.iter().partition(|part| part.state == "disabled");
    if on.is_empty() {
        html.raw("<p>No controller is enabled.</p>");
    } else {
        let mut table = Table::begin(html, "Controllers on this replica", CONTROLLERS);
        for part in on {
            table.row(&part.name, |row| {
                row.head(|html| html.code(&part.name));
                row.cell(|html| {
                    let class = match part.state.as_str() {
                        "running" => "state good",
                        "failed" => "state bad",
                        "blocked" => "state poor",
                        _ => "state",
                    };
                    html.raw("<span").attr("class", class).raw(">").text(&part.state).raw("</span>")
                });
                row.or_none(part.reason.as_deref());
                row.cell(|html| slowest(html, part));
            });
        }
        table.end();
    }
    if !off.is_empty() {
        html.raw("<p class=\"note\">Left out by <code>--controllers</code>, or for lack of what they need: ");
        for (index, part) in off.iter().enumerate() {
            html.raw(if index == 0 { "" } else { ", " }).code(&part.name);
        }
        html.raw(".</p>");
    }
    html.raw("</section>");
}

/// The slowest reconciles that are worth a look.
fn slowest<'h>(html: &'h mut Html, part: &ControllerPart) -> &'h mut Html {
    let mut first = true;
    for slow in part.slowest.iter().filter(|slow| slow.seconds >= 0.001).take(2) {
        html.raw(if first { "" } else { ", " }).code(&slow.key).raw(" ").text(&span(slow.seconds));
        first = false;
    }
    html.raw(if first { "<span class=\"none\">–</span>" } else { "" })
}

pub(super) fn queues(html: &mut Html, controllers: &[ControllerPart]) {
    open(
        html,
        "queues",
        "Rates are over about the last minute. A replica that stands by lets its queues fill: what it takes over is there already.",
    );
    let with_queue: Vec<(&ControllerPart, &QueuePart)> =
        controllers.iter().filter_map(|part| Some((part, part.queue.as_ref()?))).collect();
    if with_queue.is_empty() {
        html.raw("<p>There are none.</p></section>");
        return;
    }
    let mut table = Table::begin(html, "Work queues of the controllers", QUEUES);
    for (part, queue) in with_queue {
        table.row(&part.name, |row| {
            row.head(|html| html.code(&part.name));
            row.text(&(queue.depth + queue.parked).to_string());
            row.cell(|html| match &queue.oldest {
                Some((key, _)) => html.code(key),
                None => html.raw("<span class=\"none\">–</span>"),
            });
            row.or_none(queue.oldest.as_ref().map(|(_, seconds)| span(*seconds)).as_deref());
            row.text(&queue.in_flight.to_string());
            row.text(&queue.delayed.to_string());
            row.text(&rate(queue.added_per_second));
            row.text(&rate(queue.done_per_second));
            row.or_none(queue.idle_seconds.map(|seconds| format!("{} ago", span(seconds))).as_deref());
        });
    }
    table.end();
    html.raw("</section>");
}

pub(super) fn caches(html: &mut Html, informers: &[InformerPart]) {
    let (objects, size) =
        informers.iter().fold((0, 0), |(objects, size), part| (objects + part.objects, size + part.bytes));
    open(html, "caches", "");
    if informers.is_empty() {
        html.raw("<p>There are none.</p></section>");
        return;
    }
    html.raw("<p class=\"note\">").text(&objects.to_string()).raw(" objects, about ").text(&bytes(size)).raw(".</p>");
    let mut table = Table::begin(html, "Caches of what controllers read", CACHES);
    for part in informers {
        let selection = part.selection.as_deref().unwrap_or_default();
        table.row(&format!("{} {} {selection}", part.resource, part.form), |row| {
            row.head(|html| {
                html.code(&part.resource).raw(" <span class=\"form\">").text(&part.form);
                html.raw(if selection.is_empty() { "" } else { ", " }).text(selection).raw("</span>")
            });
            row.cell(|html| {
                let class = if part.state == "watching" { "state good" } else { "state poor" };
                html.raw("<span").attr("class", class).raw(">").text(&part.state).raw("</span>");
                html.raw(if part.synced { "" } else { ", no complete list yet" })
            });
            row.text(&part.objects.to_string());
            row.text(&bytes(part.bytes));
            row.text(&part.relists.to_string());
            row.text(&part.decode_errors.to_string());
        });
    }
    table.end();
    html.raw("</section>");
}
