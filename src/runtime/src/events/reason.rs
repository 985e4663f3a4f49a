//! Reasons of Events: declared in one list a component, so that none is made that `docs/events.md` does not explain.

use super::EventType;

/// Why an Event is made. The macro [`reasons!`](crate::reasons) makes them, and with them the list of them: a recorder takes
/// nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reason {
    name: &'static str,
    kind: EventType,
    about: &'static str,
}

impl Reason {
    /// For the macro alone: a reason that stands in no list is one that nobody reads about.
    #[doc(hidden)]
    #[must_use]
    pub const fn declared(kind: EventType, name: &'static str, about: &'static str) -> Self {
        Self { name, kind, about }
    }

    /// As it stands in an Event.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Severity of its Events.
    #[must_use]
    pub const fn kind(&self) -> EventType {
        self.kind
    }

    /// Kinds of the objects that its Events are about, separated by `, `.
    #[must_use]
    pub const fn about(&self) -> &'static str {
        self.about
    }
}

/// Declares the reasons of one component's Events, each a constant, and a constant with all of them.
///
/// ```
/// quarterdeck_runtime::reasons! {
///     /// What this component tells.
///     ALL:
///     /// The lamp was lit.
///     LIT = Normal "LampLit" about "Lamp";
///     /// The lamp cannot be lit.
///     DARK = Warning "LampDark" about "Lamp, Namespace";
/// }
/// assert_eq!(ALL, [LIT, DARK]);
/// assert_eq!(DARK.name(), "LampDark");
/// ```
#[macro_export]
macro_rules! reasons {
    (
        $(#[$about_all:meta])*
        $all:ident:
        $($(#[$doc:meta])+ $name:ident = $kind:ident $reason:literal about $about:literal;)+
    ) => {
        $(
            $(#[$doc])+
            pub const $name: $crate::events::Reason =
                $crate::events::Reason::declared($crate::events::EventType::$kind, $reason, $about);
        )+
        $(#[$about_all])*
        pub const $all: &[$crate::events::Reason] = &[$($name),+];
    };
}
