//! The account controller: reads caches, plans, writes.

use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use k8s_openapi::api::rbac::v1::RoleBinding;
use quarterdeck_runtime::controller::{
    Action, ClientShare, Controller, Cx, Descriptor, Error, Grant, Setup, SetupError,
};
use quarterdeck_runtime::informer::{Lister, Selection};
use quarterdeck_runtime::object::{Cached, ObjectKey};

use crate::account::{Account, AccountStatus};
use crate::plan::{NAME, Op, Snapshot, plan};

/// Flags of the account controller.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Accounts that may be reconciled at once.
    #[arg(long, default_value_t = 5)]
    pub concurrent_account_syncs: usize,
}

/// Gives each Account a namespace, its members the right to edit it, and a quota.
pub struct AccountController {
    accounts: Lister<Account>,
    namespaces: Lister<Namespace>,
    bindings: Lister<RoleBinding>,
    quotas: Lister<ResourceQuota>,
}

impl Controller for AccountController {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "account-controller",
        aliases: &["account"],
        enabled_by_default: true,
        account: "account-controller",
        upstream_role: false,
        writes_anything: false,
        predecessor: None,
        queue: "account",
        share: ClientShare::ONE,
    };
    type Config = Config;
    type Key = ObjectKey;

    fn setup(config: &Config, setup: &mut Setup<ObjectKey>) -> Result<Self, SetupError> {
        setup.workers(config.concurrent_account_syncs);
        let accounts = setup.informer::<Account>(Selection::default());
        setup.watch(&accounts, |change, queue| queue.add(change.object().key()));
        let namespaces = setup.informer::<Namespace>(Selection::default());
        setup.watch(&namespaces, |change, queue| queue.add(change.object().key()));
        // What is in a namespace wakes the account of the same name.
        let bindings = setup.informer::<RoleBinding>(named());
        setup.watch(&bindings, |change, queue| queue.add(account_of(&**change.object())));
        let quotas = setup.informer::<ResourceQuota>(named());
        setup.watch(&quotas, |change, queue| queue.add(account_of(&**change.object())));
        for (group, resource, verbs) in [
            ("", "namespaces", &["create"][..]),
            ("", "resourcequotas", &["create", "update"]),
            ("rbac.authorization.k8s.io", "rolebindings", &["create", "update"]),
            // A binding to this role may be made without holding all that the role allows.
            ("rbac.authorization.k8s.io", "clusterroles", &["bind"]),
            ("accounts.example.com", "accounts/status", &["update"]),
            // Owner references that block the owner's deletion ask for this.
            ("accounts.example.com", "accounts/finalizers", &["update"]),
        ] {
            setup.grant(Grant { group, resource, verbs });
        }
        Ok(Self { accounts, namespaces, bindings, quotas })
    }

    async fn reconcile(&self, cx: &Cx, key: ObjectKey) -> Result<Action, Error> {
        let Some(account) = self.accounts.get(&key).filter(|account| !account.is_deleting()) else {
            // What it owns goes with it: the garbage collector's work.
            return Ok(Action::Done);
        };
        let inside = ObjectKey::new(key.name(), NAME);
        let (namespace, binding, quota) =
            (self.namespaces.get(&key), self.bindings.get(&inside), self.quotas.get(&inside));
        let seen = Snapshot {
            account: &account,
            namespace: namespace.as_deref(),
            binding: binding.as_deref(),
            quota: quota.as_deref(),
        };
        for op in plan(&seen) {
            match op {
                Op::CreateNamespace(object) => cx.api.create(&*object).await?,
                Op::CreateBinding(object) => cx.api.create(&*object).await?,
                Op::ReplaceBinding(object) => cx.api.replace(&*object).await?,
                Op::CreateQuota(object) => cx.api.create(&*object).await?,
                Op::ReplaceQuota(object) => cx.api.replace(&*object).await?,
            };
        }
        let observed_generation = account.metadata.generation.unwrap_or_default();
        let status = Some(AccountStatus { observed_generation, ready: true });
        if account.status != status {
            cx.api.replace_subresource("status", &Account { status, ..Account::clone(&account) }).await?;
        }
        Ok(Action::Done)
    }
}

/// Objects of the name that this controller gives.
fn named() -> Selection {
    Selection { fields: Some(format!("metadata.name={NAME}")), ..Selection::default() }
}

/// The account whose namespace an object is in.
fn account_of(object: &impl Cached) -> ObjectKey {
    ObjectKey::cluster(object.key().namespace())
}
