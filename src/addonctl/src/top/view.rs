//! What `top` shows.

use std::cmp::Ordering;

use jiff::Timestamp;
use quarterdeck_api::status::{ControllerPart, QueuePart};

use crate::cli::Order;
use crate::columns::{Dress, Sheet, coloured, cut, harmless, numbers, rate, texts, words};
use crate::status::{Page, Verdict, caches, colour, leader, seconds, state_colour};

/// Problems that are shown.
const PROBLEMS: usize = 3;
/// Lines that the caches get at least, headings and the line before among them.
const CACHES: usize = 6;

/// What is to be shown.
pub(super) struct Shown<'p> {
    /// What a manager told.
    pub(super) page: &'p Page,
    /// What is wrong.
    pub(super) verdict: &'p Verdict,
    /// By what controllers are sorted.
    pub(super) order: Order,
    /// What time it is.
    pub(super) now: Timestamp,
}

/// The next order.
pub(super) fn after(order: Order) -> Order {
    match order {
        Order::Queue => Order::Rate,
        Order::Rate => Order::Oldest,
        Order::Oldest => Order::Name,
        Order::Name => Order::Queue,
    }
}

/// The text, of at most so many lines. `trouble` is why what is shown is not from now.
pub(super) fn render(shown: &Shown<'_>, trouble: Option<&str>, height: usize, dress: Dress) -> String {
    let mut lines = head(shown, trouble, dress);
    let controllers = controllers(shown).render(dress);
    let caches = caches(shown.page.status()).render(dress);
    let rest = height.saturating_sub(lines.len() + 1);
    let kept = caches.lines().count() + 1;
    let (first, second) = if controllers.lines().count() + kept <= rest {
        (rest, kept)
    } else {
        // Neither pushes the other off the screen.
        (rest.saturating_sub(CACHES.min(kept)), CACHES.min(kept))
    };
    lines.push(String::new());
    let before = lines.len();
    lines.extend(clipped(&controllers, first));
    let second = second.max(rest.saturating_sub(lines.len() - before));
    if !caches.is_empty() && second > 2 {
        lines.push(String::new());
        lines.extend(clipped(&caches, second - 1));
    }
    lines.truncate(height);
    lines.join("\n") + "\n"
}

/// Who leads, and what is wrong.
fn head(shown: &Shown<'_>, trouble: Option<&str>, dress: Dress) -> Vec<String> {
    let status = shown.page.status();
    let within = |text: &str| dress.width.map_or_else(|| text.to_owned(), |width| cut(text, width));
    let alive = status.masters.iter().filter(|master| master.alive).count();
    let masters = match status.masters.len() {
        0 => String::new(),
        all => format!("{alive} of {all} masters; "),
    };
    let told = shown.page.told_by.as_deref().unwrap_or("the Leases");
    let mut lines = vec![
        dress.paint(shown.verdict.colour(), &within(&shown.verdict.headline())),
        within(&format!("leader: {}", leader(status, shown.now))),
        within(&format!("{masters}told by {}, by {}", harmless(told), by(shown.order))),
    ];
    if let Some(trouble) = trouble {
        lines.push(dress.paint("31", &within(&format!("this is not from now: {}", harmless(trouble)))));
    }
    for problem in shown.verdict.problems.iter().take(PROBLEMS) {
        let said = format!("  {}: {}: {}", problem.severity, harmless(&problem.subject), harmless(&problem.text));
        lines.push(dress.paint(colour(problem.severity), &within(&said)));
    }
    let more = shown.verdict.problems.len().saturating_sub(PROBLEMS);
    if more > 0 {
        lines.push(within(&format!("  and {more} more: addonctl status")));
    }
    lines
}

/// An order in words.
fn by(order: Order) -> &'static str {
    match order {
        Order::Queue => "keys that wait",
        Order::Rate => "rate",
        Order::Oldest => "oldest key",
        Order::Name => "name",
    }
}

/// At most so many lines of a text; the last one says how many more there are.
fn clipped(text: &str, most: usize) -> Vec<String> {
    let all: Vec<&str> = text.lines().collect();
    if all.len() <= most || most == 0 {
        return all.into_iter().take(most).map(str::to_owned).collect();
    }
    let mut kept: Vec<String> = all[..most - 1].iter().map(|&line| line.to_owned()).collect();
    kept.push(format!("… {} more", all.len() - (most - 1)));
    kept
}

/// The controllers that are not disabled, with their queues.
fn controllers(shown: &Shown<'_>) -> Sheet {
    let mut sheet = Sheet::new(&[
        words("CONTROLLER"),
        words("STATE"),
        numbers("WAITING"),
        numbers("WORKING"),
        numbers("RETRIES"),
        numbers("PARKED"),
        numbers("ADDED/S"),
        numbers("DONE/S"),
        numbers("IDLE"),
        numbers("STUCK"),
        numbers("OLDEST"),
        texts("KEY"),
    ]);
    let mut all: Vec<&ControllerPart> =
        shown.page.status().controllers.iter().filter(|part| part.state != "disabled").collect();
    all.sort_by(|a, b| compare(shown.order, a, b).then_with(|| a.name.cmp(&b.name)));
    for part in all {
        let queue = part.queue.clone().unwrap_or_default();
        let (oldest, key) = match queue.oldest {
            Some((key, waited)) => (seconds(waited), key),
            None => (String::new(), String::new()),
        };
        sheet.row([
            part.name.as_str().into(),
            coloured(state_colour(&part.state), part.state.as_str()),
            queue.depth.to_string().into(),
            queue.in_flight.to_string().into(),
            queue.delayed.to_string().into(),
            queue.parked.to_string().into(),
            rate(queue.added_per_second).into(),
            rate(queue.done_per_second).into(),
            queue.idle_seconds.map(seconds).unwrap_or_default().into(),
            coloured("31", part.stuck_seconds.map(seconds).unwrap_or_default()),
            oldest.into(),
            key.into(),
        ]);
    }
    sheet
}

/// The larger first.
fn compare(order: Order, a: &ControllerPart, b: &ControllerPart) -> Ordering {
    let queue = |part: &ControllerPart| part.queue.clone().unwrap_or_default();
    let (a, b) = (queue(a), queue(b));
    let oldest = |queue: &QueuePart| queue.oldest.as_ref().map_or(-1.0, |(_, waited)| *waited);
    match order {
        Order::Queue => (b.depth, b.delayed, b.in_flight).cmp(&(a.depth, a.delayed, a.in_flight)),
        Order::Rate => b.done_per_second.total_cmp(&a.done_per_second),
        Order::Oldest => oldest(&b).total_cmp(&oldest(&a)),
        Order::Name => Ordering::Equal,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn page() -> Page {
        let queue =
            |depth: u32, rate: f64, oldest: Value| json!({"depth": depth, "done_per_second": rate, "oldest": oldest});
        let controller = |name: &str, queue: Value| json!({"name": name, "state": "running", "queue": queue});
        let caches: Vec<Value> = (0..20)
            .map(|number| {
                json!({"resource": format!("kind{number:02}"), "objects": number, "bytes": number * 1000, "synced": true,
                    "state": "watching"})
            })
            .collect();
        let whole = json!({"status": {
            "election": {"leading": true, "identity": "a_1", "holder": "a_1", "lease": "ns/name", "fence": "absent"},
            "masters": [{"name": "a", "identity": "a_1", "alive": true, "leads": true}],
            "controllers": [
                controller("calm", queue(0, 9.0, Value::Null)), controller("busy", queue(12, 0.0, json!(["ns/x", 1.0]))),
                controller("late", queue(3, 1.0, json!(["ns/y", 90.0]))), {"name": "off", "state": "disabled"},
            ],
            "informers": caches,
        }});
        Page::read(whole.to_string().as_bytes(), "replica a").expect("a page")
    }

    fn shown(order: Order, trouble: Option<&str>, height: usize, width: Option<usize>) -> Vec<String> {
        let page = page();
        let verdict = Verdict::of(&page);
        let shown = Shown { page: &page, verdict: &verdict, order, now: Timestamp::UNIX_EPOCH };
        let text = render(&shown, trouble, height, Dress { colours: false, width });
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn controllers_are_sorted_as_asked() {
        let names = |order| {
            let lines = shown(order, None, usize::MAX, None);
            let at = lines.iter().position(|line| line.starts_with("CONTROLLER")).expect("headings");
            lines[at + 1..at + 4]
                .iter()
                .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(Order::Queue), ["busy", "late", "calm"]);
        assert_eq!(names(Order::Rate), ["calm", "late", "busy"]);
        assert_eq!(names(Order::Oldest), ["late", "busy", "calm"]);
        assert_eq!(names(Order::Name), ["busy", "calm", "late"]);
        let all = shown(Order::Name, None, usize::MAX, None);
        assert!(!all.iter().any(|line| line.starts_with("off")) && all.last().expect("a line").starts_with("kind00"));
        assert!(all[0].starts_with("unhealthy: 1 warning") && all[3].contains("warning: fence:"), "{all:?}");
    }

    #[test]
    fn the_screen_is_not_overrun() {
        for height in 1..40 {
            let lines = shown(Order::Queue, Some("gone"), height, Some(40));
            assert!(lines.len() <= height, "{height}: {lines:#?}");
            assert!(lines.iter().take(6).all(|line| line.chars().count() <= 40), "{lines:#?}");
        }
        let lines = shown(Order::Queue, None, 16, Some(200));
        assert_eq!(lines.len(), 16);
        assert_eq!(lines.iter().filter(|line| line.starts_with('…')).count(), 1, "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("calm")), "{lines:#?}");
    }

    #[test]
    fn what_is_not_from_now_says_so() {
        let lines = shown(Order::Queue, Some("it is\u{1b}[2J gone"), 99, None);
        assert_eq!(lines[3], "this is not from now: it is [2J gone");
    }

    #[test]
    fn orders_come_round() {
        let mut order = Order::Queue;
        for _ in 0..4 {
            order = after(order);
        }
        assert_eq!(order, Order::Queue);
    }
}
