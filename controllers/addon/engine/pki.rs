//! The CA and issuer of a channel's addon that needs them: made where they are missing, and left alone
//! where they are not.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use quarterdeck_api::channel::{Entry, pki_issuer, pki_secret};
use quarterdeck_runtime::client::{ApiError, ApplyOptions, ApplyTo};
use quarterdeck_runtime::controller::Error;
use quarterdeck_runtime::informer::{Lister, Selection};
use quarterdeck_runtime::object::{Kind, ObjectKey};
use quarterdeck_runtime::view::Metadata;

use super::run::Run;
use super::{Engine, Key};
use crate::addon::pki::{Authority, NAMESPACE, issuer, issuer_kind};
use crate::addon::plan::MANAGER;
use crate::addon::reasons;
use crate::addon::source::AddonId;

/// When it is looked again for cert-manager's kinds.
const AGAIN: Duration = Duration::from_secs(15);

/// Watches on one addon's CA and issuer, by name.
pub(super) struct Watched {
    addon: String,
    secret: Lister<Metadata>,
    issuer: Option<Lister<Metadata>>,
}

impl Run<'_> {
    /// Makes the CA and the issuer that an entry needs, where they are missing. What fails is told, and
    /// nothing waits for it.
    pub(super) async fn ensure_pki(&mut self, entry: &Entry) -> Result<(), Error> {
        if !entry.needs_pki {
            self.engine.stop_pki(&self.id);
            return Ok(());
        }
        let made = self.make_ca(&entry.name).await;
        self.pki_failed("its CA", made)?;
        let made = self.make_issuer(&entry.name).await;
        self.pki_failed("its issuer", made)
    }

    fn pki_failed(&mut self, what: &str, made: Result<Option<String>, ApiError>) -> Result<(), Error> {
        let problem = match made {
            Ok(None) => return Ok(()),
            Ok(Some(problem)) => problem,
            // Whoever else made it: it is there.
            Err(error) if error.is_already_exists() => return Ok(()),
            Err(error) if error.class() == quarterdeck_runtime::client::Class::NotLeader => return Err(error.into()),
            Err(error) => error.to_string(),
        };
        self.outcome.beside.push(format!("needsPKI, {what}: {problem}"));
        self.outcome.look_again(AGAIN);
        Ok(())
    }

    async fn make_ca(&mut self, addon: &str) -> Result<Option<String>, ApiError> {
        let key = ObjectKey::new(NAMESPACE, pki_secret(addon));
        let kind = Kind::of::<Secret>();
        if self.engine.watch_ca(&self.id, addon, &kind).get(&key).is_some()
            || self.api.get_metadata(&kind, &key).await?.is_some()
        {
            return Ok(None);
        }
        if self.observing {
            self.outcome.planned += 1;
            return Ok(None);
        }
        let authority = match Authority::new(addon) {
            Ok(authority) => authority,
            Err(error) => return Ok(Some(error.to_string())),
        };
        self.api.create(&authority.into_secret(addon)).await?;
        tracing::info!(addon = %self.id, secret = %key, "a CA was made");
        self.event(reasons::CA_MADE, &format!("made a CA in secret {key}"));
        Ok(None)
    }

    async fn make_issuer(&mut self, addon: &str) -> Result<Option<String>, ApiError> {
        let key = ObjectKey::new(NAMESPACE, pki_issuer(addon));
        if self.engine.watched_issuer(&self.id).is_some_and(|issuers| issuers.get(&key).is_some()) {
            return Ok(None);
        }
        let Some(kind) = self.engine.kinds.find_any(&self.api, &issuer_kind()).await? else {
            let text = format!("the server has no kind {}: it is made once cert-manager is there", issuer_kind());
            return Ok(Some(text));
        };
        self.engine.watch_issuer(&self.id, addon, &kind);
        if self.api.get_metadata(&kind, &key).await?.is_some() {
            return Ok(None);
        }
        if self.observing {
            self.outcome.planned += 1;
            return Ok(None);
        }
        let options = ApplyOptions { manager: MANAGER, force: false, dry_run: false };
        self.api.apply(&kind, &key, &issuer(addon, &kind.version), &ApplyTo::Absent, &options).await?;
        tracing::info!(addon = %self.id, issuer = %key, "an issuer was made");
        self.event(reasons::ISSUER_MADE, &format!("made issuer {key}"));
        Ok(None)
    }
}

impl Engine {
    /// Has the loss of an addon's CA wake it.
    fn watch_ca(self: &std::sync::Arc<Self>, id: &AddonId, addon: &str, kind: &Kind) -> Lister<Metadata> {
        let mut shared = self.shared.lock();
        if let Some(watched) = shared.pki.get(id).filter(|watched| watched.addon == addon) {
            return watched.secret.clone();
        }
        let secret = self.watch_one(id, kind, &pki_secret(addon));
        let watched = Watched { addon: addon.to_owned(), secret: secret.clone(), issuer: None };
        shared.pki.insert(id.clone(), watched);
        drop(shared);
        self.wake_on_change(id, &secret);
        secret
    }

    fn watched_issuer(&self, id: &AddonId) -> Option<Lister<Metadata>> {
        self.shared.lock().pki.get(id)?.issuer.clone()
    }

    fn watch_issuer(self: &std::sync::Arc<Self>, id: &AddonId, addon: &str, kind: &Kind) {
        let mut shared = self.shared.lock();
        let Some(watched) = shared.pki.get_mut(id).filter(|watched| watched.issuer.is_none()) else { return };
        let lister = self.watch_one(id, kind, &pki_issuer(addon));
        watched.issuer = Some(lister.clone());
        drop(shared);
        self.wake_on_change(id, &lister);
    }

    fn watch_one(&self, id: &AddonId, kind: &Kind, name: &str) -> Lister<Metadata> {
        let fields = Some(format!("metadata.name={name}"));
        tracing::debug!(addon = %id, kind = %kind, name, "watched");
        let selection = Selection { namespace: Some(NAMESPACE.to_owned()), labels: None, fields };
        self.parts.informers.dynamic::<Metadata>(kind.clone(), selection)
    }

    fn wake_on_change(self: &std::sync::Arc<Self>, id: &AddonId, lister: &Lister<Metadata>) {
        let (engine, id) = (std::sync::Arc::downgrade(self), id.clone());
        lister.on_change(move |change| {
            // Only their end asks for anything.
            if let (Some(engine), quarterdeck_runtime::informer::Change::Deleted { .. }) = (engine.upgrade(), change) {
                engine.parts.queue.add(Key::Addon(id.clone()));
            }
        });
    }

    /// Stops watching for an addon that needs no CA, or is gone.
    pub(super) fn stop_pki(&self, id: &AddonId) {
        let Some(watched) = self.shared.lock().pki.remove(id) else { return };
        self.parts.informers.stop_one(&watched.secret);
        if let Some(issuer) = &watched.issuer {
            self.parts.informers.stop_one(issuer);
        }
    }
}
