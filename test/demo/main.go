// Command demo runs KubeVFIO's main job from nothing on the embedded lab and
// tells what happened: `make demo`.
//
// It ends with one JSON line, also in out/demo.json, and exits with 1 when
// anything was not as it should be.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/kubevfio/kubevfio/test/lab/cluster"
	"github.com/kubevfio/kubevfio/test/testbed"
)

// maxAgain is how often the demo starts over after a fault of the emulation.
const maxAgain = 3

func main() {
	cluster.Init()
	keep := flag.Bool("keep", false, "leave the cluster up and print how to use it")
	out := flag.String("o", "out/demo.json", "write the result here as well")
	nodes := flag.Int("nodes", 1, "number of nodes")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	d := &demo{out: os.Stdout, keep: *keep, nodes: *nodes}
	err := d.run(ctx)
	for range maxAgain {
		if !errors.Is(err, testbed.ErrEmulation) || ctx.Err() != nil {
			break
		}
		fmt.Fprintf(os.Stderr, "\ndemo: %v\ndemo: the cluster died under the demo: starting over with a new lab\n\n", err)
		d = &demo{out: os.Stdout, keep: *keep, nodes: *nodes}
		err = d.run(ctx)
	}
	stop()
	d.result.OK = err == nil
	if err != nil {
		d.result.Error = err.Error()
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
	}
	if werr := write(&d.result, *out, os.Stdout); werr != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", werr)
		err = errors.Join(err, werr)
	}
	if err != nil {
		os.Exit(1)
	}
}

// write prints the result as one line and keeps it in a file.
func write(r *result, path string, w io.Writer) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	fmt.Fprintf(w, "%s\n", b)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("result: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("result: %w", err)
	}
	return nil
}
