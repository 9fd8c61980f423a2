// Package webhook decides which pods get a Spile sidecar and describes the
// change: a pod in, a [Decision] and RFC 6902 "add" operations out.
//
// Everything here is a pure function of the pod, its namespace and a [Config],
// so that the admission server, the command line and a test give the same
// answer. Package server answers the Kubernetes API server with it.
package webhook
