package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
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
	seeds, ownNodes           int
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
	policy := fs.String("policy", strings.Join(policyNames, ","), "policies, comma separated, or all")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if *policy == "all" {
		*policy = strings.Join(policyNames, ",")
	}
	o.policies = strings.Split(*policy, ",")
	if o.seeds < 1 {
		return nil, fmt.Errorf("--seeds %d: at least 1", o.seeds)
	}
	for _, p := range o.policies {
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
	if len(nodes) == 0 || len(pods) == 0 {
		return fmt.Errorf("%w: %d nodes and %d pods", errTrace, len(nodes), len(pods))
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
	return report(o, results)
}
