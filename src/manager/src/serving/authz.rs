//! What a user may do: system:masters everything, anyone the open paths, the rest is asked of the
//! API server (apiserver:authorization/{authorizerfactory,path} and its delegating options, v1.36.3).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::cache::Cache;
use super::review::{self, Access, ReviewError, Reviews};
use super::user::User;

/// Group that may do everything.
const MASTERS: &str = "system:masters";
/// Answers that are remembered.
const CAPACITY: usize = 4096;
/// Longer questions are not remembered, so that nobody fills the memory with them; bytes.
const LONGEST_KEPT: usize = 10_000;

/// Decides what a user may do.
pub(crate) struct Authorizer {
    open: Vec<String>,
    reviews: Option<Arc<dyn Reviews>>,
    keep_allowed: Duration,
    keep_refused: Duration,
    answers: Cache<String, Access>,
    asking: Arc<Semaphore>,
}

impl Authorizer {
    /// Without `reviews`, what is not open is refused.
    pub(crate) fn new(
        open: Vec<String>,
        reviews: Option<Arc<dyn Reviews>>,
        (keep_allowed, keep_refused): (Duration, Duration),
        asking: Arc<Semaphore>,
    ) -> Self {
        Self { open, reviews, keep_allowed, keep_refused, answers: Cache::new(CAPACITY), asking }
    }

    /// Whether the user may use the path with the verb (a method in lower case).
    pub(crate) async fn decide(&self, user: &User, verb: &str, path: &str) -> Result<Access, ReviewError> {
        if user.groups.iter().any(|group| group == MASTERS) || self.open.iter().any(|open| is_open(open, path)) {
            return Ok(Access { allowed: true, reason: String::new() });
        }
        let Some(reviews) = self.reviews.as_deref() else {
            return Ok(Access { allowed: false, reason: String::new() });
        };
        let question = review::question(user, verb, path);
        let ask = |question| async {
            let _permit = self.asking.acquire().await;
            let access = review::access(reviews, question).await?;
            let keep = if access.allowed { self.keep_allowed } else { self.keep_refused };
            Ok((access, keep))
        };
        let key = serde_json::to_string(&question).unwrap_or_default();
        if key.is_empty() || key.len() > LONGEST_KEPT {
            return ask(question).await.map(|(access, _)| access);
        }
        self.answers.get(key, || ask(question)).await
    }
}

/// Whether a path is one of those that an open pattern names: itself, or all that begin with what
/// stands before a final `*`.
fn is_open(pattern: &str, path: &str) -> bool {
    let (pattern, path) = (pattern.strip_prefix('/').unwrap_or(pattern), path.strip_prefix('/').unwrap_or(path));
    pattern.strip_suffix('*').map_or_else(|| path == pattern, |prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_paths_are_exact_or_prefixes() {
        let cases = [
            ("/healthz", "/healthz", true),
            ("healthz", "/healthz", true),
            ("/healthz", "/healthz/ping", false),
            ("/healthz", "/healthzz", false),
            ("/healthz", "//healthz", false),
            ("/healthz*", "/healthz/ping", true),
            ("/healthz/*", "/healthz", false),
            ("/*", "/metrics", true),
            ("/metrics", "/healthz", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(is_open(pattern, path), expected, "{pattern} {path}");
        }
    }
}
