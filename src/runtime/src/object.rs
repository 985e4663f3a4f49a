//! What an object is to the runtime: its kind, its key, and the few facts that caches, queues and
//! preconditions need of it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A served resource: group, version and plural name, with the kind it carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// API version, such as `v1`.
    pub version: Cow<'static, str>,
    /// Kind in `CamelCase`, such as `EndpointSlice`.
    pub kind: Cow<'static, str>,
    /// Plural resource name as it stands in a path, such as `endpointslices`.
    pub plural: Cow<'static, str>,
    /// Whether objects of this kind live in namespaces.
    pub namespaced: bool,
}

impl Kind {
    /// A kind whose names are known at compile time.
    #[must_use]
    pub const fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        namespaced: bool,
    ) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            kind: Cow::Borrowed(kind),
            plural: Cow::Borrowed(plural),
            namespaced,
        }
    }

    /// The kind of a type of the Kubernetes API.
    #[must_use]
    pub fn of<K: Typed>() -> Self {
        K::kind()
    }

    /// `apiVersion` as objects of this kind carry it: `v1`, `discovery.k8s.io/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Path of the collection, in one namespace or, with `None`, across all of them.
    #[must_use]
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace.filter(|n| self.namespaced && !n.is_empty()) {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }

    /// Path of one object.
    #[must_use]
    pub fn object_path(&self, key: &ObjectKey) -> String {
        format!("{}/{}", self.path(Some(key.namespace())), key.name())
    }
}

/// Prints `endpointslices.discovery.k8s.io`, as upstream names a group resource.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.plural)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

/// Namespace and name of an object; the namespace is empty for cluster-scoped kinds. Clones share
/// their text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl ObjectKey {
    /// The key of an object in a namespace; an empty namespace means cluster-scoped.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(name: impl Into<Arc<str>>) -> Self {
        Self::new("", name)
    }

    /// Namespace, empty for cluster-scoped kinds.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Name within the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace's shared text, for keys of neighbours.
    #[must_use]
    pub fn namespace_arc(&self) -> Arc<str> {
        Arc::clone(&self.namespace)
    }
}

/// Prints `namespace/name`, or `name` for cluster-scoped kinds.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A version of an object or a collection. Compared only within one kind on kube-apiserver's own
/// storage, where versions are etcd revisions.
pub type ResourceVersion = u64;

/// Reads a resourceVersion; `None` when it is not a number (a foreign API server's).
#[must_use]
pub fn parse_version(text: &str) -> Option<ResourceVersion> {
    text.parse().ok()
}

/// A form in which an informer keeps objects.
pub trait Cached: DeserializeOwned + Send + Sync + 'static {
    /// Namespace and name.
    fn key(&self) -> ObjectKey;
    /// `metadata.uid`, empty if the server sent none.
    fn uid(&self) -> &str;
    /// `metadata.resourceVersion` as the server sent it.
    fn resource_version(&self) -> &str;
    /// Whether `metadata.deletionTimestamp` is set.
    fn is_deleting(&self) -> bool;
    /// Calls `visit` with each label.
    fn each_label(&self, visit: &mut dyn FnMut(&str, &str));
    /// Drops what no reader may depend on, once, before the object is stored.
    fn trim(&mut self) {}
    /// Name of the form, on status pages and in metrics.
    #[must_use]
    fn form() -> &'static str {
        let name = std::any::type_name::<Self>();
        name.rsplit("::").next().unwrap_or(name)
    }
}

/// A cached form that belongs to one kind known at compile time.
pub trait Typed: Cached {
    /// The kind it is read as.
    fn kind() -> Kind;
}

/// A form that holds everything the server sent, so that it may be written back with PUT.
/// Projections never implement it: the compiler refuses to write them.
pub trait Whole: Typed + Serialize + Clone {
    /// The object's metadata.
    fn metadata(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
}

/// Whether objects of a scope live in namespaces.
pub trait Scoped {
    /// True for namespaced kinds.
    const NAMESPACED: bool;
}

impl Scoped for NamespaceResourceScope {
    const NAMESPACED: bool = true;
}

impl Scoped for ClusterResourceScope {
    const NAMESPACED: bool = false;
}

impl<K> Cached for K
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + Send + Sync + 'static,
{
    fn key(&self) -> ObjectKey {
        let meta = self.meta();
        ObjectKey::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }

    fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }

    fn resource_version(&self) -> &str {
        self.meta().resource_version.as_deref().unwrap_or_default()
    }

    fn is_deleting(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }

    fn each_label(&self, visit: &mut dyn FnMut(&str, &str)) {
        for (key, value) in self.meta().labels.iter().flatten() {
            visit(key, value);
        }
    }

    fn trim(&mut self) {
        self.meta_mut().managed_fields = None;
    }
}

impl<K> Typed for K
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + Send + Sync + 'static,
    K::Scope: Scoped,
{
    fn kind() -> Kind {
        Kind {
            group: K::group(&()).into_owned().into(),
            version: K::version(&()).into_owned().into(),
            kind: <K as kube::Resource>::kind(&()).into_owned().into(),
            plural: K::plural(&()).into_owned().into(),
            namespaced: <K::Scope as Scoped>::NAMESPACED,
        }
    }
}

impl<K> Whole for K
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + Serialize + Clone + Send + Sync + 'static,
    K::Scope: Scoped,
{
    fn metadata(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        self.meta()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, Pod};
    use k8s_openapi::api::discovery::v1::EndpointSlice;

    use super::*;

    #[test]
    fn paths_follow_the_api_conventions() {
        let slices = Kind::of::<EndpointSlice>();
        assert_eq!(slices.path(None), "/apis/discovery.k8s.io/v1/endpointslices");
        assert_eq!(slices.path(Some("a")), "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices");
        assert_eq!(Kind::of::<Node>().object_path(&ObjectKey::cluster("n1")), "/api/v1/nodes/n1");
        assert_eq!(Kind::of::<Pod>().object_path(&ObjectKey::new("a", "p")), "/api/v1/namespaces/a/pods/p");
        assert_eq!(slices.to_string(), "endpointslices.discovery.k8s.io");
        assert_eq!(slices.api_version(), "discovery.k8s.io/v1");
        assert_eq!(Kind::of::<Pod>().api_version(), "v1");
    }
}
