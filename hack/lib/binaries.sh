# Builds the control plane's programs into the user's cache. Sourced by
# hack/cluster; needs lib/common.sh.
#
# A program appears under its name only when it is whole (built under another
# name, then renamed), and a stamp beside it holds its size; whatever does not
# fit its stamp is built anew. One lock a folder keeps callers apart.

KUBERNETES_VERSION=v1.36.3

# Version as the server reports it: Go modules carry no such stamp, and without
# one /version says v0.0.0.
version_flags() {
  local package
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    printf -- '-X %s.gitVersion=%s -X %s.gitMajor=1 -X %s.gitMinor=36 -X %s.gitTreeState=clean ' \
      "$package" "$KUBERNETES_VERSION" "$package" "$package" "$package"
  done
}

LDFLAGS="-s -w $(version_flags)"

source "$ROOT/hack/lib/node.sh"
source "$ROOT/hack/lib/masters.sh"
source "$ROOT/hack/lib/plugins.sh"

# package_of PROGRAM: the Go package to build.
package_of() {
  case "$1" in
    etcd) echo go.etcd.io/etcd/server/v3 ;;
    kwok) echo sigs.k8s.io/kwok/cmd/kwok ;;
    cloud-shim) echo ./fake ;;
    cloud-peer | coredns) echo . ;;
    helm) echo helm.sh/helm/v3/cmd/helm ;;
    *) echo "k8s.io/kubernetes/cmd/$1" ;;
  esac
}

# module_of PROGRAM: the folder with the go.mod that pins it.
module_of() {
  case "$1" in
    kwok) echo "$ROOT/hack/kwok" ;;
    kubelet | kube-proxy) echo "$ROOT/hack/node" ;;
    cloud-shim | cloud-peer | coredns | helm) echo "$ROOT/hack/$1" ;;
    *) echo "$ROOT/hack/controlplane" ;;
  esac
}

# Folder of this set of versions and build flags.
bin_dir() {
  local key
  key="$(
    {
      cat "$ROOT"/hack/{controlplane,kwok}/go.{mod,sum}
      echo "$LDFLAGS $(uname -sm)"
    } | sha256sum | cut -c1-16
  )"
  echo "${XDG_CACHE_HOME:-$HOME/.cache}/quarterdeck/bin/$KUBERNETES_VERSION-$key"
}

# whole FILE: is it there, runnable (programs), and of the size in its stamp?
whole() {
  [ -s "$1" ] && [ -s "$1.size" ] && [ "$(stat -c %s "$1")" = "$(cat "$1.size")" ]
}

# publish TEMPORARY FILE: gives a finished file its name.
publish() {
  rm -f "$2" "$2.size"
  stat -c %s "$1" >"$2.size.tmp"
  mv -f "$1" "$2"
  mv -f "$2.size.tmp" "$2.size"
}

# Packages compiled, by a log of `go build -v`, which also names downloads.
compiled() { grep -vc '^go: ' "$1" || true; }

# Says how far a silent `go build -v` (pid $1, its log $2) is, until it ends.
watch_build() {
  local pid="$1" log="$2" name="$3" start="$SECONDS" last=0
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    if [ -t 2 ]; then
      printf '\r  %s: %d packages compiled, %d s ' "$name" "$(compiled "$log")" $((SECONDS - start)) >&2
    elif [ $((SECONDS - start - last)) -ge 15 ]; then
      last=$((SECONDS - start))
      say "  $name: $(compiled "$log") packages compiled, $last s"
    fi
  done
  [ ! -t 2 ] || printf '\r\033[K' >&2
}

# build_program DIR PROGRAM
build_program() {
  local dir="$1" name="$2" start="$SECONDS"
  local temporary="$dir/.tmp.$name" log="$dir/$name.log" pid
  say "building $name (kept in $dir)"
  : >"$log"
  (
    cd "$(module_of "$name")"
    CGO_ENABLED=0 exec go build -v -trimpath -buildvcs=false -ldflags "$LDFLAGS" \
      -o "$temporary" "$(package_of "$name")"
  ) >"$log" 2>&1 9>&- &
  pid=$!
  # An interrupted caller leaves no compiler behind.
  trap 'kill '"$pid"' 2>/dev/null; exit 130' INT TERM HUP
  watch_build "$pid" "$log" "$name"
  if ! wait "$pid"; then
    tail -n 20 "$log" >&2
    die "building $name ended in an error (the lines above; all of them are in $log)"
  fi
  trap - INT TERM HUP
  [ -s "$temporary" ] || die "go build left no $name (see $log)"
  publish "$temporary" "$dir/$name"
  say "built $name in $((SECONDS - start)) s"
}

# The descriptions that make kwok keep nodes, their leases and pods alive; they
# belong to its version, so they come from its module.
copy_stages() {
  local dir="$1" source
  source="$(cd "$ROOT/hack/kwok" && go list -mod=readonly -m -f '{{.Dir}}' sigs.k8s.io/kwok)"
  [ -d "$source/kustomize/stage" ] || die "the module of kwok holds no kustomize/stage"
  local file
  for file in "$source"/kustomize/stage/{node/fast,node/heartbeat-with-lease,pod/fast}/*.yaml; do
    [ "$(basename "$file")" = kustomization.yaml ] && continue
    printf -- '---\n'
    cat "$file"
  done >"$dir/.tmp.kwok-stages.yaml"
  publish "$dir/.tmp.kwok-stages.yaml" "$dir/kwok-stages.yaml"
}

# Parts are folders of their own, which the folder of programs links to: `node`, `masters`, and the plug-ins.
part_dir() {
  case "$1" in
    node | masters) "${1}_dir" ;;
    *) plugin_dir "$1" ;;
  esac
}

part_is_whole() {
  case "$1" in
    node) node_is_whole "$(node_dir)" ;;
    masters) masters_are_whole "$(masters_dir)" ;;
    *) plugin_is_whole "$1" ;;
  esac
}

# build_part DIR PART: DIR holds the programs.
build_part() {
  case "$2" in
    node) build_node "$(node_dir)" "$1" ;;
    masters) build_masters "$(masters_dir)" ;;
    *) build_plugin "$2" ;;
  esac
}

# link_part DIR PART: in one step, for others may read it meanwhile.
link_part() {
  local target
  target="$(part_dir "$2")"
  [ "$(readlink "$1/$2")" != "$target" ] || return 0
  ln -sfn "$target" "$1/.link.$$.$2"
  mv -fT "$1/.link.$$.$2" "$1/$2"
}

# build_binaries PEERS: builds what is missing, prints the folder last.
build_binaries() {
  local peer dir file parts=() missing=()
  local wanted=(etcd kube-apiserver kubectl)
  for peer in ${1//,/ }; do
    case "$peer" in
      kcm) wanted+=(kube-controller-manager) ;;
      scheduler) wanted+=(kube-scheduler) ;;
      kwok) wanted+=(kwok kwok-stages.yaml) ;;
      node) wanted+=(kube-scheduler) parts+=(node) ;;
      masters) wanted+=(kube-scheduler kube-controller-manager) parts+=(node masters) ;;
      cloud-shim | cloud-template | cloud-peer | helm) parts+=("$peer") ;;
      *) die "--with $peer: known are kcm, scheduler, kwok, node, masters, cloud-shim, cloud-template, cloud-peer and helm" ;;
    esac
  done

  dir="${QUARTERDECK_BIN_DIR:-}"
  if [ -n "$dir" ]; then
    for file in "${wanted[@]}"; do
      [ -s "$dir/$file" ] || die "QUARTERDECK_BIN_DIR=$dir holds no $file"
    done
    for file in ${parts[@]+"${parts[@]}"}; do
      case "$file" in
        node) node_is_whole "$dir/node" || die "QUARTERDECK_BIN_DIR=$dir holds no whole node" ;;
        masters) masters_are_whole "$dir/masters" || die "QUARTERDECK_BIN_DIR=$dir holds no whole masters" ;;
        *) [ -d "$dir/$file" ] || die "QUARTERDECK_BIN_DIR=$dir holds no $file" ;;
      esac
    done
    echo "$dir"
    return
  fi

  need sha256sum "install coreutils"
  dir="$(bin_dir)"
  for file in "${wanted[@]}"; do
    whole "$dir/$file" || missing+=("$file")
  done
  for file in ${parts[@]+"${parts[@]}"}; do
    part_is_whole "$file" || missing+=("$file")
  done
  if [ "${#missing[@]}" -gt 0 ]; then
    need go "install Go 1.26 or later (https://go.dev/dl)"
    need flock "install util-linux"
    mkdir -p "$dir"
    exec 9>"$dir/.lock"
    flock -n 9 || { say "another build is running; waiting for it"; flock 9; }
    # Left by a build that was killed: nobody else holds the lock.
    rm -f "$dir"/.tmp.*
    for file in "${missing[@]}"; do
      # Built meanwhile by the one we waited for?
      whole "$dir/$file" && continue
      case " ${parts[*]-} " in
        *" $file "*) part_is_whole "$file" || build_part "$dir" "$file" ;;
        *) if [ "$file" = kwok-stages.yaml ]; then copy_stages "$dir"; else build_program "$dir" "$file"; fi ;;
      esac
    done
    exec 9>&-
  fi
  # Without the lock: whoever has everything need not wait for the builds of others.
  for file in ${parts[@]+"${parts[@]}"}; do link_part "$dir" "$file"; done
  echo "$dir"
}
