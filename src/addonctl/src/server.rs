//! The server, as the user of the kubeconfig sees it.

use anyhow::Context as _;
use k8s_openapi::NamespaceResourceScope;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use quarterdeck_api::addon::{Addon, names};
use serde::de::DeserializeOwned;

use crate::cli::{Connection, NameArgs};
use crate::exit::NotFound;

/// Field manager of what we write.
pub(crate) const MANAGER: &str = "addonctl";

/// A server and the namespace that the kubeconfig prefers there.
pub(crate) struct Server {
    /// The client.
    pub(crate) client: Client,
    /// Namespace of the context, `default` if it names none.
    pub(crate) namespace: String,
}

impl Server {
    /// The server of the command line; it is not asked anything yet.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read, or does not say what is needed.
    pub(crate) async fn connect(connection: &Connection) -> anyhow::Result<Self> {
        let config = config(connection).await?;
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).context("kubeconfig")?;
        Ok(Self { client, namespace })
    }

    /// Objects of one namespace, or of all.
    pub(crate) fn api<K>(&self, namespace: Option<&str>) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
    {
        match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// The addon that is meant: of the namespace if one is named, else the only one of that name, else the
    /// mirror of what a source calls so (`dns.yaml`).
    ///
    /// # Errors
    /// When there is none, or more than one, or the server does not say.
    pub(crate) async fn find(&self, args: &NameArgs) -> anyhow::Result<Addon> {
        let namespace = args.namespace.as_deref();
        let named = ListParams::default().fields(&format!("metadata.name={}", args.name));
        let mut found = self.addons(namespace, &named).await?;
        if found.is_empty() {
            found = self.addons(namespace, &ListParams::default().labels(names::MIRROR_LABEL)).await?;
            found.retain(|mirror| {
                mirror.spec.pkg_name == args.name
                    || mirror.annotation(names::SOURCE_NAME_ANNOTATION) == Some(&args.name)
            });
        }
        match found.len() {
            0 => {
                let place = namespace.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
                Err(NotFound(format!("there is no addon {:?}{place}", args.name)).into())
            }
            1 => Ok(found.remove(0)),
            _ => {
                let places: Vec<&str> = found.iter().map(Addon::namespace).collect();
                anyhow::bail!("addon {:?} is in several namespaces; name one with -n: {}", args.name, places.join(", "))
            }
        }
    }
}

impl Server {
    /// Addons of a namespace, or of all; who may not look everywhere looks at home.
    async fn addons(&self, namespace: Option<&str>, which: &ListParams) -> anyhow::Result<Vec<Addon>> {
        let found = match self.api::<Addon>(namespace).list(which).await {
            Err(kube::Error::Api(status)) if status.is_forbidden() && namespace.is_none() => {
                self.api::<Addon>(Some(&self.namespace)).list(which).await
            }
            answer => answer,
        };
        Ok(found.map_err(|error| explain(error, "addons"))?.items)
    }
}

/// What the kubeconfig of the command line says; nobody is asked.
///
/// # Errors
/// When it cannot be read, or does not say what is needed.
pub(crate) async fn config(connection: &Connection) -> anyhow::Result<Config> {
    let options = KubeConfigOptions { context: connection.context.clone(), ..KubeConfigOptions::default() };
    match (&connection.kubeconfig, &connection.context) {
        (Some(path), _) => {
            let of_file = || format!("kubeconfig {}", path.display());
            let kubeconfig = Kubeconfig::read_from(path).with_context(of_file)?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await.with_context(of_file)
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await.context("kubeconfig"),
        (None, None) => Config::infer().await.context("there is no kubeconfig; name one with --kubeconfig"),
    }
}

/// An error of the server in words.
pub(crate) fn explain(error: kube::Error, what: &str) -> anyhow::Error {
    let kube::Error::Api(status) = error else { return anyhow::Error::new(error).context(what.to_owned()) };
    // A kind that is not served is answered without details; a missing object has some.
    let unserved = status.code == 404 && status.details.as_ref().is_none_or(|details| details.name.is_empty());
    if unserved && what.starts_with("addon") {
        return anyhow::anyhow!(
            "{what}: the server does not know Addons (addonmgr.keikoproj.io/v1alpha1); `quarterdeck install` brings them"
        );
    }
    let message =
        if status.message.is_empty() { format!("{} {}", status.code, status.reason) } else { status.message.clone() };
    if status.code == 404 {
        return NotFound(format!("{what}: {message}")).into();
    }
    anyhow::anyhow!("{what}: {message}")
}
