//! Changing fields of one object.

use quarterdeck_runtime::client::{Api, ApiError, PatchPrecondition};

use super::{Observed, fault, resolve};
use crate::addon::kinds::Kinds;
use crate::addon::workflow::program::{Patch, Strategy};
use crate::addon::workflow::progress::Outcome;

pub(super) async fn run(api: &Api, kinds: &Kinds, patch: &Patch) -> Result<Observed, ApiError> {
    match patched(api, kinds, patch).await {
        Ok(observed) => Ok(observed),
        Err(error) => fault(error).map(Observed::failed),
    }
}

async fn patched(api: &Api, kinds: &Kinds, patch: &Patch) -> Result<Observed, ApiError> {
    let Some((kind, key)) = resolve(api, kinds, &patch.object, &patch.namespace).await? else {
        return Ok(Observed::failed(format!("the server does not serve {}", patch.object.ident.kind)));
    };
    let Some(live) = api.get_metadata(&kind, &key).await? else {
        return Ok(Observed::failed(format!("there is no {kind} {key} to patch")));
    };
    // What is set does not depend on what was read: it only has to be the same object.
    let precondition = PatchPrecondition::Uid(live.uid.unwrap_or_default());
    match patch.strategy {
        Strategy::Strategic => api.strategic_patch(&kind, &key, None, &patch.body, &precondition).await?,
        Strategy::Merge => api.merge_patch(&kind, &key, None, &patch.body, &precondition).await?,
    };
    Ok(Observed::Ended(Outcome::done()))
}
