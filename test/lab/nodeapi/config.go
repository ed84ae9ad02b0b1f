package nodeapi

// Serial numbers of the node's virtio disks; lab-node finds its disks by them.
const (
	DiskRoot   = "root"   // ext4, read-write: Debian's root file system
	DiskImages = "images" // ext4, read-write: /var/lib/containerd
	DiskBin    = "bin"    // ext4, read-only: binaries, at BinDir
	DiskConfig = "config" // a tar archive, no file system: ConfigFile first, then files to unpack at /
)

const (
	// BinDir is where the disk of binaries is mounted in a node.
	BinDir = "/opt/kubevfio/bin"
	// ConfigFile is the name of the node's [Config] in the tar archive.
	ConfigFile = "node.json"
	// Port is the TCP port of the control protocol.
	Port = 10900
	// LogPortPrefix + process name is the name of the virtio-serial port that takes the process's output.
	LogPortPrefix = "log."
	// InitLog is the name of init's own log.
	InitLog = "init"
	// TrialArg on the kernel command line makes init print TrialWord (and TrialNested where the CPU can run guests of its own)
	// to the console and switch off.
	TrialArg    = "kubevfio.trial"
	TrialWord   = "KUBEVFIO-TRIAL-OK"
	TrialNested = "KUBEVFIO-TRIAL-NESTED"
)

// Config is what a node is told at boot.
type Config struct {
	// Name is the node's host name and Node object's name.
	Name string `json:"name"`
	// MAC says which network card is the node's own.
	MAC string `json:"mac"`
	// Address is the node's address with prefix length, Gateway the host's.
	Address string `json:"address"`
	Gateway string `json:"gateway"`
	// Routes are further routes, destination to gateway.
	Routes map[string]string `json:"routes,omitempty"`
	// Hosts become /etc/hosts, name to address.
	Hosts map[string]string `json:"hosts,omitempty"`
	// Token authenticates clients of the control port.
	Token string `json:"token"`
	// Modules are loaded before anything starts; those that a kernel lacks are skipped with a line in the log.
	Modules []string `json:"modules,omitempty"`
	// Sysctls are written to /proc/sys, keys with slashes.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// Processes are started in order and kept running.
	Processes []Process `json:"processes,omitempty"`
}

// Process is a supervised process of a node.
type Process struct {
	Name string   `json:"name"`
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"`
	// WaitFor is a path (a socket) that must exist before the start.
	WaitFor string `json:"waitFor,omitempty"`
}
