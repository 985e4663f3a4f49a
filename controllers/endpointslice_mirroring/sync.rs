//! One reconcile: read, plan, send, report.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, ObjectReference};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use quarterdeck_runtime::client::{Api, ApiError, Class, DeletePrecondition, Propagation};
use quarterdeck_runtime::controller::{Cx, Error};
use quarterdeck_runtime::object::{Cached as _, Kind, ObjectKey};

use super::plan::{Op, Plan, Snapshot, plan};
use super::watch::{BY_SERVICE, has_selector, may_be_mirrored};
use super::{EndpointSliceMirroringController, reasons};

impl EndpointSliceMirroringController {
    /// Brings the slices that mirror an Endpoints object to where they should be.
    pub(super) async fn sync(&self, cx: &Cx, key: &ObjectKey) -> Result<(), Error> {
        let mut slices = self.slices.indexed(BY_SERVICE, &key.to_string());
        slices.retain(|slice| !slice.is_deleting());
        let Some(endpoints) = self.to_mirror(key) else {
            self.metrics.contributes(key, None);
            return Ok(self.send(&cx.api, slices.into_iter().map(Op::Delete)).await?);
        };

        let plan = self.plan(key, &endpoints, &slices);
        self.metrics.planned(key, &plan);
        self.report(cx, &endpoints, &plan);
        match self.send(&cx.api, plan.ops.into_iter()).await {
            // Nothing can be created in a namespace that is being deleted.
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                if matches!(error.class(), Class::Transient | Class::Terminal) {
                    let message = format!("cannot mirror endpoints {key} to EndpointSlices: {error}");
                    let about = reference(&endpoints);
                    cx.recorder.event(&about, reasons::UPDATE_FAILED, message);
                }
                Err(error.into())
            }
            Ok(()) => Ok(()),
        }
    }

    /// The object, if it is to be mirrored: it exists, does not ask to be left alone, and has a
    /// service without a selector.
    fn to_mirror(&self, key: &ObjectKey) -> Option<Arc<Endpoints>> {
        let endpoints = self.endpoints.get(key).filter(|endpoints| may_be_mirrored(endpoints))?;
        self.services.get(key).filter(|service| !has_selector(service))?;
        Some(endpoints)
    }

    fn plan(&self, key: &ObjectKey, endpoints: &Endpoints, slices: &[Arc<EndpointSlice>]) -> Plan {
        let namespace = key.namespace_arc();
        plan(&Snapshot {
            endpoints,
            slices,
            name_taken: &|name| self.slices.get(&ObjectKey::new(Arc::clone(&namespace), name)).is_some(),
            max_endpoints: self.max_endpoints,
        })
    }

    fn report(&self, cx: &Cx, endpoints: &Endpoints, plan: &Plan) {
        if plan.invalid > 0 {
            let message = format!("{} addresses are no IP addresses and are not mirrored", plan.invalid);
            cx.recorder.event(&reference(endpoints), reasons::INVALID_ADDRESS, message);
        }
        if plan.skipped > plan.invalid {
            let (left_out, max) = (plan.skipped - plan.invalid, self.max_endpoints);
            let message = format!("{left_out} addresses are not mirrored: at most {max} of a subset are");
            cx.recorder.event(&reference(endpoints), reasons::TOO_MANY, message);
        }
    }

    /// Sends writes in order, up to the first that fails.
    async fn send(&self, api: &Api, ops: impl Iterator<Item = Op>) -> Result<(), ApiError> {
        for op in ops {
            match op {
                Op::Create(slice) => {
                    api.create(&slice).await?;
                    self.metrics.creates.inc();
                }
                Op::Update(slice) => {
                    api.replace(&slice).await?;
                    self.metrics.updates.inc();
                }
                Op::Delete(slice) => {
                    delete(api, &slice).await?;
                    self.metrics.deletes.inc();
                }
            }
        }
        Ok(())
    }
}

/// Deletes a slice if it still is what was decided on; one that is gone already is fine.
async fn delete(api: &Api, slice: &EndpointSlice) -> Result<(), ApiError> {
    let precondition =
        DeletePrecondition { uid: slice.uid().to_owned(), resource_version: Some(slice.resource_version().to_owned()) };
    let kind = Kind::of::<EndpointSlice>();
    match api.delete(&kind, &slice.key(), &precondition, Propagation::Background).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

fn reference(endpoints: &Endpoints) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Endpoints".to_owned()),
        namespace: endpoints.metadata.namespace.clone(),
        name: endpoints.metadata.name.clone(),
        uid: endpoints.metadata.uid.clone(),
        resource_version: endpoints.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}
