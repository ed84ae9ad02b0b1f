package rendercmd

import (
	"fmt"
	"io"

	"github.com/kubevfio/kubevfio/launcher/domain"
)

func writeSVG(io.Writer, *domain.Input, *domain.Report) error {
	return fmt.Errorf("--output svg is not built yet")
}
