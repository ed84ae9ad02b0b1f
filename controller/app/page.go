package app

import (
	"fmt"
	"net/http"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/kubevfio/kubevfio/controller/page"
)

// PagePath is where the secure server of the metrics has the page: behind the same
// authentication, and behind RBAC as a nonResourceURL.
const PagePath = "/vfio"

// servePage mounts the page for people; it reads from the manager's cache.
func servePage(mgr ctrl.Manager) error {
	h, err := page.New(page.Cache{Reader: mgr.GetClient()}, time.Now)
	if err != nil {
		return err
	}
	if err := mgr.AddMetricsServerExtraHandler(PagePath+"/", http.StripPrefix(PagePath, h)); err != nil {
		return fmt.Errorf("serve the page: %w", err)
	}
	return nil
}
