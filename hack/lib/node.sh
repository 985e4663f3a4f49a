# Gathers what a node is made of: a kubelet built from source, containerd, runc,
# network plug-ins and nft from Debian's packages (unpacked, never installed),
# and the images of its pods. Sourced by hack/lib/binaries.sh; needs lib/common.sh.

# Packages, and what is taken of each.
NODE_PACKAGES=(containerd runc containernetworking-plugins busybox-static nftables libnftables1 libnftnl11 libmnl0
  libxtables12 libjansson4 libedit2 libbsd0 libmd0 libgmp10 libseccomp2)

# Folder of this set of versions.
node_dir() {
  local key
  key="$(
    {
      cat "$ROOT"/hack/node/go.{mod,sum} "$ROOT"/hack/images/{go.mod,node/*.go,oci/*.go} "$ROOT/hack/lib/node.sh"
      echo "$LDFLAGS $(uname -sm)"
    } | sha256sum | cut -c1-16
  )"
  echo "${XDG_CACHE_HOME:-$HOME/.cache}/quarterdeck/node/$KUBERNETES_VERSION-$key"
}

# node_is_whole DIR: is everything there?
node_is_whole() {
  whole "$1/bin/kubelet" && whole "$1/images.tar" && [ -s "$1/debian" ] &&
    [ -x "$1/bin/containerd" ] && [ -x "$1/bin/runc" ] && [ -x "$1/bin/nft" ] && [ -x "$1/cni/bridge" ]
}

# build_node DIR BIN: fills DIR; BIN holds kubectl.
build_node() {
  local dir="$1" bin="$2" package folder folders=() file
  mkdir -p "$dir/bin" "$dir/cni" "$dir/lib"
  rm -f "$dir"/.tmp.* "$dir"/bin/.tmp.*
  for package in "${NODE_PACKAGES[@]}"; do
    folder="$("$ROOT/hack/lib/debian.sh" "$package" 9>&-)" || die "the package $package, which a node needs, is not to be had"
    folders+=("$folder")
  done
  for folder in "${folders[@]}"; do
    for file in "$folder"/usr/bin/{containerd,containerd-shim-runc-v2,ctr} "$folder"/usr/sbin/{runc,nft} "$folder"/bin/busybox; do
      [ ! -x "$file" ] || ln -sfn "$file" "$dir/bin/$(basename "$file")"
    done
    for file in "$folder"/usr/lib/cni/{bridge,host-local,loopback}; do
      [ ! -x "$file" ] || ln -sfn "$file" "$dir/cni/$(basename "$file")"
    done
    for file in "$folder"/usr/lib/*/lib*.so.*; do
      [ ! -e "$file" ] || ln -sfn "$file" "$dir/lib/$(basename "$file")"
    done
  done
  printf '%s\n' "${folders[@]}" >"$dir/debian"
  whole "$dir/bin/kubelet" || build_program "$dir/bin" kubelet
  if ! whole "$dir/images.tar"; then
    say "writing the images of the node's pods"
    (cd "$ROOT/hack/images" && CGO_ENABLED=0 go run -mod=readonly ./node "$dir/.tmp.images.tar" "$dir/bin/busybox" "$bin/kubectl") \
      || die "the images of the node's pods could not be written"
    publish "$dir/.tmp.images.tar" "$dir/images.tar"
  fi
  node_is_whole "$dir" || die "$dir lacks a part of the node; remove it and try again"
}
