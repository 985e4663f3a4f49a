// helm, for the tests of deploy/helm, and what writes the generated part of
// that chart. Its own module: it pins other versions of the Kubernetes
// libraries than the control plane.
module quarterdeck.dev/hack/helm

go 1.26.0

require (
	helm.sh/helm/v3 v3.21.4
	sigs.k8s.io/yaml v1.6.0
)
