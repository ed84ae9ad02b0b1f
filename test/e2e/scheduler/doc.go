// Package scheduler kills kubevfio-scheduler in the lab while it places pods
// with devices, and looks for pods that were lost and units that were given twice.
//
// The pods ask for a virtual function each, as VM pods do, and run the pause
// image: kubelet, device plugins, VFIO binding and the assignment are real, no
// guest boots. Environment: E2E_KEEP=1 leaves the cluster up.
package scheduler
