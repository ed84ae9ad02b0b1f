package failure

import (
	"encoding/json"
	"fmt"

	launcherrpcv1 "github.com/kubevfio/kubevfio/api/launcherrpc/v1"
)

// TerminationMessage encodes an outcome as compact JSON of at most limit bytes,
// so that kubelet does not cut it into something that no longer parses. First
// the message is shortened, then the timings go, then the names.
func TerminationMessage(o launcherrpcv1.Outcome, limit int) ([]byte, error) {
	full := o.Message
	for _, drop := range []func(){func() {}, func() { o.Seconds = nil }, func() { o.Field, o.Address = "", "" }} {
		drop()
		// JSON escapes can make one byte six; so halve until it fits.
		for keep := len(full); ; keep = keep * 3 / 4 {
			o.Message = Shorten(full, keep)
			b, err := json.Marshal(o)
			if err != nil {
				return nil, fmt.Errorf("encode the termination message: %w", err)
			}
			if len(b) <= limit {
				return b, nil
			}
			if keep < 64 {
				break
			}
		}
	}
	return nil, fmt.Errorf("a termination message does not fit in %d bytes", limit)
}
