# Gathers what masters have besides what a node is made of: kube-proxy and
# CoreDNS, built from source, and CoreDNS' image. Sourced by
# hack/lib/binaries.sh; needs lib/common.sh.

# Folder of this set of versions.
masters_dir() {
  local key
  key="$(
    {
      cat "$ROOT"/hack/node/go.{mod,sum} "$ROOT"/hack/coredns/{go.mod,go.sum,main.go}
      cat "$ROOT"/hack/images/{go.mod,program/*.go,oci/*.go} "$ROOT/hack/lib/masters.sh"
      echo "$LDFLAGS $(uname -sm)"
    } | sha256sum | cut -c1-16
  )"
  echo "${XDG_CACHE_HOME:-$HOME/.cache}/quarterdeck/masters/$KUBERNETES_VERSION-$key"
}

# masters_are_whole DIR: is everything there?
masters_are_whole() {
  whole "$1/bin/kube-proxy" && whole "$1/bin/coredns" && whole "$1/coredns.tar"
}

# build_masters DIR
build_masters() {
  local dir="$1" program
  mkdir -p "$dir/bin"
  rm -f "$dir"/.tmp.* "$dir"/bin/.tmp.*
  for program in kube-proxy coredns; do
    whole "$dir/bin/$program" || build_program "$dir/bin" "$program"
  done
  (cd "$ROOT/hack/images" && CGO_ENABLED=0 go run -mod=readonly ./program "$dir/.tmp.coredns.tar" quarterdeck.dev/node/coredns:1 "$dir/bin/coredns") \
    || die "the image of CoreDNS could not be written"
  publish "$dir/.tmp.coredns.tar" "$dir/coredns.tar"
}
