package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of all kinds in this package.
//
//nolint:gochecknoglobals // a constant that Go cannot spell as one.
var GroupVersion = schema.GroupVersion{Group: Group, Version: Version}

// AddToScheme registers the kinds of this package with a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&DevicePool{}, &DevicePoolList{},
		&NodeInventory{}, &NodeInventoryList{},
		&NodeUsage{}, &NodeUsageList{},
		&VirtualMachine{}, &VirtualMachineList{},
		&VirtualMachineInstance{}, &VirtualMachineInstanceList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
