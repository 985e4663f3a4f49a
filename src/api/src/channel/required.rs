//! All that has to be done about an addon at one time.

use super::decide::{Decision, Offer, decide};
use super::index::Entry;
use super::installed::Installed;
use super::rolling::RollingUpdate;

/// Secret, in `kube-system`, of the CA made for an addon with `needsPKI`.
#[must_use]
pub fn pki_secret(addon: &str) -> String {
    format!("{addon}-ca")
}

/// Issuer of cert-manager, in `kube-system`, of such an addon.
#[must_use]
pub fn pki_issuer(addon: &str) -> String {
    addon.to_owned()
}

/// What an addon needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Required {
    /// What to do about its manifest.
    pub decision: Decision,
    /// Whether its CA and issuer are to be made; an existing one is left as it is.
    pub install_pki: bool,
    /// Which nodes are marked once the manifest is applied: an update marks them, an install not.
    pub mark_nodes: Option<RollingUpdate>,
}

impl Required {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self.decision, Decision::Keep(_)) && !self.install_pki
    }
}

/// Puts the rules together (kops:channels/pkg/channels/addon.go). `pki_is_there` says whether both
/// the Secret and the Issuer exist.
#[must_use]
pub fn required(entry: &Entry, installed: Option<&Installed>, offer: &Offer, pki_is_there: bool) -> Required {
    let decision = decide(installed, offer);
    Required {
        decision,
        install_pki: entry.needs_pki && !pki_is_there,
        mark_nodes: entry.needs_rolling_update.filter(|_| decision == Decision::Update),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::channel::{Content, Keep, read};

    fn entry(fields: &Value) -> Entry {
        let mut addon = json!({"name": "test", "manifest": "m"});
        addon.as_object_mut().expect("a mapping").extend(fields.as_object().expect("fields").clone());
        match read(Some(&json!({"kind": "Addons", "spec": {"addons": [addon]}})), "u", b"", 10) {
            Ok(Content::Index(mut index)) => index.entries.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn note(hash: &str) -> Installed {
        Installed { manifest_hash: hash.into(), system_generation: 1, ..Installed::default() }
    }

    fn needs(entry: &Entry, installed: Option<&Installed>, pki: bool) -> Required {
        required(entry, installed, &Offer { note: note("new"), hash_is_named: true }, pki)
    }

    /// kops:channels/pkg/channels/addons_test.go, Test_GetRequiredUpdates, and Test_IsPKIInstalled of
    /// channel_version_test.go.
    #[test]
    fn a_missing_ca_is_made_even_if_nothing_else_is_to_do() {
        let entry = entry(&json!({"needsPKI": true}));
        let fresh = needs(&entry, None, false);
        assert_eq!((fresh.decision, fresh.install_pki), (Decision::Install, true));
        let only = needs(&entry, Some(&note("new")), false);
        assert_eq!((only.decision, only.install_pki, only.is_nothing()), (Decision::Keep(Keep::Same), true, false));
        assert!(needs(&entry, Some(&note("new")), true).is_nothing());
        assert_eq!((pki_secret("test").as_str(), pki_issuer("test").as_str()), ("test-ca", "test"));
    }

    /// Test_NeedsRollingUpdate: an update marks nodes, an install does not, nor does nothing.
    #[test]
    fn only_an_update_marks_nodes() {
        let entry = entry(&json!({"needsRollingUpdate": "all"}));
        assert_eq!(needs(&entry, Some(&note("old")), true).mark_nodes, Some(RollingUpdate::All));
        assert_eq!(needs(&entry, Some(&note("new")), true).mark_nodes, None);
        assert_eq!(needs(&entry, None, true).mark_nodes, None);
        assert_eq!(needs(&self::entry(&json!({})), Some(&note("old")), true).mark_nodes, None);
    }
}
