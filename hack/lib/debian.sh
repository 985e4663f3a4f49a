#!/usr/bin/env bash
# Brings a Debian package without installing it: downloads it and unpacks it
# into the user's cache. Needs no rights.
#
# Usage: hack/lib/debian.sh PACKAGE     prints the folder it was unpacked into
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[ $# -eq 1 ] || die "usage: hack/lib/debian.sh PACKAGE"
package="$1"
need apt-get "install $package by other means and put its programs on the PATH"
need dpkg "install $package by other means and put its programs on the PATH"
need flock "install util-linux"

cache="${XDG_CACHE_HOME:-$HOME/.cache}/quarterdeck/debian"
mkdir -p "$cache"
# One at a time: two tests may ask for the same package.
exec 9>"$cache/.lock"
flock 9

options=()
candidate() {
  apt-cache "${options[@]}" policy "$package" 2>/dev/null | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }'
}

version="$(candidate)"
if [ -z "$version" ]; then
  # A fresh machine has no package lists; ours are kept apart from the system's.
  say "== reading Debian's package lists"
  mkdir -p "$cache/state/lists/partial" "$cache/archives/partial"
  options=(-o "Dir::State=$cache/state" -o "Dir::Cache=$cache" -o Dir::State::status=/var/lib/dpkg/status)
  apt-get "${options[@]}" -qq update >&2 || die "apt-get update did not end well"
  version="$(candidate)"
fi
[ -n "$version" ] || die "no package named $package is known here"

folder="$cache/${package}_${version//[:\/]/_}_$(dpkg --print-architecture)"
if [ ! -d "$folder" ]; then
  say "== downloading $package $version"
  work="$(mktemp -d "$cache/.part.XXXXXX")"
  trap 'rm -rf "$work"' EXIT
  # As root, apt downloads as a user of its own, who must be able to write here.
  (cd "$work" && apt-get "${options[@]}" -o APT::Sandbox::User=root -qq download "$package=$version") >&2 \
    || die "$package $version could not be downloaded"
  dpkg -x "$work"/*.deb "$work/root"
  mv "$work/root" "$folder"
fi
echo "$folder"
