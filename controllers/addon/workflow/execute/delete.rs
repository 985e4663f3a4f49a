//! Deleting objects, each once: by the uid that it had when it was first seen.

use std::collections::BTreeMap;
use std::time::Duration;

use quarterdeck_runtime::client::{Api, ApiError, DeletePrecondition, Propagation};

use super::{Observed, SOON, fault, resolve};
use crate::addon::kinds::Kinds;
use crate::addon::workflow::program::{Cascade, Deletion};
use crate::addon::workflow::progress::Outcome;

/// Stands for the uid of an object that was not there.
const ABSENT: &str = "-";

pub(super) async fn run(
    api: &Api,
    kinds: &Kinds,
    deletion: &Deletion,
    mut marks: BTreeMap<String, String>,
) -> Result<Observed, ApiError> {
    let propagation = match deletion.cascade {
        Cascade::Background => Propagation::Background,
        Cascade::Foreground => Propagation::Foreground,
        Cascade::Orphan => Propagation::Orphan,
    };
    let before = marks.clone();
    let (mut left, mut faults) = (Vec::new(), Vec::new());
    for object in &deletion.objects {
        let name = object.ident.to_string();
        let (kind, key) = match resolve(api, kinds, object, &deletion.namespace).await {
            Ok(Some(found)) => found,
            // What no server serves does not exist.
            Ok(None) => {
                marks.entry(name).or_insert_with(|| ABSENT.to_owned());
                continue;
            }
            Err(error) => {
                faults.push(fault(error)?);
                continue;
            }
        };
        let live = match api.get_metadata(&kind, &key).await {
            Ok(live) => live,
            Err(error) => {
                faults.push(fault(error)?);
                continue;
            }
        };
        let Some(live) = live else {
            marks.entry(name).or_insert_with(|| ABSENT.to_owned());
            continue;
        };
        let uid = live.uid.unwrap_or_default();
        // An object that was made since is another one.
        if marks.get(&name).is_some_and(|deleted| *deleted != uid) {
            continue;
        }
        if live.deletion_timestamp.is_none() {
            let precondition = DeletePrecondition { uid: uid.clone(), resource_version: None };
            match api.delete(&kind, &key, &precondition, propagation).await {
                Ok(()) => {}
                Err(error) if error.is_not_found() => {}
                // Another object has its name now: it is not the one that was there.
                Err(error) if error.is_conflict() => {
                    marks.insert(name, uid);
                    continue;
                }
                Err(error) => {
                    faults.push(fault(error)?);
                    continue;
                }
            }
        }
        marks.insert(name, uid);
        if deletion.wait {
            left.push(format!("{kind} {key}"));
        }
    }
    if !faults.is_empty() {
        let message = faults.join("; ");
        // What was done is noted first, so that the next attempt does not do it again.
        return Ok(if marks == before {
            Observed::failed(message)
        } else {
            Observed::UnderWay { message, marks, look_again: Duration::ZERO }
        });
    }
    if left.is_empty() {
        return Ok(Observed::Ended(Outcome::done()));
    }
    let message = format!("waiting until they are gone: {}", left.join(", "));
    Ok(Observed::UnderWay { message, marks, look_again: SOON })
}
