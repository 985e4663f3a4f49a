# What nodes need of this machine: a lock, cgroups, folders to mount over.
# Sourced by hack/node/start and hack/masters; the sourcing script has `die`.
#
# Everything that nodes leave on a machine bears this prefix or stands in the lock.
NODE_GROUPS=quarterdeck-node-
NODE_LOCK="${TMPDIR:-/tmp}/quarterdeck-node.lock"

# Hierarchies of cgroups of version 1: the names of their folders, and where we are in them.
hierarchies() {
  local line controllers path
  while IFS=: read -r _ controllers path; do
    case "$controllers" in
      "") continue ;;
      name=*) controllers="${controllers#name=}" ;;
    esac
    [ -d "/sys/fs/cgroup/$controllers" ] || continue
    # In a container of somebody's the path may lie outside of what is mounted.
    [ -d "/sys/fs/cgroup/$controllers$path" ] || path=/
    printf '%s %s\n' "$controllers" "${path%/}"
  done </proc/self/cgroup
}

# clear_cgroups GROUP: removes cgroups whose name begins so, deepest first; those in use stay.
clear_cgroups() {
  local controllers path
  while read -r controllers path; do
    find "/sys/fs/cgroup/$controllers$path" -mindepth 1 -depth -type d -path "*/$1*" -exec rmdir {} + 2>/dev/null || true
  done < <(hierarchies)
}

# cgroups_left GROUP: those that are still there.
cgroups_left() {
  local controllers path
  while read -r controllers path; do
    find "/sys/fs/cgroup/$controllers$path" -mindepth 1 -maxdepth 1 -type d -name "$1*" 2>/dev/null || true
  done < <(hierarchies)
}

# clear_cgroups_soon GROUP: the same once its processes are gone, which takes the kernel a moment.
clear_cgroups_soon() {
  local try
  for try in $(seq 100); do
    clear_cgroups "$1"
    [ -n "$(cgroups_left "$1")" ] || return 0
    sleep 0.1
  done
  return 1
}

# make_cgroups GROUP: one in each hierarchy, below our own.
make_cgroups() {
  local group="$1" controllers path own file seen=""
  while read -r controllers path; do
    own="/sys/fs/cgroup/$controllers$path/$group"
    mkdir "$own" || die "cannot make a cgroup in $controllers: is it mounted read-only?"
    if [ "$controllers" = cpuset ]; then
      for file in cpuset.cpus cpuset.mems; do cat "$own/../$file" >"$own/$file"; done
    fi
    seen="$seen $controllers"
  done < <(hierarchies)
  for controllers in cpu cpuset memory devices freezer pids; do
    [[ " $seen " == *" $controllers "* ]] ||
      die "this machine has no cgroup hierarchy (version 1) of $controllers; a node needs one"
  done
}

# enter_cgroups GROUP: has this very process join.
enter_cgroups() {
  local controllers path
  while read -r controllers path; do
    # By its own number: $$ is the shell around a subshell.
    echo "$BASHPID" >"/sys/fs/cgroup/$controllers$path/$1/cgroup.procs"
  done < <(hierarchies)
}

# take_lock: one node, or one set of masters, a machine. The lock is file 9 of whoever has it.
take_lock() {
  exec 9>>"$NODE_LOCK"
  if ! flock -n 9; then
    say "another node runs on this machine; waiting for its end"
    # Who waits for us must not be left waiting.
    setpriv --pdeathsig KILL flock 9
  fi
}

# make_places PLACE...: folders that a node mounts its own over. The lock says which
# of them were made for a node, also for the next one if this one is killed.
make_places() {
  local place
  mapfile -t made <"$NODE_LOCK"
  for place in "$@"; do
    [ -d "$place" ] || { mkdir -p "$place" && made+=("$place"); }
  done
  [ "${#made[@]}" = 0 ] || printf '%s\n' "${made[@]}" >"$NODE_LOCK"
}

# remove_places: those that were made and that nobody else uses.
remove_places() {
  local made
  mapfile -t made <"$NODE_LOCK"
  [ "${#made[@]}" = 0 ] || rmdir --ignore-fail-on-non-empty "${made[@]}" 2>/dev/null || true
  : >"$NODE_LOCK"
}

# enter_node GROUP COMMAND...: becomes the parent of the first process of a node, in namespaces
# of its own. When this process ends, or the one that started it, so does everything in them.
enter_node() {
  local group="$1"
  shift
  enter_cgroups "$group"
  exec setpriv --pdeathsig KILL unshare --mount --net --pid --uts --ipc --cgroup --fork --kill-child \
    --propagation private "$@"
}
