//! Pieces shared by the views: labels, and the parts of the wire format that all kinds have.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::intern::{Pool, intern};
use crate::object::ObjectKey;

type Pair = (Arc<str>, Arc<str>);

static SETS: LazyLock<Pool<[Pair]>> = LazyLock::new(Pool::new);

/// Labels or annotations as a sorted list of shared pairs. The pods of one ReplicaSet share the
/// whole list.
#[derive(Clone, PartialEq, Eq)]
pub struct Labels(Arc<[Pair]>);

impl Labels {
    /// The value of a label.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok().map(|at| &*self.0[at].1)
    }

    /// All pairs, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }

    /// Number of pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pairs sorted, of equal keys the last one, as Go's decoder has it.
    fn from_pairs(mut pairs: Vec<Pair>) -> Self {
        pairs.reverse();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, kept| later.0 == kept.0);
        Self(SETS.share(&pairs, || pairs.as_slice().into()))
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::from_pairs(Vec::new())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self::from_pairs(pairs.into_iter().map(|(k, v)| (intern(k.as_ref()), intern(v.as_ref()))).collect())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut pairs = Vec::with_capacity(8);
                while let Some((key, value)) = map.next_entry::<Text<'de>, Text<'de>>()? {
                    pairs.push((intern(&key), intern(&value)));
                }
                Ok(Labels::from_pairs(pairs))
            }

            fn visit_unit<E: Error>(self) -> Result<Labels, E> {
                Ok(Labels::default())
            }
        }
        deserializer.deserialize_any(Pairs)
    }
}

/// A string, borrowed from the input unless it has escapes; `null` reads as empty, as in Go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text<'a>(Cow<'a, str>);

impl Text<'_> {
    /// The text, none when it is empty.
    pub(crate) fn interned(&self) -> Option<Arc<str>> {
        if self.is_empty() { None } else { Some(intern(self)) }
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Str<'a>(PhantomData<&'a str>);
        impl<'de: 'a, 'a> Visitor<'de> for Str<'a> {
            type Value = Text<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'a>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'a>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E: Error>(self) -> Result<Text<'a>, E> {
                Ok(Text::default())
            }
        }
        deserializer.deserialize_any(Str(PhantomData))
    }
}

/// A value for which `null` stands for the default, as in Go.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Option::deserialize(d).map(Option::unwrap_or_default)
}

/// Hands each item of a list to `visit`, without a list in between; `null` is an empty list.
pub(crate) fn each<'de, D, T, F>(deserializer: D, visit: F) -> Result<(), D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
    F: FnMut(T),
{
    struct Each<T, F>(F, PhantomData<fn() -> T>);
    impl<'de, T: Deserialize<'de>, F: FnMut(T)> Visitor<'de> for Each<T, F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
            while let Some(item) = seq.next_element::<T>()? {
                (self.0)(item);
            }
            Ok(())
        }

        fn visit_unit<E: Error>(self) -> Result<(), E> {
            Ok(())
        }
    }
    deserializer.deserialize_any(Each(visit, PhantomData))
}

/// A time as whole seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seconds(pub(crate) i64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        let time: jiff::Timestamp =
            text.parse().map_err(|error| D::Error::custom(format_args!("not a time: {:?}: {error}", &*text)))?;
        Ok(Self(time.as_second()))
    }
}

/// Whether a value is there at all.
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::<IgnoredAny>::deserialize(deserializer).map(|value| value.is_some())
}

/// The metadata that every view holds.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WireMeta<'a> {
    #[serde(borrow)]
    pub(crate) name: Text<'a>,
    #[serde(borrow)]
    pub(crate) namespace: Text<'a>,
    #[serde(borrow)]
    pub(crate) uid: Text<'a>,
    #[serde(borrow)]
    pub(crate) resource_version: Text<'a>,
    pub(crate) labels: Labels,
    pub(crate) creation_timestamp: Option<Seconds>,
    #[serde(deserialize_with = "present")]
    pub(crate) deletion_timestamp: bool,
}

impl WireMeta<'_> {
    /// Namespace and name.
    ///
    /// # Errors
    /// When the object has no name.
    pub(crate) fn key<E: Error>(&self) -> Result<ObjectKey, E> {
        key(&self.namespace, &self.name)
    }
}

/// A key whose namespace is shared.
pub(crate) fn key<E: Error>(namespace: &str, name: &str) -> Result<ObjectKey, E> {
    if name.is_empty() {
        return Err(E::custom("metadata.name is missing"));
    }
    Ok(ObjectKey::new(intern(namespace), name))
}

/// One entry of `status.conditions`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireCondition<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
    last_transition_time: Option<Seconds>,
}

/// The condition `Ready` of a list of conditions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ready {
    /// Whether its status is `True`.
    pub(crate) is_true: bool,
    /// When its status last changed.
    pub(crate) changed: Option<i64>,
}

impl<'de> Deserialize<'de> for Ready {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut ready = Self::default();
        each(deserializer, |condition: WireCondition<'de>| {
            if &*condition.kind == "Ready" {
                ready.is_true = &*condition.status == "True";
                ready.changed = condition.last_transition_time.map(|time| time.0);
            }
        })?;
        Ok(ready)
    }
}

/// What an `Arc<str>` of its own takes on the heap.
pub(crate) fn text_bytes(text: &str) -> usize {
    16 + text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_label_sets_share_one_copy() {
        let one: Labels = serde_json::from_str(r#"{"b":"2","a":"1"}"#).unwrap();
        let two: Labels = [("a", "1"), ("b", "2")].into_iter().collect();
        assert!(Arc::ptr_eq(&one.0, &two.0));
        assert_eq!(one.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        assert_eq!((one.get("b"), one.get("c")), (Some("2"), None));
    }

    #[test]
    fn of_a_repeated_key_the_last_value_counts() {
        let labels: Labels = serde_json::from_str(r#"{"a":"1","b":"","a":"2"}"#).unwrap();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "2"), ("b", "")]);
    }

    #[test]
    fn escapes_and_null_are_read_as_in_go() {
        assert_eq!(&*serde_json::from_str::<Text<'_>>(r#""a\u003cb""#).unwrap(), "a<b");
        assert_eq!(&*serde_json::from_str::<Text<'_>>("null").unwrap(), "");
        assert!(serde_json::from_str::<Labels>("null").unwrap().is_empty());
        assert!(serde_json::from_str::<Text<'_>>("7").is_err());
    }
}
