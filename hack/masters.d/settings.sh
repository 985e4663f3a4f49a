# Settings of a master's programs, as files. Sourced by hack/masters.

# write_site: what holds for all masters.
write_site() {
  cat >"$dir/site.env" <<ENV
MASTERS=$masters
PARTS=$parts
MASTER_PARTS=$master_parts
BIN=$bin
QUARTERDECK=$program
QUARTERDECK_IMAGE=$image_name
SHELL_IMAGE=quarterdeck.dev/node/shell:1
KUBECTL_IMAGE=quarterdeck.dev/node/kubectl:1
SITE_ADDRESS=$SITE_ADDRESS
MACHINE_ADDRESS=$MACHINE_ADDRESS
POD_RANGE=$POD_RANGE
SERVICE_RANGE=$SERVICE_RANGE
DNS_ADDRESS=$DNS_ADDRESS
KCM_CONTROLLERS='$kcm_controllers'
ENV
  # The first rule that fits counts. Writes with bodies, the rest without.
  cat >"$dir/audit-policy.yaml" <<'YAML'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  nonResourceURLs: ["/livez*", "/readyz*", "/healthz*"]
# Who leads, and since which write.
- level: RequestResponse
  verbs: [create, update, patch, delete]
  namespaces: [kube-system]
  resources: [{group: coordination.k8s.io, resources: [leases], resourceNames: [quarterdeck]}]
# The name of one that is made is not known beforehand.
- level: RequestResponse
  verbs: [create]
  namespaces: [kube-system]
  resources: [{group: coordination.k8s.io, resources: [leases]}]
- level: Metadata
  resources:
  - {group: "", resources: [events, secrets, serviceaccounts/token, nodes/status, pods/status]}
  - {group: events.k8s.io, resources: [events]}
  - {group: coordination.k8s.io, resources: [leases]}
  - {group: authentication.k8s.io}
  - {group: authorization.k8s.io}
- level: Metadata
  users: ["system:apiserver"]
- level: RequestResponse
  verbs: [create, update, patch, delete, deletecollection]
  resources: [{group: "*"}]
- level: Metadata
YAML
}

# write_master N
write_master() {
  local n="$1" own="$dir/$1" name address
  name="$(name_of "$n")" address="$(address_of "$n")"
  mkdir -p "$own"/{manifests,addons,quarterdeck,state,cni}
  # Nobody answers for names outside; a refusal comes at once.
  printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' >"$own/resolv.conf"
  cat >"$own/containerd.toml" <<TOML
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$own/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "quarterdeck.dev/node/pause:1"
  # Without CAP_SYS_RESOURCE nobody may lower it.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$parts/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "$parts/bin/runc"
        SystemdCgroup = false
TOML
  cat >"$own/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: /etc/kubernetes/manifests
# Beside the notices of the kernel, which come at once.
fileCheckFrequency: 2s
syncFrequency: 10s
failCgroupV1: false
cgroupDriver: cgroupfs
failSwapOn: false
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $pki/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: $own/pki/kubelet.crt
tlsPrivateKeyFile: $own/pki/kubelet.key
clusterDomain: cluster.local
clusterDNS: [$DNS_ADDRESS]
resolvConf: $own/resolv.conf
volumePluginDir: $own/volume-plugins
# The disk is the machine's: how full it is, is none of a test's business.
evictionHard: {memory.available: 10Mi, nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
# Images are here once and cannot be had again.
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
YAML
  cat >"$own/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: $name
clusterCIDR: $POD_RANGE
clientConnection: {kubeconfig: $own/kube-proxy.conf}
bindAddress: 0.0.0.0
# Limits of the machine's connection tracking are the machine's.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
  cat >"$own/node.json" <<JSON
{"apiVersion": "v1", "kind": "Node",
 "metadata": {"name": "$name", "labels": {"kubernetes.io/hostname": "$name", "kubernetes.io/os": "linux",
   "node-role.kubernetes.io/control-plane": "", "quarterdeck.dev/node": "real"}},
 "spec": {"podCIDR": "$(pods_of "$n")", "podCIDRs": ["$(pods_of "$n")"]}}
JSON
}
