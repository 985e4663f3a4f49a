//! Questions to the API server: who holds this token, and may this user do that.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};

use super::user::User;

/// The longest that one question may take, with its retries.
const DEADLINE: Duration = Duration::from_secs(10);
/// Tries and pauses between them, as upstream's webhooks (500 ms, ×1.5).
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ReviewError {
    /// What went wrong.
    pub message: String,
    /// Whether asking again may help.
    pub retriable: bool,
}

/// Asks the API server. The manager hands in its client; tests, a function.
pub trait Reviews: Send + Sync + 'static {
    /// Creates a TokenReview and gives back the server's.
    fn token(&self, review: TokenReview) -> BoxFuture<'_, Result<TokenReview, ReviewError>>;
    /// Creates a SubjectAccessReview and gives back the server's.
    fn access(&self, review: SubjectAccessReview) -> BoxFuture<'_, Result<SubjectAccessReview, ReviewError>>;
}

/// The answer to an access review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) allowed: bool,
    pub(crate) reason: String,
}

/// Who holds a token; `None` if the server does not know it.
pub(crate) async fn token_holder(reviews: &dyn Reviews, token: &str) -> Result<Option<User>, ReviewError> {
    let review =
        TokenReview { spec: TokenReviewSpec { token: token.to_owned(), audiences: None }, ..TokenReview::default() };
    let answer = retried(|| reviews.token(review.clone())).await?;
    let TokenReviewStatus { authenticated, user, error, .. } = answer.status.unwrap_or_default();
    if !authenticated.unwrap_or(false) {
        tracing::debug!(error = error.unwrap_or_default(), "token not accepted");
        return Ok(None);
    }
    let user = user.unwrap_or_default();
    Ok(Some(User {
        name: user.username.unwrap_or_default(),
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    }))
}

/// The question whether a user may use a path with a verb.
pub(crate) fn question(user: &User, verb: &str, path: &str) -> SubjectAccessReviewSpec {
    let filled = |map: &BTreeMap<String, Vec<String>>| (!map.is_empty()).then(|| map.clone());
    SubjectAccessReviewSpec {
        user: Some(user.name.clone()),
        uid: (!user.uid.is_empty()).then(|| user.uid.clone()),
        groups: (!user.groups.is_empty()).then(|| user.groups.clone()),
        extra: filled(&user.extra),
        non_resource_attributes: Some(NonResourceAttributes {
            path: Some(path.to_owned()),
            verb: Some(verb.to_owned()),
        }),
        resource_attributes: None,
    }
}

/// Asks whether a user may do that.
pub(crate) async fn access(reviews: &dyn Reviews, spec: SubjectAccessReviewSpec) -> Result<Access, ReviewError> {
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let answer = retried(|| reviews.access(review.clone())).await?;
    let SubjectAccessReviewStatus { allowed, denied, reason, evaluation_error } = answer.status.unwrap_or_default();
    if let Some(error) = evaluation_error.filter(|error| !error.is_empty()) {
        tracing::debug!(error, "access review");
    }
    Ok(Access { allowed: allowed && !denied.unwrap_or(false), reason: reason.unwrap_or_default() })
}

async fn retried<T, F>(ask: impl Fn() -> F) -> Result<T, ReviewError>
where
    F: Future<Output = Result<T, ReviewError>>,
{
    let tries = async {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match ask().await {
                Err(error) if error.retriable => tokio::time::sleep(pause).await,
                answer => return answer,
            }
            pause = pause * 3 / 2;
        }
        ask().await
    };
    tokio::time::timeout(DEADLINE, tries)
        .await
        .unwrap_or_else(|_| Err(ReviewError { message: "no answer in 10 s".to_owned(), retriable: false }))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn error(retriable: bool) -> ReviewError {
        ReviewError { message: "no".into(), retriable }
    }

    #[tokio::test(start_paused = true)]
    async fn asks_again_while_that_may_help() {
        let asked = AtomicU32::new(0);
        let ask = |until: u32, retriable| {
            asked.store(0, Ordering::Relaxed);
            let asked = &asked;
            retried(move || async move {
                if asked.fetch_add(1, Ordering::Relaxed) < until { Err(error(retriable)) } else { Ok(()) }
            })
        };
        assert_eq!(ask(2, true).await, Ok(()));
        assert_eq!(ask(9, true).await, Err(error(true)));
        assert_eq!(asked.load(Ordering::Relaxed), TRIES);
        assert_eq!(ask(1, false).await, Err(error(false)));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_in_time() {
        let started = tokio::time::Instant::now();
        let answer: Result<(), _> = retried(std::future::pending).await;
        assert_eq!(answer.unwrap_err().message, "no answer in 10 s");
        assert_eq!(started.elapsed(), DEADLINE);
    }
}
