//! From the bytes of an answer to events and lists.

use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::object::ObjectKey;

/// A line longer than this is no event: etcd stores objects of at most 1.5 MiB by default.
const LONGEST_LINE: usize = 32 << 20;
/// Room that a splitter keeps between lines.
const KEPT: usize = 64 << 10;

/// Splits a body into lines. A line that lies within one piece of the body is not copied.
#[derive(Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Hands each line that ends in `piece` to `visit`, until that fails.
    pub(super) fn split<E>(&mut self, piece: &[u8], mut visit: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut rest = piece;
        while let Some(at) = memchr::memchr(b'\n', rest) {
            let (line, after) = (&rest[..at], &rest[at + 1..]);
            rest = after;
            let done = if self.partial.is_empty() {
                visit(line)
            } else {
                self.partial.extend_from_slice(line);
                let done = visit(&self.partial);
                self.partial.clear();
                self.partial.shrink_to(KEPT);
                done
            };
            done?;
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// Whether the line that has begun can no longer be an event.
    pub(super) fn is_too_long(&self) -> bool {
        self.partial.len() > LONGEST_LINE
    }
}

/// One event of a watch.
#[derive(Debug)]
pub(super) enum Event<K> {
    /// An object is there, in this state.
    Put(K),
    /// An object is gone; this was its last state.
    Deleted(K),
    /// Nothing happened up to this version.
    Bookmark {
        /// That version.
        version: String,
        /// Whether it ends the complete list.
        ends_list: bool,
    },
    /// The watch has failed.
    Failed(Box<Status>),
    /// An object that cannot be read.
    Unreadable(Unreadable),
}

/// An object that does not decode.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// Its key, if that much can be read.
    pub(super) key: Option<ObjectKey>,
    /// Its version, if that can be read.
    pub(super) version: Option<String>,
    /// Whether the event says that it is gone.
    pub(super) deleted: bool,
    /// What is wrong with it.
    pub(super) error: serde_json::Error,
}

/// Decodes one line of a watch.
///
/// # Errors
/// When the line is not an event at all: the stream is broken.
pub(super) fn event<K: DeserializeOwned>(line: &[u8]) -> Result<Event<K>, serde_json::Error> {
    let error = match serde_json::from_slice::<WireEvent<K>>(line) {
        Ok(event) => return Ok(event.0),
        Err(error) if error.classify() == Category::Data => error,
        Err(error) => return Err(error),
    };
    let named: NamedEvent<'_> = serde_json::from_slice(line)?;
    let name = Named::of(named.object);
    let deleted = match &*named.kind {
        "ADDED" | "MODIFIED" => false,
        "DELETED" => true,
        _ => return Err(error),
    };
    Ok(Event::Unreadable(Unreadable { key: name.key(), version: name.version, deleted, error }))
}

struct WireEvent<K>(Event<K>);

/// The server writes `type` before `object`, so that the object is decoded in the same pass.
impl<'de, K: DeserializeOwned> Deserialize<'de> for WireEvent<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<K>(PhantomData<fn() -> K>);
        impl<'de, K: DeserializeOwned> Visitor<'de> for Fields<K> {
            type Value = WireEvent<K>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a watch event")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WireEvent<K>, A::Error> {
                use serde::de::Error;
                let (mut kind, mut event, mut early) = (None, None, None);
                while let Some(field) = map.next_key::<Field>()? {
                    match (field, &kind) {
                        (Field::Type, _) => kind = Some(map.next_value::<EventType>()?),
                        (Field::Object, None) => early = Some(map.next_value::<&RawValue>()?),
                        (Field::Object, Some(EventType::Put)) => event = Some(Event::Put(map.next_value()?)),
                        (Field::Object, Some(EventType::Deleted)) => event = Some(Event::Deleted(map.next_value()?)),
                        (Field::Object, Some(EventType::Bookmark)) => {
                            event = Some(map.next_value::<WireBookmark>()?.into());
                        }
                        (Field::Object, Some(EventType::Failed)) => event = Some(Event::Failed(map.next_value()?)),
                        (Field::Other, _) => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                if let (Some(kind), Some(raw)) = (&kind, early) {
                    let text = raw.get();
                    event = Some(match kind {
                        EventType::Put => Event::Put(serde_json::from_str(text).map_err(A::Error::custom)?),
                        EventType::Deleted => Event::Deleted(serde_json::from_str(text).map_err(A::Error::custom)?),
                        EventType::Bookmark => {
                            serde_json::from_str::<WireBookmark>(text).map_err(A::Error::custom)?.into()
                        }
                        EventType::Failed => Event::Failed(serde_json::from_str(text).map_err(A::Error::custom)?),
                    });
                }
                event.map(WireEvent).ok_or_else(|| A::Error::custom("an event without type or object"))
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Type,
    Object,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
enum EventType {
    #[serde(rename = "ADDED", alias = "MODIFIED")]
    Put,
    #[serde(rename = "DELETED")]
    Deleted,
    #[serde(rename = "BOOKMARK")]
    Bookmark,
    #[serde(rename = "ERROR")]
    Failed,
}

#[derive(Deserialize)]
struct WireBookmark {
    metadata: BookmarkMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMeta {
    resource_version: String,
    #[serde(default)]
    annotations: Option<BookmarkAnnotations>,
}

#[derive(Deserialize)]
struct BookmarkAnnotations {
    #[serde(rename = "k8s.io/initial-events-end", default)]
    ends_list: Option<String>,
}

impl<K> From<WireBookmark> for Event<K> {
    fn from(bookmark: WireBookmark) -> Self {
        let ends_list = bookmark.metadata.annotations.and_then(|annotations| annotations.ends_list);
        Self::Bookmark {
            version: bookmark.metadata.resource_version,
            ends_list: ends_list.is_some_and(|value| value == "true"),
        }
    }
}

#[derive(Deserialize)]
struct NamedEvent<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// What identifies an object, as far as it can be read.
#[derive(Default)]
struct Named {
    namespace: Option<String>,
    name: Option<String>,
    version: Option<String>,
}

impl Named {
    fn of(object: &RawValue) -> Self {
        let Ok(object) = serde_json::from_str::<serde_json::Value>(object.get()) else { return Self::default() };
        let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
        Self { namespace: text("namespace"), name: text("name"), version: text("resourceVersion") }
    }

    fn key(&self) -> Option<ObjectKey> {
        let name = self.name.as_deref().filter(|name| !name.is_empty())?;
        Some(ObjectKey::new(self.namespace.as_deref().unwrap_or_default(), name))
    }
}

/// One page of a list.
pub(super) struct Page<'a> {
    /// Version of the list.
    pub(super) version: String,
    /// Where the next page begins, if there is one.
    pub(super) next: Option<String>,
    items: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct WirePage<'a> {
    metadata: PageMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

/// Decodes a page, but not its objects yet.
///
/// # Errors
/// When the answer is not a list.
pub(super) fn page(body: &[u8]) -> Result<Page<'_>, serde_json::Error> {
    let page: WirePage<'_> = serde_json::from_slice(body)?;
    let next = page.metadata.next.filter(|next| !next.is_empty());
    Ok(Page { version: page.metadata.resource_version, next, items: page.items.unwrap_or_default() })
}

impl Page<'_> {
    /// Each object with its length in the answer; one that does not decode spoils no other.
    pub(super) fn objects<K: DeserializeOwned>(&self) -> impl Iterator<Item = (Result<K, Unreadable>, usize)> {
        self.items.iter().map(|item| {
            let object = serde_json::from_str(item.get()).map_err(|error| {
                let name = Named::of(item);
                Unreadable { key: name.key(), version: name.version, deleted: false, error }
            });
            (object, item.get().len())
        })
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
