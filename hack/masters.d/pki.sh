# Keys and certificates of the masters, by openssl. Sourced by hack/masters.
#
# Three authorities, as kubeadm has them: `ca` for servers, kubelets and users,
# `etcd-ca` for etcd's members and clients, `front-proxy-ca` for the aggregator.

# openssl_settings: what openssl is told; a machine's own file would add to it.
openssl_settings() {
  cat <<'SETTINGS'
[req]
distinguished_name = name
prompt = no
[name]
CN = unnamed
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,digitalSignature
subjectKeyIdentifier = hash
SETTINGS
}

# openssl_quietly ARGS...: its words are only of use when it does not end well.
openssl_quietly() {
  local words
  words="$(openssl "$@" 2>&1 >/dev/null)" || die "openssl $1: $words"
}

# authority NAME
authority() {
  openssl_quietly req -x509 -config "$pki/openssl.cnf" -extensions authority -newkey ec \
    -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=quarterdeck-$1" \
    -keyout "$pki/$1.key" -out "$pki/$1.crt"
}

# certificate FILE AUTHORITY SUBJECT USAGE [NAMES]: FILE.crt and FILE.key, good for a year.
# USAGE is clientAuth, serverAuth or both; NAMES are subjectAltName's.
certificate() {
  local file="$1" authority="$2" subject="$3" usage="$4" names="${5:-}"
  {
    echo "basicConstraints = critical,CA:FALSE"
    echo "keyUsage = critical,digitalSignature"
    echo "extendedKeyUsage = $usage"
    [ -z "$names" ] || echo "subjectAltName = $names"
  } >"$file.ext"
  openssl_quietly req -new -config "$pki/openssl.cnf" -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
    -subj "$subject" -keyout "$file.key" -out "$file.csr"
  openssl_quietly x509 -req -in "$file.csr" -CA "$pki/$authority.crt" -CAkey "$pki/$authority.key" \
    -set_serial "0x1${EPOCHREALTIME//[!0-9]/}$RANDOM" -days 365 -extfile "$file.ext" -out "$file.crt"
  rm -f "$file.csr" "$file.ext"
}

# kubeconfig FILE SERVER USER CERTIFICATE: for whoever has CERTIFICATE.{crt,key}.
kubeconfig() {
  cat >"$1.part" <<YAML
apiVersion: v1
kind: Config
current-context: masters
clusters:
- name: masters
  cluster:
    server: $2
    certificate-authority-data: $(base64 -w0 <"$pki/ca.crt")
contexts:
- name: masters
  context: {cluster: masters, user: "$3"}
users:
- name: "$3"
  user:
    client-certificate-data: $(base64 -w0 <"$4.crt")
    client-key-data: $(base64 -w0 <"$4.key")
YAML
  # Whole or not at all: kill and heal write admin.conf while others read it.
  mv -f "$1.part" "$1"
}

# make_pki: everything that all masters share.
make_pki() {
  mkdir -p "$pki"
  openssl_settings >"$pki/openssl.cnf"
  authority ca
  authority etcd-ca
  authority front-proxy-ca
  openssl_quietly genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out "$pki/sa.key"
  openssl_quietly pkey -in "$pki/sa.key" -pubout -out "$pki/sa.pub"
  certificate "$pki/admin" ca "/O=system:masters/CN=admin" clientAuth
  certificate "$pki/kubelet-client" ca "/O=system:masters/CN=kube-apiserver-kubelet-client" clientAuth
  certificate "$pki/etcd-client" etcd-ca "/CN=kube-apiserver" clientAuth
  certificate "$pki/front-proxy-client" front-proxy-ca "/CN=front-proxy-client" clientAuth
  local user
  for user in kube-controller-manager kube-scheduler kube-proxy; do
    certificate "$pki/$user" ca "/CN=system:$user" clientAuth
  done
}

# make_master_pki N: what is a master's own, and its kubeconfigs.
make_master_pki() {
  local n="$1" own="$dir/$1/pki" name address user
  name="$(name_of "$n")" address="$(address_of "$n")"
  mkdir -p "$own"
  # Where kubeadm keeps them, for `quarterdeck install` on the master.
  cp -p "$pki"/ca.{crt,key} "$own/"
  certificate "$own/etcd" etcd-ca "/CN=$name" serverAuth,clientAuth "DNS:localhost,DNS:$name,IP:127.0.0.1,IP:$address"
  certificate "$own/apiserver" ca "/CN=kube-apiserver" serverAuth \
    "DNS:localhost,DNS:$name,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:$address,IP:$SITE_ADDRESS,IP:$KUBERNETES_ADDRESS"
  certificate "$own/kubelet" ca "/CN=system:node:$name" serverAuth "DNS:localhost,DNS:$name,IP:127.0.0.1,IP:$address"
  certificate "$own/node" ca "/O=system:nodes/CN=system:node:$name" clientAuth
  # Each master's programs talk to its own server: cut off together, killed together.
  kubeconfig "$dir/$n/admin.conf" "https://$address:6443" admin "$pki/admin"
  kubeconfig "$dir/$n/kubelet.conf" https://127.0.0.1:6443 "system:node:$name" "$own/node"
  for user in kube-controller-manager kube-scheduler kube-proxy; do
    kubeconfig "$dir/$n/$user.conf" https://127.0.0.1:6443 "system:$user" "$pki/$user"
  done
}
