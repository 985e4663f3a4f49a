//! Questions about nodes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{Guarded, Method};
use crate::error::{CloudError, Result};
use crate::model::{Lookup, NodeRef};
use crate::provider::CallClass;

const GET_MANY: Method = Method { name: "instances.get_many", class: CallClass::Batch };

/// What a provider said of one node, and when.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What it said.
    pub lookup: Result<Lookup>,
    /// Id of the account or project that was asked.
    pub account: Arc<str>,
    /// When the question was put.
    pub at: Instant,
    /// Number of the question; answers of one number are of one moment.
    pub snapshot: u64,
}

impl Guarded {
    /// What the provider says of each of these nodes, in their order; answers that are not older than `max_age` may be
    /// of an earlier question. Zero: the cloud is asked.
    ///
    /// # Errors
    /// When it could not be asked at all.
    pub async fn look_up(&self, nodes: &[NodeRef], max_age: Duration) -> Result<Vec<Seen>> {
        let _ = max_age;
        let at = Instant::now();
        let asked: Arc<[NodeRef]> = nodes.into();
        let question = Arc::clone(&asked);
        let answers = self
            .call(GET_MANY, None, Uuid::new_v4(), move |provider, call| async move {
                let instances =
                    provider.instances().ok_or_else(|| CloudError::NotImplemented("instances".to_owned()))?;
                instances.get_many(&call, &question).await
            })
            .await?;
        let account: Arc<str> = answers.account.as_str().into();
        let silent = || Err(CloudError::Other("the provider did not answer for this node".to_owned()));
        let seen = asked.iter().map(|node| Seen {
            lookup: answers.nodes.get(node).cloned().unwrap_or_else(silent),
            account: Arc::clone(&account),
            at,
            snapshot: 0,
        });
        Ok(seen.collect())
    }
}
