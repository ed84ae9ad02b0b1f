package subresources

import (
	"os"
	"strings"
	"testing"
)

// The user's page has every subresource.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/user/api.md")
	if err != nil {
		t.Fatal(err)
	}
	for resource, subs := range routes() {
		for name, rt := range subs {
			found := false
			for line := range strings.Lines(string(text)) {
				if strings.HasPrefix(line, "| `"+resource+"` |") && strings.Contains(line, "`"+name+"`") && strings.Contains(line, "| "+rt.method) {
					found = true
				}
			}
			if !found {
				t.Errorf("docs/user/api.md: there is no row for %s of %s with %s", name, resource, rt.method)
			}
		}
	}
}
