package pool_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kubevfio/kubevfio/host/pool"
)

func TestFromSRIOVDP(t *testing.T) {
	cases := map[string]struct{ in, want string }{
		"VFs by PF name, bound already": {
			`{"resourceList":[{"resourceName":"sriov_net","selectors":{"drivers":["vfio-pci"],"pfNames":["eth1#0-3","eth2"]}}]}`,
			`---
apiVersion: kubevfio.io/v1alpha1
kind: DevicePool
metadata:
  name: sriov-net
spec:
  driver: keep
  resourceName: intel.com/sriov_net
  selectors:
  - classes:
    - "02"
    drivers:
    - vfio-pci
    pfNames:
    - eth1#0-3
    - eth2
`,
		},
		"ConfigMap, list of selectors, accelerator, first resource wins": {
			`apiVersion: v1
kind: ConfigMap
metadata: {name: sriovdp-config}
data:
  config.json: |
    {"resourceList": [
      {"resourceName": "fpga", "resourcePrefix": "example.com", "deviceType": "accelerator", "excludeTopology": true,
       "selectors": [{"vendors": ["8086"], "devices": ["0d90"], "isRdma": false, "ddpProfiles": []}]},
      {"resourceName": "Mlx_VF", "selectors": [{"pciAddresses": ["0000:03:02.0"]}, {"rootDevices": ["0000:86:00.0#0-1,3"], "vdpaType": ""}], "additionalInfo": {}}
    ]}
`,
			`---
# The agent binds these devices to vfio-pci: containers that use the kernel's driver lose them.
apiVersion: kubevfio.io/v1alpha1
kind: DevicePool
metadata:
  name: fpga
spec:
  driver: vfio-pci
  priority: 2
  resourceName: example.com/fpga
  selectors:
  - classes:
    - "12"
    devices:
    - 0d90
    vendors:
    - "8086"
  topologyHints: false
---
# The agent binds these devices to vfio-pci: containers that use the kernel's driver lose them.
apiVersion: kubevfio.io/v1alpha1
kind: DevicePool
metadata:
  name: mlx-vf
spec:
  driver: vfio-pci
  priority: 1
  resourceName: intel.com/Mlx_VF
  selectors:
  - addresses:
    - "0000:03:02.0"
    classes:
    - "02"
  - classes:
    - "02"
    rootDevices:
    - 0000:86:00.0#0-1,3
`,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pools, err := pool.FromSRIOVDP([]byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := pool.WriteYAML(&b, pools); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, b.String()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestFromSRIOVDPNamesTheField(t *testing.T) {
	one := func(fields string) string { return `{"resourceList":[{"resourceName":"x",` + fields + `}]}` }
	cases := map[string]string{
		one(`"selectors":{"linkTypes":["infiniband"]}`):                    "resourceList[0].selectors.linkTypes",
		one(`"selectors":[{"vendors":["8086"]},{"pKeys":["0x1"]}]`):        "resourceList[0].selectors[1].pKeys",
		one(`"selectors":{"ddpProfiles":["GTPv1-C/U IPv4/IPv6 payload"]}`): "resourceList[0].selectors.ddpProfiles",
		one(`"selectors":{"acpiIndexes":["101"]}`):                         "resourceList[0].selectors.acpiIndexes",
		one(`"selectors":{"isRdma":true}`):                                 "resourceList[0].selectors.isRdma",
		one(`"selectors":{"needVhostNet":true}`):                           "resourceList[0].selectors.needVhostNet",
		one(`"selectors":{"vdpaType":"vhost"}`):                            "resourceList[0].selectors.vdpaType",
		one(`"selectors":{"pfName":["x"]}`):                                "resourceList[0].selectors.pfName",
		one(`"selectors":{"vendors":["808"]}`):                             "resourceList[0].selectors.vendors",
		one(`"selectors":{"pciAddresses":["03:02.0"]}`):                    "resourceList[0].selectors.pciAddresses",
		one(`"selectors":{"pfNames":["eth0#9-1"]}`):                        "resourceList[0].selectors.pfNames",
		one(`"deviceType":"auxNetDevice"`):                                 "resourceList[0].deviceType",
		one(`"additionalInfo":{"*":{"k":"v"}}`):                            "resourceList[0].additionalInfo",
		one(`"nodeSelector":{}`):                                           "nodeSelector",
		`{"resourceList":[{"selectors":{}}]}`:                              "resourceList[0].resourceName",
		`{"resourceList":[{"resourceName":"a b"}]}`:                        "resourceList[0].resourceName",
		`{"resourceList":[]}`:                                              "resourceList",
		`{}`:                                                               "resourceList",
		`not json`:                                                         "",
		`{"resourceList":[]} x`:                                            "",
	}
	for in, field := range cases {
		_, err := pool.FromSRIOVDP([]byte(in))
		if !errors.Is(err, pool.ErrSRIOVDP) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v, want an error that names %q", in, err, field)
		}
	}
}

func FuzzFromSRIOVDP(f *testing.F) {
	f.Add([]byte(`{"resourceList":[{"resourceName":"x","selectors":[{"vendors":["8086"],"pfNames":["a#0-3"]}]}]}`))
	f.Add([]byte("kind: ConfigMap\ndata: {a: '{}'}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pools, err := pool.FromSRIOVDP(b)
		if err != nil {
			if !errors.Is(err, pool.ErrSRIOVDP) {
				t.Errorf("error without class: %v", err)
			}
			return
		}
		if err := pool.WriteYAML(&bytes.Buffer{}, pools); err != nil {
			t.Error(err)
		}
	})
}
