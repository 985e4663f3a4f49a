# What hack/masters does besides `run`. Sourced by hack/masters.

# command_up: `run` in the background, until it is ready or has ended.
command_up() {
  local runner
  is_kept && die "masters run in $dir already (hack/masters status --dir $dir)"
  [ "$(id -u)" = 0 ] || die "masters need root: namespaces, mounts and cgroups are their own"
  ours "$dir"
  mkdir -p "$dir"
  rm -f "$dir/ready"
  # In a session of its own: the terminal's signals are for others.
  setsid "$0" run "${given[@]}" </dev/null >"$dir/run.log" 2>&1 &
  runner=$!
  trap 'kill -TERM "$runner" 2>/dev/null; exit 130' INT TERM HUP
  # What it says meanwhile, until it is ready or has ended; no lines are missed.
  tail -n +1 -F --pid="$runner" "$dir/run.log" >&2 2>/dev/null &
  local tail=$!
  until [ -e "$dir/ready" ]; do
    if ! kill -0 "$runner" 2>/dev/null; then
      wait "$tail" || true
      die "the masters did not come up (the lines above; logs are in $dir)"
    fi
    sleep 0.2
  done
  kill "$tail" 2>/dev/null || true
  wait "$tail" 2>/dev/null || true
  trap - INT TERM HUP
  disown -a
  say "export KUBECONFIG=$dir/admin.conf    # hack/masters --help says what else can be done"
}

# command_down: ends them, removes their folder, and looks for what is left on this machine.
command_down() {
  local pid try left alone="" group="$NODE_GROUPS"
  [ "$(id -u)" = 0 ] || die "masters belong to root"
  # Their cgroups bear the number of the process that kept them.
  pid="$(cat "$dir/pid" 2>/dev/null)" || pid=none
  if is_kept; then
    kill -TERM "$pid" 2>/dev/null || true
    for try in $(seq 600); do
      is_kept || break
      sleep 0.1
    done
    is_kept && die "process $pid, which keeps the masters, is still there after 60 s"
  fi
  # Of those that were killed, what the kernel does not drop by itself.
  exec 9>>"$NODE_LOCK"
  if flock -n 9; then
    alone=1
    clear_cgroups_soon "$group" || true
    remove_places
  else
    # A link may be that of others now, and folders in their use.
    say "another node, or other masters, run on this machine by now"
    group="$NODE_GROUPS$pid-"
    clear_cgroups_soon "$group" || true
  fi
  left="$(
    processes_left "$group"
    mounts_left
    [ -z "$alone" ] || links_left
  )"
  exec 9>&-
  if [ -z "$keep" ] && [ -d "$dir" ]; then
    ours "$dir"
    rm -rf "$dir"
  fi
  [ -z "$left" ] || { say "$left" && die "the above is left of the masters"; }
}

# processes_left GROUP: a line for each cgroup that begins so, and each process in it.
processes_left() {
  local group file
  while read -r group; do
    printf 'cgroup %s\n' "$group"
    while read -r file; do
      printf 'process %s: %s\n' "$file" "$(tr '\0' ' ' <"/proc/$file/cmdline" 2>/dev/null | cut -c 1-100)"
    done < <(find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -un)
  done < <(cgroups_left "$1")
}

# mounts_left: those of this machine, below the masters' folder or of its files.
mounts_left() { grep -F " $dir/" /proc/self/mountinfo | awk '{ print "mount " $5 }' || true; }

# links_left: links and routes of this machine.
links_left() {
  ip -o link show 2>/dev/null | awk -F': ' '{ print $2 }' | grep -E "^($MACHINE_LINK|qd-[0-9])(@|$)" | sed 's/^/link /' || true
  ip route show 2>/dev/null | grep -E "^10\.244\.|^172\.29\.0\." | sed 's/^/route /' || true
}

# ask COMMAND N: has the `run` that keeps the masters do it.
ask() {
  local answer words
  is_kept || die "no masters run in $dir (hack/masters up --dir $dir)"
  answer="$(mktemp -u "$dir/.answer.XXXXXX")"
  printf '%s\n' "$1 $2 $answer" >"$dir/control"
  until [ -e "$answer" ]; do
    is_kept || die "the masters have ended meanwhile (see $dir/run.log)"
    sleep 0.05
  done
  words="$(cat "$answer")"
  rm -f "$answer"
  [ "$words" = ok ] || die "$words"
}

command_kill() { ask kill "$number"; }
command_cut() { ask cut "$number"; }

# command_heal: returns when the master's server answers again.
command_heal() {
  local start="$SECONDS"
  ask heal "$number"
  source "$dir/site.env"
  until "$BIN/kubectl" --kubeconfig="$dir/$number/admin.conf" --request-timeout=5s get --raw /readyz >/dev/null 2>&1; do
    [ "$(phase "$number")" = alive ] || die "master $number is $(phase "$number"); see $dir/$number/master.log"
    [ $((SECONDS - start)) -lt 300 ] || die "the server of master $number does not answer after 300 s (see $dir/$number)"
    sleep 0.3
  done
}

# command_exec: a program in the master's namespaces, with the node's tools (ctr, nft, runc) at hand.
command_exec() {
  is_kept || die "no masters run in $dir (hack/masters up --dir $dir)"
  [ -s "$dir/$number/pid" ] || die "master $number is $(phase "$number")"
  source "$dir/site.env"
  PATH="$PARTS/bin:$BIN:$PATH" LD_LIBRARY_PATH="$PARTS/lib" KUBECONFIG="$dir/$number/admin.conf" \
    exec nsenter --target "$(cat "$dir/$number/pid")" --mount --uts --ipc --net --pid --cgroup -- "${words[@]:-bash}"
}

command_status() {
  is_kept || die "no masters run in $dir (hack/masters up --dir $dir)"
  source "$pieces/status.sh"
  status
}
