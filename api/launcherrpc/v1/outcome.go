package launcherrpcv1

import "encoding/json"

// ParseOutcome reads a container's termination message; ok is false for
// anything that a launcher did not write, such as kubelet's own texts.
func ParseOutcome(message []byte) (o Outcome, ok bool) {
	if err := json.Unmarshal(message, &o); err != nil || o.Reason == "" {
		return Outcome{}, false
	}
	return o, true
}
