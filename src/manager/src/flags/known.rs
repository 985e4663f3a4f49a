//! Flags of kube-controller-manager and cloud-controller-manager that this build has no use for but
//! accepts with a warning, so that an existing manifest starts.
//!
//! A flag that some controller of this build defines is that controller's; the table is asked only
//! for what is left. Names and kinds: `kube-controller-manager --help`, v1.36.3, and its history.

/// Why a flag has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacks {
    /// It tunes a controller that this build does not have.
    Controller(&'static str),
    /// It tunes a feature that this build does not have.
    Feature(&'static str),
    /// Upstream gave it no effect either.
    Effect,
    /// Upstream removed it in a past release.
    Retired,
}

/// A flag that is accepted and ignored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownFlag {
    /// Name without dashes.
    pub(crate) name: &'static str,
    /// Whether it may stand without a value.
    pub(crate) switch: bool,
    /// Why it has no effect.
    pub(crate) lacks: Lacks,
}

impl KnownFlag {
    /// What to tell the operator who gave it.
    pub(crate) fn warning(&self) -> String {
        let name = self.name;
        match self.lacks {
            Lacks::Controller(controller) => {
                format!("--{name} has no effect: it belongs to {controller}, which this build does not have")
            }
            Lacks::Feature(feature) => format!("--{name} has no effect: this build does not have {feature}"),
            Lacks::Effect => format!("--{name} has no effect, here or in kube-controller-manager; remove it"),
            Lacks::Retired => format!("--{name} has no effect: kube-controller-manager removed it; remove it here too"),
        }
    }
}

const fn value(name: &'static str, lacks: Lacks) -> KnownFlag {
    KnownFlag { name, switch: false, lacks }
}

const fn switch(name: &'static str, lacks: Lacks) -> KnownFlag {
    KnownFlag { name, switch: true, lacks }
}

/// The flag of this name, if it is one to accept and ignore.
pub(crate) fn find(name: &str) -> Option<&'static KnownFlag> {
    CURRENT.iter().chain(RETIRED).find(|flag| flag.name == name)
}

/// Names of the flags that upstream still has, for suggestions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    CURRENT.iter().map(|flag| flag.name)
}

/// What upstream has today.
pub(crate) const CURRENT: &[KnownFlag] = &[
    switch("allocate-node-cidrs", Lacks::Controller("node-ipam-controller")),
    value("allow-metric-labels", Lacks::Feature("allow-lists of metric labels")),
    value("allow-metric-labels-manifest", Lacks::Feature("allow-lists of metric labels")),
    switch("allow-untagged-cloud", Lacks::Feature("built-in cloud providers")),
    value("attach-detach-reconcile-sync-period", Lacks::Controller("persistentvolume-attach-detach-controller")),
    value("cidr-allocator-type", Lacks::Controller("node-ipam-controller")),
    value("cloud-config", Lacks::Feature("built-in cloud providers")),
    value("cloud-provider", Lacks::Feature("built-in cloud providers")),
    value("cluster-cidr", Lacks::Controller("node-ipam-controller")),
    value("cluster-name", Lacks::Controller("service-lb-controller")),
    value("cluster-signing-cert-file", Lacks::Controller("certificatesigningrequest-signing-controller")),
    value("cluster-signing-duration", Lacks::Controller("certificatesigningrequest-signing-controller")),
    value("cluster-signing-key-file", Lacks::Controller("certificatesigningrequest-signing-controller")),
    value(
        "cluster-signing-kube-apiserver-client-cert-file",
        Lacks::Controller("certificatesigningrequest-signing-controller"),
    ),
    value(
        "cluster-signing-kube-apiserver-client-key-file",
        Lacks::Controller("certificatesigningrequest-signing-controller"),
    ),
    value(
        "cluster-signing-kubelet-client-cert-file",
        Lacks::Controller("certificatesigningrequest-signing-controller"),
    ),
    value("cluster-signing-kubelet-client-key-file", Lacks::Controller("certificatesigningrequest-signing-controller")),
    value(
        "cluster-signing-kubelet-serving-cert-file",
        Lacks::Controller("certificatesigningrequest-signing-controller"),
    ),
    value(
        "cluster-signing-kubelet-serving-key-file",
        Lacks::Controller("certificatesigningrequest-signing-controller"),
    ),
    value(
        "cluster-signing-legacy-unknown-cert-file",
        Lacks::Controller("certificatesigningrequest-signing-controller"),
    ),
    value("cluster-signing-legacy-unknown-key-file", Lacks::Controller("certificatesigningrequest-signing-controller")),
    value("concurrent-cron-job-syncs", Lacks::Controller("cronjob-controller")),
    value("concurrent-daemonset-syncs", Lacks::Controller("daemonset-controller")),
    value("concurrent-deployment-syncs", Lacks::Controller("deployment-controller")),
    value("concurrent-device-taint-eviction-syncs", Lacks::Controller("device-taint-eviction-controller")),
    value("concurrent-endpoint-syncs", Lacks::Controller("endpoints-controller")),
    value("concurrent-ephemeralvolume-syncs", Lacks::Controller("ephemeral-volume-controller")),
    value("concurrent-gc-syncs", Lacks::Controller("garbage-collector-controller")),
    value("concurrent-horizontal-pod-autoscaler-syncs", Lacks::Controller("horizontal-pod-autoscaler-controller")),
    value("concurrent-job-syncs", Lacks::Controller("job-controller")),
    value("concurrent-namespace-syncs", Lacks::Controller("namespace-controller")),
    value("concurrent-node-status-updates", Lacks::Controller("cloud-node-controller")),
    value("concurrent-node-syncs", Lacks::Controller("cloud-node-controller")),
    value("concurrent-rc-syncs", Lacks::Controller("replicationcontroller-controller")),
    value("concurrent-replicaset-syncs", Lacks::Controller("replicaset-controller")),
    value("concurrent-resource-quota-syncs", Lacks::Controller("resourcequota-controller")),
    value("concurrent-resourceclaim-syncs", Lacks::Controller("resourceclaim-controller")),
    value("concurrent-service-endpoint-syncs", Lacks::Controller("endpointslice-controller")),
    value("concurrent-service-syncs", Lacks::Controller("service-lb-controller")),
    value("concurrent-serviceaccount-token-syncs", Lacks::Controller("serviceaccount-token-controller")),
    value("concurrent-statefulset-syncs", Lacks::Controller("statefulset-controller")),
    value("concurrent-ttl-after-finished-syncs", Lacks::Controller("ttl-after-finished-controller")),
    value(
        "concurrent-validating-admission-policy-status-syncs",
        Lacks::Controller("validatingadmissionpolicy-status-controller"),
    ),
    switch("configure-cloud-routes", Lacks::Controller("node-route-controller")),
    switch("contention-profiling", Lacks::Feature("profiling of lock contention")),
    switch("disable-attach-detach-reconcile-sync", Lacks::Controller("persistentvolume-attach-detach-controller")),
    switch("disable-force-detach-on-timeout", Lacks::Controller("persistentvolume-attach-detach-controller")),
    value("emulated-version", Lacks::Feature("emulation of other versions")),
    switch("enable-dynamic-provisioning", Lacks::Controller("persistentvolume-binder-controller")),
    switch("enable-garbage-collector", Lacks::Controller("garbage-collector-controller")),
    switch("enable-hostpath-provisioner", Lacks::Controller("persistentvolume-binder-controller")),
    switch("enable-leader-migration", Lacks::Feature("leader migration")),
    value("endpoint-updates-batch-period", Lacks::Controller("endpoints-controller")),
    value("endpointslice-updates-batch-period", Lacks::Controller("endpointslice-controller")),
    value("external-cloud-volume-plugin", Lacks::Feature("volume controllers")),
    value("feature-gates", Lacks::Feature("feature gates")),
    value("flex-volume-plugin-dir", Lacks::Controller("persistentvolume-binder-controller")),
    value(
        "horizontal-pod-autoscaler-cpu-initialization-period",
        Lacks::Controller("horizontal-pod-autoscaler-controller"),
    ),
    value(
        "horizontal-pod-autoscaler-downscale-stabilization",
        Lacks::Controller("horizontal-pod-autoscaler-controller"),
    ),
    value(
        "horizontal-pod-autoscaler-initial-readiness-delay",
        Lacks::Controller("horizontal-pod-autoscaler-controller"),
    ),
    value("horizontal-pod-autoscaler-sync-period", Lacks::Controller("horizontal-pod-autoscaler-controller")),
    value("horizontal-pod-autoscaler-tolerance", Lacks::Controller("horizontal-pod-autoscaler-controller")),
    value("kube-api-content-type", Lacks::Feature("a choice of content type")),
    value("large-cluster-size-threshold", Lacks::Controller("node-lifecycle-controller")),
    value("leader-migration-config", Lacks::Feature("leader migration")),
    value(
        "legacy-service-account-token-clean-up-period",
        Lacks::Controller("legacy-serviceaccount-token-cleaner-controller"),
    ),
    value("log-flush-frequency", Lacks::Feature("buffered logs")),
    value("log-json-info-buffer-size", Lacks::Feature("buffered logs")),
    switch("log-json-split-stream", Lacks::Feature("split log streams")),
    value("log-text-info-buffer-size", Lacks::Feature("buffered logs")),
    switch("log-text-split-stream", Lacks::Feature("split log streams")),
    value("max-endpoints-per-slice", Lacks::Controller("endpointslice-controller")),
    value("min-compatibility-version", Lacks::Feature("emulation of other versions")),
    value("mirroring-concurrent-service-endpoint-syncs", Lacks::Controller("endpointslice-mirroring-controller")),
    value("mirroring-endpointslice-updates-batch-period", Lacks::Controller("endpointslice-mirroring-controller")),
    value("mirroring-max-endpoints-per-subset", Lacks::Controller("endpointslice-mirroring-controller")),
    value("namespace-sync-period", Lacks::Controller("namespace-controller")),
    value("node-cidr-mask-size", Lacks::Controller("node-ipam-controller")),
    value("node-cidr-mask-size-ipv4", Lacks::Controller("node-ipam-controller")),
    value("node-cidr-mask-size-ipv6", Lacks::Controller("node-ipam-controller")),
    value("node-eviction-rate", Lacks::Controller("node-lifecycle-controller")),
    value("node-monitor-grace-period", Lacks::Controller("node-lifecycle-controller")),
    value("node-monitor-period", Lacks::Controller("cloud-node-lifecycle-controller")),
    value("node-startup-grace-period", Lacks::Controller("node-lifecycle-controller")),
    value("node-status-update-frequency", Lacks::Controller("cloud-node-controller")),
    value("node-sync-period", Lacks::Effect),
    value("pv-recycler-increment-timeout-nfs", Lacks::Controller("persistentvolume-binder-controller")),
    value("pv-recycler-minimum-timeout-hostpath", Lacks::Controller("persistentvolume-binder-controller")),
    value("pv-recycler-minimum-timeout-nfs", Lacks::Controller("persistentvolume-binder-controller")),
    value("pv-recycler-pod-template-filepath-hostpath", Lacks::Controller("persistentvolume-binder-controller")),
    value("pv-recycler-pod-template-filepath-nfs", Lacks::Controller("persistentvolume-binder-controller")),
    value("pv-recycler-timeout-increment-hostpath", Lacks::Controller("persistentvolume-binder-controller")),
    value("pvclaimbinder-sync-period", Lacks::Controller("persistentvolume-binder-controller")),
    value("resource-quota-sync-period", Lacks::Controller("resourcequota-controller")),
    value("root-ca-file", Lacks::Controller("root-ca-certificate-publisher-controller")),
    value("route-reconciliation-period", Lacks::Controller("node-route-controller")),
    value("secondary-node-eviction-rate", Lacks::Controller("node-lifecycle-controller")),
    value("service-account-private-key-file", Lacks::Controller("serviceaccount-token-controller")),
    value("service-cluster-ip-range", Lacks::Controller("node-ipam-controller")),
    value("show-hidden-metrics-for-version", Lacks::Feature("hidden metrics")),
    value("terminated-pod-gc-threshold", Lacks::Controller("pod-garbage-collector-controller")),
    value("unhealthy-zone-threshold", Lacks::Controller("node-lifecycle-controller")),
    value("vmodule", Lacks::Feature("log levels by source file")),
    value("webhook-bind-address", Lacks::Feature("cloud webhooks")),
    value("webhook-cert-dir", Lacks::Feature("cloud webhooks")),
    value("webhook-secure-port", Lacks::Feature("cloud webhooks")),
    value("webhook-tls-cert-file", Lacks::Feature("cloud webhooks")),
    value("webhook-tls-private-key-file", Lacks::Feature("cloud webhooks")),
    value("webhooks", Lacks::Feature("cloud webhooks")),
];

/// What upstream had once; fleet files still carry these.
const RETIRED: &[KnownFlag] = &[
    switch("add-dir-header", Lacks::Retired),
    value("address", Lacks::Retired),
    switch("alsologtostderr", Lacks::Retired),
    value("azure-container-registry-config", Lacks::Retired),
    value("cloud-provider-gce-l7lb-src-cidrs", Lacks::Retired),
    value("cloud-provider-gce-lb-src-cidrs", Lacks::Retired),
    value("deleting-pods-burst", Lacks::Retired),
    value("deleting-pods-qps", Lacks::Retired),
    value("deployment-controller-sync-period", Lacks::Retired),
    switch("enable-taint-manager", Lacks::Retired),
    value("experimental-cluster-signing-duration", Lacks::Retired),
    switch("experimental-logging-sanitization", Lacks::Retired),
    value("google-json-key", Lacks::Retired),
    value("horizontal-pod-autoscaler-downscale-delay", Lacks::Retired),
    value("horizontal-pod-autoscaler-upscale-delay", Lacks::Retired),
    switch("horizontal-pod-autoscaler-use-rest-clients", Lacks::Retired),
    value("insecure-experimental-approve-all-kubelet-csrs-for-group", Lacks::Retired),
    value("log-backtrace-at", Lacks::Retired),
    value("log-dir", Lacks::Retired),
    value("log-file", Lacks::Retired),
    value("log-file-max-size", Lacks::Retired),
    switch("logtostderr", Lacks::Retired),
    switch("one-output", Lacks::Retired),
    value("pod-eviction-timeout", Lacks::Retired),
    value("port", Lacks::Retired),
    value("register-retry-count", Lacks::Retired),
    value("replication-controller-sync-period", Lacks::Retired),
    value("service-sync-period", Lacks::Retired),
    switch("skip-headers", Lacks::Retired),
    switch("skip-log-headers", Lacks::Retired),
    value("stderrthreshold", Lacks::Retired),
    switch("volume-host-allow-local-loopback", Lacks::Retired),
    value("volume-host-cidr-denylist", Lacks::Retired),
];
