//go:build tools

// Package node pins the kubelet that hack/cluster builds.
package node

import _ "k8s.io/kubernetes/cmd/kubelet"
