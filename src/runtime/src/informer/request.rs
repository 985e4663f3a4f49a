//! The requests of an informer.

use std::fmt::Write;
use std::time::Duration;

use http::Request;
use http::header::{ACCEPT, RETRY_AFTER};
use http::response::Parts;

use super::shared::Core;

/// Objects on one page of a list.
pub(super) const PAGE: u32 = 500;
/// A name that no object has.
const NOBODY: &str = "QUARTERDECK-matches-nothing";

/// What is asked of the server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask<'a> {
    /// A complete list as a stream of events, and changes after it.
    ListStream,
    /// One page of a complete list; without a limit, all of it.
    Page {
        /// Most objects on the page.
        limit: Option<u32>,
        /// Where the last page ended.
        from: Option<&'a str>,
    },
    /// Changes after a version.
    Watch {
        /// That version.
        after: &'a str,
    },
    /// The complete list of nothing as a stream: how far the server is.
    ProbeStream,
    /// The same as a page, for servers that list in pages only.
    ProbePage,
}

/// The request for `ask`; the server ends a watch after `limit`.
pub(super) fn request(core: &Core, ask: Ask<'_>, limit: Duration) -> Request<()> {
    let mut query = Query::default();
    let watches = !matches!(ask, Ask::Page { .. } | Ask::ProbePage);
    if watches {
        query.add("watch", "1");
        query.add("allowWatchBookmarks", "true");
        query.add("timeoutSeconds", &limit.as_secs().max(1).to_string());
    }
    match ask {
        Ask::ListStream | Ask::ProbeStream => {
            query.add("sendInitialEvents", "true");
            query.add("resourceVersionMatch", "NotOlderThan");
        }
        Ask::Page { limit, from } => {
            if let Some(limit) = limit {
                query.add("limit", &limit.to_string());
            }
            if let Some(from) = from {
                query.add("continue", from);
            }
        }
        Ask::Watch { after } => query.add("resourceVersion", after),
        Ask::ProbePage => query.add("limit", "1"),
    }
    if let Some(labels) = &core.selection.labels {
        query.add("labelSelector", labels);
    }
    if matches!(ask, Ask::ProbeStream | Ask::ProbePage) {
        query.add("fieldSelector", &format!("metadata.name={NOBODY}"));
    } else if let Some(fields) = &core.selection.fields {
        query.add("fieldSelector", fields);
    }
    let path = core.kind.path(core.selection.namespace.as_deref());
    let accept = match (core.metadata_only, watches) {
        (false, _) => "application/json",
        (true, true) => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
        (true, false) => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
    };
    Request::get(format!("{path}{}", query.0)).header(ACCEPT, accept).body(()).expect("path and query are encoded")
}

/// A query string, with its question mark.
#[derive(Default)]
struct Query(String);

impl Query {
    fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                self.0.push(char::from(byte));
            } else {
                write!(self.0, "%{byte:02X}").expect("a string takes all text");
            }
        }
    }
}

/// How long the server asks to be left alone.
pub(super) fn retry_after(answer: &Parts) -> Duration {
    let seconds = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    // A server that asks for hours is mistaken.
    Duration::from_secs(seconds.unwrap_or(0).min(60))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::informer::{Informers, Selection};
    use crate::object::{Kind, Typed};
    use crate::view::{Metadata, PodView};

    fn uri(informer: &Core, ask: Ask<'_>) -> String {
        request(informer, ask, Duration::from_secs(300)).uri().to_string()
    }

    #[test]
    fn requests_say_what_is_wanted() {
        let selection = Selection {
            namespace: Some("a".into()),
            labels: Some("app in (x,y)".into()),
            fields: Some("spec.nodeName=n".into()),
        };
        let all = Informers::new().typed::<PodView>(Selection::default());
        let some = Informers::new().typed::<PodView>(selection);
        let (all, some) = (&all.shared.core, &some.shared.core);
        let watch = "/api/v1/pods?watch=1&allowWatchBookmarks=true&timeoutSeconds=300";
        let initial = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        assert_eq!(uri(all, Ask::ListStream), format!("{watch}{initial}"));
        assert_eq!(uri(all, Ask::Watch { after: "7" }), format!("{watch}&resourceVersion=7"));
        assert_eq!(
            uri(all, Ask::ProbeStream),
            format!("{watch}{initial}&fieldSelector=metadata.name%3DQUARTERDECK-matches-nothing")
        );
        assert_eq!(
            uri(some, Ask::Page { limit: Some(500), from: Some("a+b/=") }),
            "/api/v1/namespaces/a/pods?limit=500&continue=a%2Bb%2F%3D&labelSelector=app%20in%20%28x%2Cy%29\
             &fieldSelector=spec.nodeName%3Dn"
        );
    }

    #[test]
    fn metadata_is_asked_for_by_its_form() {
        let kind = Kind::new("apps", "v1", "Deployment", "deployments", true);
        let lister = Informers::new().dynamic::<Metadata>(kind, Selection::default());
        let accept =
            |ask| request(&lister.shared.core, ask, Duration::ZERO).headers()[ACCEPT].to_str().unwrap().to_owned();
        assert!(accept(Ask::ListStream).contains("as=PartialObjectMetadata;"));
        assert!(accept(Ask::ProbePage).contains("as=PartialObjectMetadataList;"));
        let typed = Informers::new().typed::<PodView>(Selection::default());
        let request = request(&typed.shared.core, Ask::ListStream, Duration::ZERO);
        assert_eq!(request.headers()[ACCEPT], "application/json");
        assert_eq!(PodView::kind(), typed.shared.core.kind);
    }
}
