//! What the leader tells of a source as a whole: that it cannot be read, and that another addon manager has the word.

use k8s_openapi::api::core::v1::ObjectReference;
use quarterdeck_runtime::events::Recorder;
use tokio::time::Instant;

use super::Engine;
use crate::addon::predecessor::Sight;
use crate::addon::reasons;
use crate::addon::source::OBJECTS;

/// What was told of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    unreadable: bool,
    aside: bool,
}

/// What is to be told of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Unreadable,
    Readable,
    StandsAside,
    TakesOver,
}

impl Told {
    /// Notes how it is now; what of that is news.
    fn note(&mut self, now: Self) -> Vec<News> {
        let before = std::mem::replace(self, now);
        let mut news = Vec::new();
        if now.unreadable != before.unreadable {
            news.push(if now.unreadable { News::Unreadable } else { News::Readable });
        }
        if now.aside != before.aside {
            news.push(if now.aside { News::StandsAside } else { News::TakesOver });
        }
        news
    }
}

impl Engine {
    /// Tells what changed since it was told last; `replica` is the Lease of this replica, whose disk and caches it is about.
    pub(crate) fn tell_source(&self, recorder: &Recorder, source: &'static str, replica: &ObjectReference) {
        let problem = self.snapshot(source).and_then(|snapshot| snapshot.problem.clone());
        let keiko = || matches!(self.keiko.sight(Instant::now()), Sight::Alive(_) | Sight::Hidden);
        let manager = match source {
            _ if self.observing_all() => Some("kube-addon-manager"),
            OBJECTS if keiko() => Some("keiko's addon-manager"),
            _ => None,
        };
        let now = Told { unreadable: problem.is_some(), aside: manager.is_some() };
        let news = self.shared.lock().told.entry(source).or_default().note(now);
        for news in news {
            let (reason, text) = match news {
                News::Unreadable => {
                    let problem = problem.as_deref().unwrap_or_default();
                    (reasons::UNREADABLE, format!("it cannot be read whole, and nothing of it is removed: {problem}"))
                }
                News::Readable => (reasons::READABLE, "it is read whole again".to_owned()),
                News::StandsAside => {
                    let manager = manager.unwrap_or_default();
                    (reasons::STANDS_ASIDE, format!("{manager} is alive, or may be: addons are only looked at"))
                }
                News::TakesOver => {
                    (reasons::TAKES_OVER, "no other addon manager is alive: addons are reconciled".to_owned())
                }
            };
            recorder.event(replica, reason, format!("{source}: {text}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once() {
        let mut told = Told::default();
        assert_eq!(told.note(Told::default()), [], "all is well from the start");
        let unreadable = Told { unreadable: true, aside: false };
        assert_eq!(told.note(unreadable), [News::Unreadable]);
        assert_eq!(told.note(unreadable), []);
        assert_eq!(told.note(Told { unreadable: false, aside: true }), [News::Readable, News::StandsAside]);
        assert_eq!(told.note(Told::default()), [News::TakesOver]);
    }
}
