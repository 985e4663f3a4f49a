//! The controllers of kube-controller-manager and cloud-controller-manager 1.36: their names,
//! aliases and defaults.
//!
//! From kubernetes:cmd/kube-controller-manager/names, …/app/*.go (`aliases`), and
//! cloud-provider:names, v1.36.3.

/// Which upstream manager knows a name, and whether it runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// kube-controller-manager runs it.
    Kube,
    /// cloud-controller-manager runs it; kube-controller-manager accepts the name and skips it.
    CloudByName,
    /// cloud-controller-manager runs it; kube-controller-manager refuses the name.
    Cloud,
}

/// A controller that exists upstream.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamController {
    /// Canonical name.
    pub name: &'static str,
    /// Older names.
    pub aliases: &'static [&'static str],
    /// Whether `*` includes it.
    pub enabled_by_default: bool,
    /// Who runs it.
    pub manager: Manager,
}

const fn new(
    name: &'static str,
    aliases: &'static [&'static str],
    enabled_by_default: bool,
    manager: Manager,
) -> UpstreamController {
    UpstreamController { name, aliases, enabled_by_default, manager }
}

const fn kube(name: &'static str, aliases: &'static [&'static str]) -> UpstreamController {
    new(name, aliases, true, Manager::Kube)
}

const fn off(name: &'static str, aliases: &'static [&'static str]) -> UpstreamController {
    new(name, aliases, false, Manager::Kube)
}

const fn cloud(name: &'static str, aliases: &'static [&'static str]) -> UpstreamController {
    new(name, aliases, true, Manager::CloudByName)
}

const fn cloud_only(name: &'static str, aliases: &'static [&'static str]) -> UpstreamController {
    new(name, aliases, true, Manager::Cloud)
}

/// All of them, by name.
pub const UPSTREAM_CONTROLLERS: &[UpstreamController] = &[
    off("bootstrap-signer-controller", &["bootstrapsigner"]),
    kube("certificatesigningrequest-approving-controller", &["csrapproving"]),
    kube("certificatesigningrequest-cleaner-controller", &["csrcleaner"]),
    kube("certificatesigningrequest-signing-controller", &["csrsigning"]),
    cloud_only("cloud-node-controller", &["cloud-node"]),
    cloud("cloud-node-lifecycle-controller", &["cloud-node-lifecycle"]),
    kube("clusterrole-aggregation-controller", &["clusterrole-aggregation"]),
    kube("cronjob-controller", &["cronjob"]),
    kube("daemonset-controller", &["daemonset"]),
    kube("deployment-controller", &["deployment"]),
    kube("device-taint-eviction-controller", &[]),
    kube("disruption-controller", &["disruption"]),
    kube("endpoints-controller", &["endpoint"]),
    kube("endpointslice-controller", &["endpointslice"]),
    kube("endpointslice-mirroring-controller", &["endpointslicemirroring"]),
    kube("ephemeral-volume-controller", &["ephemeral-volume"]),
    kube("garbage-collector-controller", &["garbagecollector"]),
    kube("horizontal-pod-autoscaler-controller", &["horizontalpodautoscaling"]),
    kube("job-controller", &["job"]),
    kube("kube-apiserver-serving-clustertrustbundle-publisher-controller", &[]),
    kube("legacy-serviceaccount-token-cleaner-controller", &["legacy-service-account-token-cleaner"]),
    kube("namespace-controller", &["namespace"]),
    kube("node-ipam-controller", &["nodeipam"]),
    kube("node-lifecycle-controller", &["nodelifecycle"]),
    cloud("node-route-controller", &["route"]),
    kube("persistentvolume-attach-detach-controller", &["attachdetach"]),
    kube("persistentvolume-binder-controller", &["persistentvolume-binder"]),
    kube("persistentvolume-expander-controller", &["persistentvolume-expander"]),
    kube("persistentvolume-protection-controller", &["pv-protection"]),
    kube("persistentvolumeclaim-protection-controller", &["pvc-protection"]),
    kube("pod-garbage-collector-controller", &["podgc"]),
    kube("podcertificaterequest-cleaner-controller", &[]),
    kube("podgroup-protection-controller", &[]),
    kube("replicaset-controller", &["replicaset"]),
    kube("replicationcontroller-controller", &["replicationcontroller"]),
    kube("resourceclaim-controller", &["resource-claim-controller"]),
    kube("resourcepoolstatusrequest-controller", &[]),
    kube("resourcequota-controller", &["resourcequota"]),
    kube("root-ca-certificate-publisher-controller", &["root-ca-cert-publisher"]),
    off("selinux-warning-controller", &[]),
    kube("service-cidr-controller", &[]),
    cloud("service-lb-controller", &["service"]),
    kube("serviceaccount-controller", &["serviceaccount"]),
    kube("serviceaccount-token-controller", &["serviceaccount-token"]),
    kube("statefulset-controller", &["statefulset"]),
    kube("storage-version-migrator-controller", &["svm"]),
    kube("storageversion-garbage-collector-controller", &["storage-version-gc"]),
    kube("taint-eviction-controller", &[]),
    off("token-cleaner-controller", &["tokencleaner"]),
    kube("ttl-after-finished-controller", &["ttl-after-finished"]),
    kube("ttl-controller", &["ttl"]),
    kube("validatingadmissionpolicy-status-controller", &[]),
    kube("volumeattributesclass-protection-controller", &[]),
];
