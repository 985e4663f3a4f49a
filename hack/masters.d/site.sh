# Names, addresses and files of the masters. Sourced by hack/masters and by
# hack/masters.d/init; `dir` is their folder, DIR below.
#
# DIR/lock      held by the `run` that keeps them; free: nothing runs
# DIR/control   what kill, cut and heal ask of it goes in here
# DIR/ready     is there once they are ready
# DIR/site.env  what a test wants to know: addresses, programs, images
# DIR/N/phase   waiting, alive, killed, cut, ended
# DIR/N/pid     the master's first process, as this machine numbers it

SITE_ADDRESS=172.29.0.1
# This machine's end of the link to the site.
MACHINE_ADDRESS=172.29.0.254
MACHINE_LINK=qd-masters
POD_RANGE=10.244.0.0/16
SERVICE_RANGE=10.96.0.0/16
KUBERNETES_ADDRESS=10.96.0.1
DNS_ADDRESS=10.96.0.10

name_of() { echo "master-$1"; }
address_of() { echo "172.29.0.1$1"; }
pods_of() { echo "10.244.$1.0/24"; }

# phase N [NEW]: tells or sets it.
phase() {
  if [ $# -gt 1 ]; then
    echo "$2" >"$dir/$1/.phase"
    mv -f "$dir/$1/.phase" "$dir/$1/phase"
  else
    cat "$dir/$1/phase" 2>/dev/null || echo unknown
  fi
}

# is_kept: does a `run` keep masters in this folder?
is_kept() {
  [ -e "$dir/lock" ] || return 1
  ! flock -n "$dir/lock" true
}

# ours DIR: ends unless DIR is empty, or was made by hack/masters: it is about to be emptied.
ours() {
  [ -z "$(find "$1" -mindepth 1 -maxdepth 1 2>/dev/null | head -n 1)" ] || [ -e "$1/lock" ] || [ -e "$1/run.log" ] \
    || die "$1 holds something else than masters; name another folder with --dir"
}
