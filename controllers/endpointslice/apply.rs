//! Sends the planned writes.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use quarterdeck_runtime::client::{Api, ApiError, DeletePrecondition, Propagation, Written};
use quarterdeck_runtime::object::{Cached as _, Kind, parse_version};

use super::metrics::Metrics;
use super::own_writes::{Ongoing, OwnWrites};
use super::plan::Op;

/// Sends writes and notes them.
pub(super) struct Writer<'a> {
    /// Calls under the controller's identity.
    pub(super) api: &'a Api,
    /// Where our own writes are noted.
    pub(super) own: &'a OwnWrites,
    /// Where they are counted.
    pub(super) metrics: &'a Metrics,
    /// Set when the watch has shown that someone else wrote right after us.
    pub(super) overwritten: bool,
}

impl Writer<'_> {
    /// Sends the writes in order, up to the first that fails. Stops without an error when the
    /// namespace is being deleted: nothing can be created there any more.
    pub(super) async fn send(&mut self, ops: Vec<Op>) -> Result<(), ApiError> {
        for op in ops {
            let sent = match op {
                Op::Create(slice) => {
                    let key = slice.key();
                    let write = self.own.begin(&key);
                    let answer = self.api.create(&slice).await;
                    self.written(write, answer, &self.metrics.creates)
                }
                Op::Update(slice) => {
                    let key = slice.key();
                    let write = self.own.begin(&key);
                    let answer = self.api.replace(&slice).await;
                    self.written(write, answer, &self.metrics.updates)
                }
                Op::Delete(slice) => self.delete(&slice).await,
            };
            match sent {
                Err(error) if error.is_namespace_terminating() => return Ok(()),
                sent => sent?,
            }
        }
        Ok(())
    }

    fn written(
        &mut self,
        write: Ongoing<'_>,
        answer: Result<Written, ApiError>,
        counter: &prometheus::IntCounter,
    ) -> Result<(), ApiError> {
        self.overwritten |= write.wrote(parse_version(&answer?.resource_version));
        counter.inc();
        Ok(())
    }

    /// Deletes a slice if it still is what was decided on; one that is gone already is fine.
    async fn delete(&self, slice: &Arc<EndpointSlice>) -> Result<(), ApiError> {
        let precondition = DeletePrecondition {
            uid: slice.uid().to_owned(),
            resource_version: Some(slice.resource_version().to_owned()),
        };
        let key = slice.key();
        let write = self.own.begin_delete(&key);
        let kind = Kind::of::<EndpointSlice>();
        match self.api.delete(&kind, &key, &precondition, Propagation::Background).await {
            Ok(()) => {
                write.deleted();
                self.metrics.deletes.inc();
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}
