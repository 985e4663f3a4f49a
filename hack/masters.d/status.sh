# `hack/masters status`. Sourced by hack/masters.
#
# Every question is asked at once: whoever is dead or cut off answers nothing.

PATIENCE=3s

# ask_server N ARGS...: at that master's own server.
ask_server() {
  local n="$1"
  shift
  "$BIN/kubectl" --kubeconfig="$dir/$n/admin.conf" --request-timeout="$PATIENCE" "$@" 2>/dev/null
}

# ask_etcd N PATH: at that master's own member.
ask_etcd() {
  "$BIN/kubectl" --kubeconfig=/dev/null --server="https://$(address_of "$1"):2379" --certificate-authority="$pki/etcd-ca.crt" \
    --client-certificate="$pki/etcd-client.crt" --client-key="$pki/etcd-client.key" --request-timeout="$PATIENCE" get --raw "$2" 2>/dev/null
}

# look N FOLDER: what master N says of itself.
look() {
  local n="$1" out="$2" metrics
  if ask_server "$n" get --raw /readyz >/dev/null; then echo ready; else echo "no answer"; fi >"$out/server" &
  if ask_etcd "$n" /health | grep -q '"health":"true"'; then
    metrics="$(ask_etcd "$n" /metrics)" || true
    if grep -q '^etcd_server_is_leader 1' <<<"$metrics"; then echo leader; else echo member; fi
  else
    echo "no quorum"
  fi >"$out/etcd" &
  wait
}

# view N FOLDER: what its server says of all.
view() {
  local n="$1" out="$2"
  ask_server "$n" get nodes -o 'jsonpath={range .items[*]}{.metadata.name}{" "}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' >"$out/nodes" &
  ask_server "$n" -n kube-system get pods -l app.kubernetes.io/name=quarterdeck -o \
    'jsonpath={range .items[*]}{.spec.nodeName}{" "}{.status.phase}{" "}{.status.conditions[?(@.type=="Ready")].status}{" "}{.status.containerStatuses[0].restartCount}{"\n"}{end}' >"$out/pods" &
  ask_server "$n" -n kube-system get leases quarterdeck kube-controller-manager kube-scheduler --ignore-not-found -o \
    'jsonpath={range .items[*]}{.metadata.name}{" "}{.spec.holderIdentity}{" "}{.spec.acquireTime}{" "}{.spec.leaseTransitions}{"\n"}{end}' >"$out/leases" &
  wait
}

# field FILE NAME NUMBER: of the line that begins with NAME.
field() { awk -v name="$2" -v number="$3" '$1 == name { print $number; exit }' "$1" 2>/dev/null; }

status() {
  local n work name node pod leader seen="" since
  source "$dir/site.env"
  work="$(mktemp -d)"
  trap "rm -rf '$work'" EXIT
  for n in $(seq "$MASTERS"); do
    mkdir "$work/$n"
    look "$n" "$work/$n" &
    view "$n" "$work/$n" &
  done
  wait
  # Whoever answers knows; one that is cut off knows nothing new.
  for n in $(seq "$MASTERS"); do
    [ "$(phase "$n")" = alive ] && [ -s "$work/$n/nodes" ] && seen="$work/$n" && break
  done
  leader="$(field "$seen/leases" quarterdeck 2)"
  {
    echo "MASTER|ADDRESS|STATE|SERVER|ETCD|NODE|QUARTERDECK|LEADS"
    for n in $(seq "$MASTERS"); do
      name="$(name_of "$n")"
      node="$(field "$seen/nodes" "$name" 2)"
      pod="$(field "$seen/pods" "$name" 2)"
      case "$node" in True) node=Ready ;; "") node="-" ;; *) node=NotReady ;; esac
      if [ -n "$pod" ]; then
        [ "$(field "$seen/pods" "$name" 3)" = True ] && pod="$pod, ready" || pod="$pod, not ready"
        [ "$(field "$seen/pods" "$name" 4)" = 0 ] || pod="$pod, $(field "$seen/pods" "$name" 4) restarts"
      fi
      printf '%s|%s|%s|%s|%s|%s|%s|%s\n' "$name" "$(address_of "$n")" "$(phase "$n")" "$(cat "$work/$n/server")" "$(cat "$work/$n/etcd")" \
        "$node" "${pod:--}" "$(case "$leader" in "$name" | "$name"_*) echo yes ;; *) echo - ;; esac)"
    done
  } | column_by_bar
  [ -n "$seen" ] || { say "no server answers: what of nodes, pods and Leases is so, is not known" && return 1; }
  for name in quarterdeck kube-controller-manager kube-scheduler; do
    leader="$(field "$seen/leases" "$name" 2)"
    since="$(field "$seen/leases" "$name" 3)"
    [ -z "$leader" ] || echo "$name: $leader since ${since%.*}Z, $(field "$seen/leases" "$name" 4) handovers"
  done
}

# column_by_bar: lines of fields between bars, as a table.
column_by_bar() {
  awk -F'|' '{ for (i = 1; i <= NF; i++) { cell[NR, i] = $i; if (length($i) > width[i]) width[i] = length($i) } fields = NF }
    END { for (row = 1; row <= NR; row++) { line = ""; for (i = 1; i <= fields; i++) line = line sprintf("%-" width[i] "s  ", cell[row, i]); sub(/ +$/, "", line); print line } }'
}
