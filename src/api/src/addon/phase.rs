//! Words of the status: phases, health, sources.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An enum that is written as fixed texts, and in which a text of a later or older build reads as
/// `Unknown`.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
            /// A text that this build does not know.
            Unknown,
        }

        impl $name {
            /// All that are known.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// As it is written in the status.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Unknown => "Unknown",
                }
            }

            /// Reads what [`as_str`](Self::as_str) writes; anything else is `Unknown`.
            #[must_use]
            pub fn parse(text: &str) -> Self {
                Self::ALL.iter().copied().find(|word| word.as_str() == text).unwrap_or(Self::Unknown)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(Self::parse(&String::deserialize(deserializer)?))
            }
        }
    };
}

words! {
    /// Where a lifecycle step stands, in upstream's exact words
    /// (keikoproj/addon-manager `api/addon/v1alpha1/addon_types.go`).
    Phase {
        /// Not all of it is there yet.
        Pending = "Pending",
        /// Its workflow runs; written by some upstream releases, never by us.
        Running = "Running",
        /// All of it is there.
        Succeeded = "Succeeded",
        /// It failed; with us it is tried again.
        Failed = "Failed",
        /// The spec is wrong, or a dependency is missing.
        ValidationFailed = "Validation Failed",
        /// It is being removed.
        Deleting = "Deleting",
        /// Its removal failed; with us it is tried again.
        DeleteFailed = "Delete Failed",
        /// Its delete step is done.
        DeleteSucceeded = "Delete Succeeded",
    }
}

words! {
    /// How an addon is, looked at for ever.
    Health {
        /// All of it is as it should be, and works.
        Ready = "Ready",
        /// Some of it is on its way.
        Progressing = "Progressing",
        /// Something failed or does not work.
        Degraded = "Degraded",
        /// A removal waits for a person.
        Held = "Held",
        /// It cannot begin: a right, a dependency or a runner is missing.
        Blocked = "Blocked",
        /// It is only looked at, while a predecessor is alive.
        Observing = "Observing",
        /// A person paused it.
        Paused = "Paused",
        /// It is being removed.
        Deleting = "Deleting",
    }
}

words! {
    /// Where an addon comes from.
    Source {
        /// A file in the directory of addons.
        Directory = "directory",
        /// An Addon object.
        Addon = "addon",
        /// An entry of a channel.
        Channel = "channel",
    }
}
