//! What a Service carries of its load balancer: which provider made it, and what that calls it. It is written before
//! anything is made, so that whoever comes later knows where to look.

use k8s_openapi::api::core::v1::Service;
use quarterdeck_cloud::model::Handle;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Annotation that holds a [`Record`].
pub(super) const RECORD: &str = "quarterdeck.dev/load-balancer";
/// Finalizer that keeps a Service until its load balancer is gone; upstream's.
pub(super) const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";

/// What is written on a Service of its load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    /// uid of the Service: a copy of a Service under another name carries the original's.
    pub(super) uid: String,
    /// The provider, as `--cloud-provider` names it.
    pub(super) provider: String,
    /// Another text for each load balancer of the Service: it may have one, then none, then one again.
    pub(super) claim: String,
    /// What the provider calls it, once that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) handle: Option<Handle>,
    /// Digest of what it was last made as; empty until it was.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) made: String,
    /// How many times it was made as something else than before.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) revision: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Record {
    /// A record of nothing made yet.
    pub(super) fn new(uid: &str, provider: &str) -> Self {
        let claim = Uuid::new_v4().simple().to_string();
        Self { uid: uid.to_owned(), provider: provider.to_owned(), claim, ..Self::default() }
    }

    /// What the Service carries; nothing if that is not readable, or another Service's.
    pub(super) fn of(service: &Service) -> Option<Self> {
        let text = service.metadata.annotations.as_ref()?.get(RECORD)?;
        let record: Self = serde_json::from_str(text).ok()?;
        (!record.uid.is_empty() && service.metadata.uid.as_deref() == Some(&*record.uid)).then_some(record)
    }

    /// As it stands in the annotation.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).expect("a record of texts and numbers is JSON")
    }
}

/// Whether a Service carries the finalizer.
pub(super) fn has_finalizer(service: &Service) -> bool {
    service.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_of_one_service() {
        let record = Record { claim: "c".into(), ..Record::new("u1", "sim") };
        let service = |uid: &str, text: &str| -> Service {
            serde_json::from_value(json!({ "metadata": { "uid": uid, "annotations": { RECORD: text } } })).unwrap()
        };
        assert_eq!(record.text(), r#"{"uid":"u1","provider":"sim","claim":"c"}"#);
        assert_eq!(Record::of(&service("u1", &record.text())), Some(record.clone()));
        assert_eq!(Record::of(&service("u2", &record.text())), None, "copied with the Service");
        assert_eq!(Record::of(&service("u1", "sim")), None);
        assert_eq!(Record::of(&service("", "{}")), None);
        let made = Record { handle: Some(Handle("lb-1".into())), made: "d".into(), revision: 2, ..record };
        assert_eq!(Record::of(&service("u1", &made.text())), Some(made));
    }
}
