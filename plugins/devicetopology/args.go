package devicetopology

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// ErrArgs is the class of errors about the plugin's arguments.
var ErrArgs = errors.New("invalid DeviceTopology arguments")

// Args are the plugin's arguments in the scheduler's configuration
// (profiles[].pluginConfig[].args). Unknown fields are errors.
type Args struct {
	metav1.TypeMeta `json:",inline"`

	// RetryInterval is how often the scheduler looks for KubeVFIO's CRDs while
	// they are not installed, and the shortest time between two activations of
	// waiting pods. Default 1s.
	RetryInterval metav1.Duration `json:"retryInterval,omitempty"`
	// NamedNodes is the cluster size up to which rejections name the node. In
	// larger clusters equal reasons are counted instead. Default 10.
	NamedNodes *int `json:"namedNodes,omitempty"`
}

// decodeArgs reads the arguments strictly and fills in defaults. Nil means all
// defaults. Errors are of class [ErrArgs].
func decodeArgs(obj runtime.Object) (*Args, error) {
	a := &Args{}
	switch o := obj.(type) {
	case nil:
	case *Args:
		*a = *o
	case *runtime.Unknown:
		raw := o.Raw
		if o.ContentType == runtime.ContentTypeYAML {
			var err error
			if raw, err = yaml.YAMLToJSONStrict(raw); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrArgs, err)
			}
		}
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		if err := dec.Decode(a); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: %w", ErrArgs, err)
		}
	default:
		return nil, fmt.Errorf("%w: got a %T", ErrArgs, obj)
	}
	switch {
	case a.RetryInterval.Duration == 0:
		a.RetryInterval.Duration = time.Second
	case a.RetryInterval.Duration < 10*time.Millisecond:
		return nil, fmt.Errorf("%w: retryInterval %s: at least 10ms", ErrArgs, a.RetryInterval.Duration)
	}
	if a.NamedNodes == nil {
		n := 10
		a.NamedNodes = &n
	}
	if *a.NamedNodes < 0 {
		return nil, fmt.Errorf("%w: namedNodes %d: at least 0", ErrArgs, *a.NamedNodes)
	}
	return a, nil
}

// DeepCopyObject implements [runtime.Object], so that programs can pass Args as
// a value.
func (a *Args) DeepCopyObject() runtime.Object {
	c := *a
	return &c
}
