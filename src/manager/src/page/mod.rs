//! The status page, `/status`: what `/statusz` says, for people. Written whole on the server, so that it reads without
//! JavaScript; with it, the script of the page asks for the part between header and footer again and again, and takes
//! over what changed.
//!
//! Nothing but the page's own style and script is let in by its Content-Security-Policy, by their hashes; everything
//! that is shown is escaped ([`html`]). The page is one answer: no other file is asked for.

mod election;
mod html;
mod shared;
mod summary;
mod table;
mod words;
mod work;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY};
use quarterdeck_api::status::Statusz;
use sha2::{Digest as _, Sha256};

use crate::serving::respond::{Answer, answer};
use html::Html;

/// Where it is served.
pub(crate) const PATH: &str = "/status";
/// The query of the part that the script asks for.
const PART: &str = "part=live";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");
/// A deck seen from above, as the tab's icon; no request is made for it.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath \
                    d='M2 3h12v2H2zm0 4h12v2H2zm4 4h8v2H6z' fill='%232b6cb0'/%3E%3C/svg%3E";

/// Answers a request for the page, or for the part of it that changes.
pub(crate) fn page(statusz: &Statusz, query: &str) -> Answer {
    let live = live(statusz);
    if query.split('&').any(|pair| pair == PART) {
        return guarded(live.into_text(), "default-src 'none'; frame-ancestors 'none'");
    }
    let mut html = Html::default();
    html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    html.raw("<meta name=\"color-scheme\" content=\"light dark\"><title>").text(&title(statusz)).raw("</title>");
    html.raw("<link rel=\"icon\"").attr("href", ICON).raw("><style>").raw(STYLE).raw("</style>");
    html.raw("<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript></head><body>");
    html.raw("<a class=\"skip\" href=\"#wrong\">Skip to what is wrong</a>").append(&live);
    html.raw(
        "<footer><p id=\"pulse\">As of when it was loaded.</p><noscript><p>Loaded anew every 5 seconds.</p></noscript>",
    );
    html.raw("<p id=\"announce\" class=\"heard\" role=\"status\" aria-live=\"polite\"></p></footer><script>");
    html.raw(SCRIPT).raw("</script></body></html>\n");
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    guarded(html.into_text(), &policy)
}

/// What the script takes over: everything but style, script and footer.
fn live(statusz: &Statusz) -> Html {
    let (status, problems) = (&statusz.status, summary::judged(statusz));
    let mut html = Html::default();
    html.raw("<div id=\"live\"").attr("data-title", &title(statusz));
    html.attr("data-leader", &summary::leader_name(status).unwrap_or_default()).raw(">");
    summary::header(&mut html, statusz, &problems);
    summary::sections(&mut html);
    html.raw("<main>");
    summary::wrong(&mut html, &problems);
    election::masters(&mut html, &status.masters);
    election::history(&mut html, &status.history);
    work::controllers(&mut html, &status.controllers);
    work::queues(&mut html, &status.controllers);
    shared::addons(&mut html, status.addons.as_deref());
    shared::clouds(&mut html, status.cloud.as_deref());
    election::refusals(&mut html, status);
    work::caches(&mut html, &status.informers);
    html.raw("</main></div>");
    html
}

/// What the tab says: whether to look, and at whom.
fn title(statusz: &Statusz) -> String {
    let name = statusz.metadata.get("name").map_or("manager", String::as_str);
    let verdict = summary::verdict(&summary::judged(statusz));
    match statusz.status.masters.iter().find(|master| master.me) {
        Some(me) => format!("{verdict} – {name} on {}", me.name),
        None => format!("{verdict} – {name}"),
    }
}

/// An answer that nothing may frame, keep, guess at or add to.
fn guarded(body: String, policy: &str) -> Answer {
    let mut answer = answer(StatusCode::OK, HTML, body);
    let headers = answer.headers_mut();
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    answer
}

/// The hash by which a policy lets a style or script in.
fn hash(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests;
