package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
)

func main() {
	if err := simulate(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

// options are the command line's.
type options struct {
	nodes, pods, overlay, out string
	policies                  []string
	seeds, ownNodes, exact    int
}

func parseOptions(args []string) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("sim", flag.ContinueOnError)
	fs.StringVar(&o.nodes, "nodes", "", "CSV of nodes; empty makes an own cluster")
	fs.StringVar(&o.pods, "pods", "", "CSV of pods; empty makes own pods")
	fs.StringVar(&o.overlay, "overlay", "", "YAML with server shapes and wishes; empty takes common ones")
	fs.StringVar(&o.out, "o", "out/sim", "folder for results")
	fs.IntVar(&o.seeds, "seeds", 10, "number of runs per policy, with seeds 1, 2, …")
	fs.IntVar(&o.ownNodes, "own-nodes", 100, "size of the own cluster")
	fs.IntVar(&o.exact, "exact", 0, "number of small clusters (3 nodes of the trace) to solve exactly, for the policies' gap to the optimum")
	policy := fs.String("policy", strings.Join(policyNames, ","), "policies, comma separated, or all")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if *policy == "all" {
		*policy = strings.Join(policyNames, ",")
	}
	o.policies = strings.Split(*policy, ",")
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if o.seeds < 1 {
		return nil, fmt.Errorf("--seeds %d: at least 1", o.seeds)
	}
	if o.ownNodes < 1 {
		return nil, fmt.Errorf("--own-nodes %d: at least 1", o.ownNodes)
	}
	if o.exact < 0 {
		return nil, fmt.Errorf("--exact %d: at least 0", o.exact)
	}
	for i, p := range o.policies {
		o.policies[i] = strings.TrimSpace(p)
		p = o.policies[i]
		if slices.Contains(o.policies[:i], p) {
			return nil, fmt.Errorf("--policy: %s is named twice", p)
		}
		if _, err := newPolicy(p, nil, nil); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// simulate runs everything that the command line asks for.
func simulate(args []string) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	ov := defaultOverlay()
	if o.overlay != "" {
		if ov, err = readOverlay(o.overlay); err != nil {
			return err
		}
	}
	nodes, pods := ownTrace(rand.New(rand.NewPCG(42, 42)), o.ownNodes)
	if o.nodes != "" {
		if nodes, err = readNodes(o.nodes); err != nil {
			return err
		}
	}
	if o.pods != "" {
		if pods, err = readPods(o.pods); err != nil {
			return err
		}
	}
	if err := playable(nodes, pods, ov); err != nil {
		return err
	}
	results := map[string][]*outcome{}
	type job struct {
		policy string
		seed   int
	}
	jobs := make(chan job)
	var mu sync.Mutex
	var first error
	var wg sync.WaitGroup
	for _, p := range o.policies {
		results[p] = make([]*outcome, o.seeds)
	}
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for j := range jobs {
				res, err := run(j.policy, nodes, pods, ov, uint64(j.seed))
				mu.Lock()
				if err != nil && first == nil {
					first = err
				}
				results[j.policy][j.seed-1] = res
				mu.Unlock()
			}
		})
	}
	for _, p := range o.policies {
		for s := 1; s <= o.seeds; s++ {
			jobs <- job{p, s}
		}
	}
	close(jobs)
	wg.Wait()
	if first != nil {
		return first
	}
	var gaps []gap
	if o.exact > 0 {
		if gaps, err = exactGaps(o, nodes, pods, ov); err != nil {
			return err
		}
	}
	return report(o, results, gaps)
}

// playable: a run comes to an end, for there are GPUs and pods that want some.
func playable(nodes []nodeRow, pods []podRow, o *overlay) error {
	gpus := 0
	for i := range nodes {
		gpus += nodes[i].gpus
	}
	wanting := 0
	for i := range pods {
		if pods[i].gpus > 1 || (pods[i].gpus == 1 && (pods[i].gpuMilli >= 1000 || o.Fractional != "drop")) {
			wanting++
		}
	}
	switch {
	case gpus == 0:
		return fmt.Errorf("%w: the %d nodes have no GPUs", errTrace, len(nodes))
	case wanting == 0 && len(pods) > 0 && o.Fractional == "drop":
		return fmt.Errorf("%w: none of the %d pods wants a whole GPU, and the overlay drops fractional ones (fractional: round keeps them)", errTrace, len(pods))
	case wanting == 0:
		return fmt.Errorf("%w: none of the %d pods wants GPUs", errTrace, len(pods))
	}
	return nil
}
