# Builds what tests and benches of the clouds need: a Go provider behind the
# shim of hack/cloud-shim, a Python environment for docs/cloud/template, and the
# Go cloud-controller-manager of hack/cloud-peer; and helm, which tests install
# our chart with. Sourced by hack/lib/binaries.sh; needs lib/common.sh.

# What the Python template needs; grpcio-tools also brings the compiler of .proto files.
PLUGIN_PYTHON=(grpcio==1.85.1 grpcio-tools==1.85.1 grpcio-status==1.85.1 grpcio-health-checking==1.85.1)
PLUGIN_PROTO=quarterdeck/cloudprovider/v1/cloudprovider.proto

# plugin_dir KIND: folder of what is built of these sources.
plugin_dir() {
  local key
  key="$(
    {
      case "$1" in
        cloud-shim | cloud-peer) find "$ROOT/hack/$1" -type f | LC_ALL=C sort | xargs cat ;;
        helm) cat "$ROOT"/hack/helm/go.{mod,sum} && helm_flags ;;
        cloud-template) cat "$ROOT/src/cloud/proto/$PLUGIN_PROTO" && echo "${PLUGIN_PYTHON[@]}" ;;
      esac
      echo "$LDFLAGS $(uname -sm)"
    } | sha256sum | cut -c1-16
  )"
  echo "${XDG_CACHE_HOME:-$HOME/.cache}/quarterdeck/plugins/$1-$key"
}

# plugin_is_whole KIND
plugin_is_whole() {
  local dir
  dir="$(plugin_dir "$1")"
  case "$1" in
    cloud-shim | cloud-peer | helm) whole "$dir/$1" ;;
    cloud-template) [ -s "$dir/whole" ] ;;
  esac
}

# build_plugin KIND
build_plugin() {
  local dir
  dir="$(plugin_dir "$1")"
  mkdir -p "$dir"
  case "$1" in
    cloud-shim | cloud-peer) build_program "$dir" "$1" ;;
    helm) LDFLAGS="$LDFLAGS $(helm_flags)" build_program "$dir" helm ;;
    cloud-template) build_template_python "$dir" ;;
  esac
}

# The versions that helm stands for: its own, and of Kubernetes that which it takes a chart to be for while it asks no server.
helm_flags() {
  local minor="${KUBERNETES_VERSION#v1.}" package
  printf -- '-X helm.sh/helm/v3/internal/version.version=%s' "$(awk '$1 == "helm.sh/helm/v3" { print $2 }' "$ROOT/hack/helm/go.mod")"
  for package in chartutil lint/rules; do
    printf -- ' -X helm.sh/helm/v3/pkg/%s.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/%s.k8sVersionMinor=%s' "$package" "$package" "${minor%%.*}"
  done
}

# build_template_python DIR: Python with gRPC, and the protocol's code in DIR/stubs.
build_template_python() {
  local dir="$1"
  need python3 "install Python 3"
  say "bringing gRPC for Python (kept in $dir)"
  rm -rf "$dir/venv" "$dir/stubs"
  mkdir -p "$dir/stubs"
  python3 -m venv "$dir/venv"
  "$dir/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: "${PLUGIN_PYTHON[@]}" 9>&- >&2 \
    || die "gRPC for Python is not to be had (the lines above)"
  "$dir/venv/bin/python" -m grpc_tools.protoc -I "$ROOT/src/cloud/proto" \
    --python_out="$dir/stubs" --grpc_python_out="$dir/stubs" "$PLUGIN_PROTO"
  echo yes >"$dir/whole"
}
