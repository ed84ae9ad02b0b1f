package artifacts

import (
	"context"
	"errors"
)

// builder is one run of [Build].
type builder struct {
	opts Options
	set  *Set
}

func (b *builder) progress(format string, args ...any) {
	if b.opts.Progress != nil {
		b.opts.Progress(format, args...)
	}
}

// Build makes, or finds in the cache, everything that the lab runs. It needs root on Debian; [ErrPreconditions] says what
// is missing. The returned set holds a lease on its cache entries until [Set.Release] or the end of the process.
func Build(ctx context.Context, o Options) (*Set, error) {
	b := &builder{opts: o, set: &Set{Bin: map[string]string{}}}
	b.phase("preconditions")(true)
	return nil, errors.New("artifacts: not written yet")
}
