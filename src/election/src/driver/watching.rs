//! Keeps a watch on the Lease open, as long as somebody listens.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::lease_api::{LeaseApi, LeaseSight};

/// The pause after a watch that could not be opened or ended at once.
const PAUSE: Duration = Duration::from_secs(1);

/// Delivers what the watch says. A watch that is silent for two lease durations is opened anew: a live holder renews far more
/// often, so its connection may be dead.
pub(super) async fn watch<A: LeaseApi>(api: Arc<A>, seen: mpsc::Sender<LeaseSight>, lease_duration: Duration) {
    loop {
        let opened = Instant::now();
        match timeout(lease_duration, api.watch()).await {
            Ok(Ok(mut sights)) => {
                while let Ok(Some(sight)) = timeout(lease_duration * 2, sights.next()).await {
                    match sight {
                        Ok(sight) => {
                            if seen.send(sight).await.is_err() {
                                return;
                            }
                        }
                        Err(error) => {
                            tracing::debug!(error = &error as &dyn std::error::Error, "the watch of the lease broke");
                            break;
                        }
                    }
                }
            }
            Ok(Err(error)) => tracing::debug!(error = &error as &dyn std::error::Error, "cannot watch the lease"),
            Err(_) => tracing::debug!("the watch of the lease was not answered"),
        }
        if opened.elapsed() < PAUSE {
            sleep(PAUSE).await;
        }
    }
}
