//! Whether an object that an addon no longer wants is ours to delete. Labels are no proof: they are
//! copied by people and by controllers.

use serde_json::Value;

use super::fields;
use super::plan::MANAGER;

/// Annotation that keeps an object, whatever happens to its file.
pub const KEEP_ANNOTATION: &str = "quarterdeck.dev/prune";
/// Value of [`KEEP_ANNOTATION`].
pub const KEEP: &str = "keep";

/// What is to become of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is ours: delete it, if it still is as it was seen.
    Delete {
        /// Its uid.
        uid: String,
        /// Its version.
        resource_version: String,
    },
    /// It goes already.
    Going,
    /// It stays, and is ours no longer.
    Leave {
        /// Why.
        reason: &'static str,
    },
}

/// The fate of a live object whose uid, as far as it is known, was `uid`.
#[must_use]
pub fn fate(live: &Value, uid: &str) -> Fate {
    let text = |pointer: &str| live.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let live_uid = text("/metadata/uid");
    if live_uid.is_empty() || (!uid.is_empty() && uid != live_uid) {
        return Fate::Leave { reason: "another object has its name" };
    }
    if live.pointer("/metadata/deletionTimestamp").is_some() {
        return Fate::Going;
    }
    let annotation = live.pointer("/metadata/annotations").and_then(|all| all.get(KEEP_ANNOTATION));
    if annotation.and_then(Value::as_str) == Some(KEEP) {
        return Fate::Leave { reason: "it is annotated to be kept" };
    }
    let owners = live.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    if owners.into_iter().flatten().any(|owner| owner["controller"] == true) {
        return Fate::Leave { reason: "a controller owns it" };
    }
    if fields::applied_by(&fields::owners(live), MANAGER).is_none() {
        return Fate::Leave { reason: "none of its fields is ours" };
    }
    Fate::Delete { uid: live_uid.to_owned(), resource_version: text("/metadata/resourceVersion").to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn live(edit: &dyn Fn(&mut Value)) -> Value {
        let mut live = json!({"metadata": {"uid": "u", "resourceVersion": "5", "managedFields": [{"manager": MANAGER, "operation": "Apply", "fieldsV1": {"f:data": {}}}]}});
        edit(&mut live["metadata"]);
        live
    }

    #[test]
    fn only_what_is_ours_is_deleted() {
        let delete = Fate::Delete { uid: "u".into(), resource_version: "5".into() };
        let plain = live(&|_| {});
        assert_eq!(fate(&plain, "u"), delete);
        assert_eq!(fate(&plain, ""), delete);
        assert!(matches!(fate(&plain, "v"), Fate::Leave { .. }));
        assert!(matches!(fate(&json!({}), ""), Fate::Leave { .. }));
        assert_eq!(fate(&live(&|meta| meta["deletionTimestamp"] = "now".into()), "u"), Fate::Going);
        type Edit = fn(&mut Value);
        let kept: [(&str, Edit); 5] = [
            ("annotated", |meta| meta["annotations"] = json!({KEEP_ANNOTATION: KEEP})),
            ("owned by a controller", |meta| meta["ownerReferences"] = json!([{"uid": "o", "controller": true}])),
            ("never ours", |meta| meta["managedFields"] = json!([{"manager": "kubectl", "operation": "Apply"}])),
            ("ours only by update", |meta| meta["managedFields"][0]["operation"] = "Update".into()),
            ("without owners of fields", |meta| meta["managedFields"] = json!([])),
        ];
        for (name, edit) in kept {
            assert!(matches!(fate(&live(&edit), "u"), Fate::Leave { .. }), "{name}");
        }
        let owned = live(&|meta| meta["ownerReferences"] = json!([{"uid": "o"}]));
        assert_eq!(fate(&owned, "u"), delete);
    }
}
