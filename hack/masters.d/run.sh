# `hack/masters run`: makes the site, starts the masters, brings quarterdeck to
# them, and then does what kill, cut and heal ask for. Sourced by hack/masters.
#
# Whatever ends this process ends everything: each master and the site are
# children that the kernel kills with it, and with the first process of a set of
# namespaces goes all that is in them.

# How long each step may take on a loaded machine, in seconds.
SERVERS_READY=300
PODS_READY=300

declare -A pids=()
site=""

run() {
  check_machine
  ours "$dir"
  gather
  mkdir -p "$dir"
  exec 6>>"$dir/lock"
  flock -n 6 || die "masters run in $dir already (hack/masters status --dir $dir)"
  take_lock
  # The wait for others is not ours.
  SECONDS=0
  clear_cgroups "$NODE_GROUPS"
  # A run starts from nothing.
  find "$dir" -mindepth 1 -maxdepth 1 ! -name lock ! -name run.log -exec rm -rf {} +
  echo $$ >"$dir/pid"
  trap 'exit 143' TERM INT HUP
  trap end EXIT
  mkfifo -m 600 "$dir/control"
  exec 7<>"$dir/control"

  write_all
  make_places /var/lib/kubelet /var/lib/containerd /var/lib/cni /var/lib/quarterdeck /var/log/pods /var/log/containers \
    /etc/kubernetes /etc/cni
  start_site
  local n
  for n in $(seq "$masters"); do start_master "$n"; done
  until_servers_are_ready
  bring_nodes
  [ -n "$bare" ] || bring_quarterdeck
  touch "$dir/go"
  until_nodes_are_there
  [ -n "$bare" ] || until_quarterdeck_leads
  date -u +%FT%TZ >"$dir/ready"
  say "the masters are ready after $SECONDS s"
  serve
}

# check_machine: ends with what this machine lacks.
check_machine() {
  local tool
  [ "$(id -u)" = 0 ] || die "masters need root: namespaces, mounts and cgroups are their own"
  [ -d /sys/fs/cgroup/memory ] || die "masters need cgroups of version 1 (/sys/fs/cgroup/memory is not there)"
  for tool in unshare:util-linux nsenter:util-linux setpriv:util-linux flock:util-linux mount:mount ip:iproute2 \
    hostname:hostname openssl:openssl tar:tar; do
    need "${tool%%:*}" "install ${tool#*:}"
  done
  grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || die "this kernel has no overlayfs, which containers need"
  unshare --net true 2>/dev/null || die "this process may make no network namespaces (CAP_SYS_ADMIN)"
  unshare --net ip link add probe type bridge 2>/dev/null || die "this kernel has no bridges (CONFIG_BRIDGE)"
  unshare --net ip link add probe type veth peer name other 2>/dev/null || die "this kernel has no veth links (CONFIG_VETH)"
}

# gather: programs and images.
gather() {
  # A build ends with us.
  bin="$(setpriv --pdeathsig TERM "$ROOT/hack/cluster" bin --with masters)" || die "the programs of masters are not to be had (the lines above)"
  # Links would lead elsewhere in another root.
  parts="$(readlink -f "$bin/node")" master_parts="$(readlink -f "$bin/masters")"
  unshare --net env LD_LIBRARY_PATH="$parts/lib" "$parts/bin/nft" add table ip probe 2>/dev/null \
    || die "this kernel has no nftables (CONFIG_NF_TABLES), which kube-proxy needs"
  if [ -z "$program" ]; then
    need cargo "install Rust through rustup (https://rustup.rs), or give --program FILE"
    (cd "$ROOT" && exec setpriv --pdeathsig TERM cargo build --quiet --locked --package quarterdeck >&2) || die "quarterdeck cannot be built (the lines above)"
    program="$(readlink -m "${CARGO_TARGET_DIR:-$ROOT/target}")/debug/quarterdeck"
  fi
  [ -x "$program" ] || die "$program is no program"
  [ -n "$image$bare" ] || wrap_program
  image_name=""
  if [ -n "$image" ]; then
    image_name="$(tar -xOf "$image" index.json | grep -o '"io.containerd.image.name":"[^"]*"' | head -n 1 | cut -d '"' -f 4)" || true
    [ -n "$image_name" ] || die "$image: its index.json names no image; is it an OCI archive of hack/image?"
  fi
  kcm_controllers="$("$program" --print-kcm-controllers)" || die "$program --print-kcm-controllers did not end well"
}

# wrap_program: the image of the program, unless it was made of this very file.
wrap_program() {
  local made_of
  image="$(readlink -m "${CARGO_TARGET_DIR:-$ROOT/target}")/image/masters.tar"
  made_of="$(stat -c '%n %s %Y' "$program") $(git -C "$ROOT" rev-parse HEAD 2>/dev/null || true)"
  [ ! -s "$image" ] || [ "$(cat "$image.of" 2>/dev/null)" != "$made_of" ] || return 0
  rm -f "$image.of"
  setpriv --pdeathsig TERM "$ROOT/hack/image" --debug --program "$program" --out "$image" >/dev/null || die "hack/image --debug did not end well"
  echo "$made_of" >"$image.of"
}

write_all() {
  local n
  umask 077
  make_pki
  umask 022
  write_site
  printf '%s\n' "$parts/images.tar" "$master_parts/coredns.tar" ${image:+"$image"} >"$dir/images"
  for n in $(seq "$masters"); do
    mkdir -p "$dir/$n"
    write_master "$n"
    umask 077
    make_master_pki "$n"
    umask 022
    phase "$n" waiting
  done
  cp -p "$dir/1/admin.conf" "$dir/admin.conf"
}

# start_site: a network namespace with a bridge, and a link from it to this machine.
start_site() {
  local group="$NODE_GROUPS$$-site" try n
  # Left by masters whose end was not clean; the kernel takes a moment to drop one.
  ip link delete "$MACHINE_LINK" 2>/dev/null || true
  make_cgroups "$group"
  (
    exec 6>&- 7>&-
    enter_cgroups "$group"
    exec setpriv --pdeathsig KILL unshare --net bash -euc "
      ip link set lo up
      ip link add name qd-bridge address 02:71:64:00:00:fe type bridge
      ip address add $SITE_ADDRESS/24 dev qd-bridge
      ip link set dev qd-bridge up
      echo 1 >/proc/sys/net/ipv4/ip_forward
      touch '$dir/site'
      exec sleep infinity"
  ) 2>"$dir/site.log" &
  site=$!
  until [ -e "$dir/site" ]; do
    kill -0 "$site" 2>/dev/null || die "the site has no network: $(cat "$dir/site.log")"
    sleep 0.05
  done
  echo "$site" >"$dir/site"
  for try in $(seq 100); do
    ip link add "$MACHINE_LINK" type veth peer name qd-machine netns "$site" 2>"$dir/site.log" && break
    [ "$try" -lt 100 ] || die "no link to the masters: $(cat "$dir/site.log")"
    sleep 0.1
  done
  at_site ip link set dev qd-machine master qd-bridge up
  ip address add "$MACHINE_ADDRESS/24" dev "$MACHINE_LINK"
  ip link set "$MACHINE_LINK" up
  for n in $(seq "$masters"); do ip route replace "$(pods_of "$n")" via "$(address_of "$n")" dev "$MACHINE_LINK"; done
}

# at_site COMMAND...: in the site's network.
at_site() { nsenter --net="/proc/$site/ns/net" "$@"; }

# start_master N
start_master() {
  local n="$1" group="$NODE_GROUPS$$-$1"
  make_cgroups "$group"
  (
    exec 6>&- 7>&- 8<"/proc/$site/ns/net"
    enter_node "$group" bash "$pieces/init" "$dir" "$n"
  ) >>"$dir/$n/master.log" 2>&1 &
  pids[$n]=$!
  phase "$n" alive
}

# kill_master N [PHASE]: all its processes at once.
kill_master() {
  local n="$1" pid="${pids[$1]:-}"
  [ -n "$pid" ] || return 0
  rm -f "$dir/$n/pid"
  phase "$n" "${2:-killed}"
  kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  unset "pids[$n]"
  # The kernel takes its time to drop a network; the next one of this master needs the link's name.
  at_site ip link delete "qd-$n" 2>/dev/null || true
  clear_cgroups_soon "$NODE_GROUPS$$-$n" || say "master $n: its cgroups are in use after 10 s"
}

# end: on leaving, whatever the reason.
end() {
  local code=$? n
  trap '' TERM INT HUP
  set +e
  rm -f "$dir/ready" "$dir/control"
  for n in "${!pids[@]}" site; do
    kill -KILL "${pids[$n]:-$site}" 2>/dev/null
  done
  # The shell would tell of each that it was killed.
  wait 2>/dev/null
  for n in "${!pids[@]}"; do phase "$n" ended; done
  clear_cgroups_soon "$NODE_GROUPS$$" || say "cgroups are in use after 10 s: $(cgroups_left "$NODE_GROUPS$$" | tr '\n' ' ')"
  remove_places
  rm -f "$dir/pid" "$dir/site"
  exit "$code"
}

# check_masters: ends with the logs of a master that has ended by itself.
check_masters() {
  local n
  kill -0 "$site" 2>/dev/null || die "the site's process has ended"
  for n in "${!pids[@]}"; do
    kill -0 "${pids[$n]}" 2>/dev/null && continue
    phase "$n" ended
    tail -n 5 "$dir/$n/master.log" >&2
    die "master $n has ended (the lines above; $dir/$n has its logs)"
  done
}

# until_true LIMIT WHAT LOG COMMAND...: waits for it, as long as all masters live.
until_true() {
  local limit="$1" what="$2" log="$3" start="$SECONDS" words
  shift 3
  until words="$("$@" 2>&1)"; do
    check_masters
    if [ $((SECONDS - start)) -ge "$limit" ]; then
      tail -n 5 "$log" | cut -c 1-300 >&2 || true
      kubectl_at 1 get pods --all-namespaces >&2 || true
      die "$what: not within $limit s: ${words##*$'\n'} (see $log)"
    fi
    sleep 0.3
  done
}

# kubectl_at N ARGS...
kubectl_at() {
  local n="$1"
  shift
  "$bin/kubectl" --kubeconfig="$dir/$n/admin.conf" --cache-dir="$dir/kubectl-cache" --request-timeout=10s "$@"
}

until_servers_are_ready() {
  local n
  for n in $(seq "$masters"); do
    until_true "$SERVERS_READY" "the server of master $n is ready" "$dir/$n/kube-apiserver.log" kubectl_at "$n" get --raw /readyz
  done
}

# bring_nodes: before their kubelets come, so that the range of pods is the one of their number. What
# they can hold is told for the kubelets: until the server says so, they refuse static pods, and for good.
bring_nodes() {
  local n room log="$dir/1/kube-apiserver.log"
  room="{\"cpu\": \"$(nproc)\", \"memory\": \"$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)Ki\", \"pods\": \"110\"}"
  for n in $(seq "$masters"); do
    until_true 60 "the node $(name_of "$n")" "$log" kubectl_at 1 apply --server-side -f "$dir/$n/node.json"
    until_true 60 "the node $(name_of "$n")" "$log" kubectl_at 1 patch node "$(name_of "$n")" --subresource=status --type=merge \
      -p "{\"status\": {\"capacity\": $room, \"allocatable\": $room}}"
  done
}

# bring_quarterdeck: what the server needs, each master's folder, addons, and the manifest.
bring_quarterdeck() {
  local n words
  for n in $(seq "$masters"); do
    words="$("$program" install --kubeconfig="$dir/$n/admin.conf" --config-dir="$dir/$n/quarterdeck" --state-dir="$dir/$n/state" \
      --config-server=https://127.0.0.1:6443 --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" 2>&1)" \
      || die "quarterdeck install for master $n: $words"
    printf '%s\n' "$words" >"$dir/$n/install.log"
    cp "$pieces"/addons/*.yaml "$dir/$n/addons/"
    chmod -R a+rX "$dir/$n/addons"
    manifest >"$dir/$n/.quarterdeck.yaml"
    mv -f "$dir/$n/.quarterdeck.yaml" "$dir/$n/manifests/quarterdeck.yaml"
  done
}

# manifest: that of deploy/static-pod, with our image and our arguments.
manifest() {
  local arg line controllers
  # The Go manager has its Lease, so what it leaves to us has to be named.
  controllers="$(tr , '\n' <<<"$kcm_controllers" | sed 's/^-//' | paste -sd, -)"
  while IFS= read -r line; do
    case "$line" in
      *"image: "*) printf '%s\n' "${line%%image: *}image: $image_name" ;;
      *"- --addon-path="*)
        printf '%s\n' "$line"
        for arg in "--controllers=$controllers" ${extra[@]+"${extra[@]}"}; do
          printf "%s- '%s'\n" "${line%%- *}" "${arg//\'/\'\'}"
        done
        ;;
      *) printf '%s\n' "$line" ;;
    esac
  done <"$ROOT/deploy/static-pod/quarterdeck.yaml"
}

# until_nodes_are_there: their kubelets have spoken; with a network they are ready.
until_nodes_are_there() {
  local n path='{.status.nodeInfo.kubeletVersion}'
  for n in $(seq "$masters"); do
    until_true "$PODS_READY" "the kubelet of master $n" "$dir/$n/kubelet.log" says "$n" "$path" get node "$(name_of "$n")"
    [ -n "$bare" ] && continue
    path='{.status.conditions[?(@.type=="Ready")].status}'
    until_true "$PODS_READY" "the node of master $n is ready" "$dir/$n/kubelet.log" is "$n" True "$path" get node "$(name_of "$n")"
  done
}

# until_quarterdeck_leads: a ready pod on each master, one of them leads, and DNS answers.
until_quarterdeck_leads() {
  local n log
  for n in $(seq "$masters"); do
    log="$dir/$n/kubelet.log"
    until_true "$PODS_READY" "quarterdeck's pod on master $n is ready" "$log" \
      is "$n" True '{.status.conditions[?(@.type=="Ready")].status}' -n kube-system get pod "quarterdeck-$(name_of "$n")"
  done
  until_true "$PODS_READY" "quarterdeck leads" "$log" says 1 '{.spec.holderIdentity}' -n kube-system get lease quarterdeck
  until_true "$PODS_READY" "DNS is there" "$log" says 1 '{.items[*].endpoints[?(@.conditions.ready==true)].addresses[0]}' \
    -n kube-system get endpointslices -l kubernetes.io/service-name=kube-dns
}

# says N PATH ARGS...: is there anything at PATH?
says() {
  local n="$1" path="$2" found
  shift 2
  found="$(kubectl_at "$n" "$@" -o jsonpath="$path" 2>&1)" || { echo "$found" && return 1; }
  [ -n "$found" ] || { echo "$path is empty" && return 1; }
}

# is N VALUE PATH ARGS...
is() {
  local n="$1" value="$2" path="$3" found
  shift 3
  found="$(kubectl_at "$n" "$@" -o jsonpath="$path" 2>&1)" || { echo "$found" && return 1; }
  [ "$found" = "$value" ] || { echo "$path is ${found:-empty}" && return 1; }
}

# serve: what kill, cut and heal ask for, a line each: COMMAND N ANSWER.
serve() {
  local what n answer words
  while :; do
    if ! read -r -t 2 what n answer <&7; then
      look_after_masters
      continue
    fi
    if words="$(refusal "$what" "$n")"; then
      "ask_$what" "$n"
      words=ok
    fi
    point_admin_conf
    [ -z "$answer" ] || { echo "$words" >"$answer.part" && mv -f "$answer.part" "$answer"; }
  done
}

# refusal COMMAND N: succeeds when it can be done, or says why not.
refusal() {
  local what="$1" n="$2" now
  if ! [[ "$n" =~ ^[1-9]$ ]] || [ "$n" -gt "$masters" ]; then
    echo "there is no master $n" && return 1
  fi
  now="$(phase "$n")"
  case "$what:$now" in
    kill:alive | kill:cut | cut:alive | heal:*) ;;
    *) echo "master $n is $now" && return 1 ;;
  esac
}

ask_kill() { kill_master "$1"; }

ask_cut() {
  at_site ip link set "qd-$1" down
  phase "$1" cut
}

ask_heal() {
  case "$(phase "$1")" in
    cut)
      at_site ip link set "qd-$1" up
      phase "$1" alive
      ;;
    killed | ended) start_master "$1" ;;
  esac
}

# look_after_masters: says when one has ended by itself.
look_after_masters() {
  local n
  kill -0 "$site" 2>/dev/null || die "the site's process has ended"
  for n in "${!pids[@]}"; do
    kill -0 "${pids[$n]}" 2>/dev/null && continue
    say "master $n has ended by itself; $dir/$n/master.log ends with: $(tail -n 1 "$dir/$n/master.log")"
    kill_master "$n" ended
    point_admin_conf
  done
}

# point_admin_conf: has DIR/admin.conf lead to a master that is neither dead nor cut off.
point_admin_conf() {
  local n
  for n in $(seq "$masters"); do
    [ "$(phase "$n")" = alive ] || continue
    cmp -s "$dir/$n/admin.conf" "$dir/admin.conf" && return
    cp -p "$dir/$n/admin.conf" "$dir/.admin.conf"
    mv -f "$dir/.admin.conf" "$dir/admin.conf"
    return
  done
}
