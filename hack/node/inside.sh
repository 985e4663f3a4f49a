# Steps of the first process of a node, in its namespaces; file 9 is the lock.
# Sourced by hack/node/init and hack/masters.d/init, which set `folder` (the
# node's state), `parts` (its programs) and have `fail`.

# own_views NAME: the other namespaces; what /proc and /sys show depends on them.
own_views() {
  local controllers target options
  hostname "$1"
  mount --make-rshared /
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
  while IFS=: read -r _ controllers _; do
    case "$controllers" in
      "") continue ;;
      name=*) target="${controllers#name=}" options="none,$controllers" ;;
      *) target="$controllers" options="$controllers" ;;
    esac
    mkdir "/sys/fs/cgroup/$target"
    mount -t cgroup -o "$options" "$target" "/sys/fs/cgroup/$target"
  done </proc/self/cgroup
}

# bind PLACE NAME: has a folder of the node's own take the place of the machine's.
bind() {
  mkdir -p "$folder/$2"
  mount --bind "$folder/$2" "$1"
  mount --make-rshared "$1"
}

# own_folders: where kubelet and containerd keep what is theirs.
own_folders() {
  bind /var/lib/kubelet kubelet
  bind /var/lib/containerd containerd
  bind /var/log/pods pods
  bind /var/log/containers containers
  bind /var/lib/cni cni-state
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/containerd
}

# pretend_settings: a kubelet sets these for the whole machine; it may think it does.
pretend_settings() {
  local setting file
  for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops; do
    file="$folder/sysctl-${setting//\//-}"
    cat "/proc/sys/$setting" >"$file"
    mount --bind "$file" "/proc/sys/$setting"
  done
}

# outside COMMAND...: runs it in the network that file 8 is.
outside() { nsenter --net=/proc/self/fd/8 "$@"; }

# link_outside NAME: a link whose other end, NAME, is in the network that file 8 is. Ends with this namespace.
link_outside() {
  local try
  ip link set lo up
  for try in $(seq 100); do
    # The kernel may still be dropping the one of before.
    outside ip link add "$1" type veth peer name eth0 netns 1 2>"$folder/link.log" && return
    sleep 0.1
  done
  fail "no network link: $(cat "$folder/link.log")"
}

# start_containerd: in the background, until it answers. The lock is the first process's: a daemon must not hold it longer.
start_containerd() {
  containerd --config "$folder/containerd.toml" >>"$folder/containerd.log" 2>&1 9>&- &
  containerd=$!
  until ctr version >/dev/null 2>&1; do
    kill -0 "$containerd" 2>/dev/null || fail "containerd ended; see $folder/containerd.log"
    sleep 0.1
  done
}

# import_images ARCHIVE...
import_images() {
  local archive
  for archive in "$@"; do
    ctr --namespace k8s.io images import "$archive" >>"$folder/import.log" 2>&1 9>&- \
      || fail "the images of $archive cannot be imported: $(cat "$folder/import.log")"
  done
}
