package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
)

// errTrace is the class of errors about input files.
var errTrace = errors.New("invalid trace")

// nodeRow is a node of the trace.
type nodeRow struct {
	name      string
	milliCPU  int64
	memoryMiB int64
	gpus      int
	model     string
}

// podRow is a pod of the trace.
type podRow struct {
	milliCPU  int64
	memoryMiB int64
	gpus      int
	gpuMilli  int64
	// models that will do; nil for any.
	models []string
}

// readCSV calls fn for every row with a lookup by column name.
func readCSV(path string, need []string, fn func(get func(string) string) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.FieldsPerRecord = -1
	head, err := r.Read()
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %s is empty: want a first line with column names", errTrace, path)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", errTrace, path, err)
	}
	col := map[string]int{}
	for i, h := range head {
		// Spreadsheets put a byte order mark before the first name.
		col[strings.ToLower(strings.TrimSpace(strings.TrimPrefix(h, "\ufeff")))] = i
	}
	var missing []string
	for _, n := range need {
		if _, ok := col[n]; !ok {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s: no column %s; the first line has %s", errTrace, path, strings.Join(missing, ", "), strings.Join(head, ","))
	}
	for line := 2; ; line++ {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", errTrace, path, err)
		}
		err = fn(func(name string) string {
			if i, ok := col[name]; ok && i < len(row) {
				return strings.TrimSpace(row[i])
			}
			return ""
		})
		if err != nil {
			return fmt.Errorf("%w: %s line %d: %w", errTrace, path, line, err)
		}
	}
}

// maxNumber bounds every number of a trace, so that sums cannot overflow.
const maxNumber = 1 << 40

// number reads a column as a whole number from 0 on; fractions are cut off.
func number(column, s string) (int64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0 && f <= maxNumber) {
		return 0, fmt.Errorf("%s: %q is no number from 0 to %d", column, s, int64(maxNumber))
	}
	return int64(f), nil
}

// gpuCount reads a number of GPUs.
func gpuCount(column, s string) (int, error) {
	n, err := number(column, s)
	if err == nil && n > maxGPUs {
		err = fmt.Errorf("%s: %d: at most %d", column, n, maxGPUs)
	}
	return int(n), err
}

// maxGPUs of one node or pod.
const maxGPUs = 64

// numberOr is number for a column that may be missing or empty.
func numberOr(column, s string, def int64) (int64, error) {
	if s == "" {
		return def, nil
	}
	return number(column, s)
}

func readNodes(path string) ([]nodeRow, error) {
	var out []nodeRow
	err := readCSV(path, []string{"cpu_milli", "memory_mib", "gpu"}, func(get func(string) string) error {
		cpu, e1 := number("cpu_milli", get("cpu_milli"))
		mem, e2 := number("memory_mib", get("memory_mib"))
		gpu, e3 := gpuCount("gpu", get("gpu"))
		if err := errors.Join(e1, e2, e3); err != nil {
			return err
		}
		out = append(out, nodeRow{name: get("sn"), milliCPU: cpu, memoryMiB: mem, gpus: gpu, model: get("model")})
		return nil
	})
	return out, err
}

func readPods(path string) ([]podRow, error) {
	var out []podRow
	err := readCSV(path, []string{"cpu_milli", "memory_mib", "num_gpu"}, func(get func(string) string) error {
		cpu, e1 := number("cpu_milli", get("cpu_milli"))
		mem, e2 := number("memory_mib", get("memory_mib"))
		gpu, e3 := gpuCount("num_gpu", get("num_gpu"))
		milli, e4 := numberOr("gpu_milli", get("gpu_milli"), 1000)
		if err := errors.Join(e1, e2, e3, e4); err != nil {
			return err
		}
		p := podRow{milliCPU: cpu, memoryMiB: mem, gpus: gpu, gpuMilli: milli}
		if spec := get("gpu_spec"); spec != "" && !strings.EqualFold(spec, "nan") {
			for m := range strings.SplitSeq(spec, "|") {
				p.models = append(p.models, strings.TrimSpace(m))
			}
		}
		out = append(out, p)
		return nil
	})
	return out, err
}

// ownTrace makes a fleet of mixed servers and a mix of pods, for runs without
// files.
func ownTrace(r *rand.Rand, nodes int) ([]nodeRow, []podRow) {
	var ns []nodeRow
	for i := range nodes {
		n := nodeRow{name: fmt.Sprintf("node-%04d", i), gpus: 8, milliCPU: 96000, memoryMiB: 786432, model: "A"}
		switch k := r.IntN(10); {
		case k < 3:
			n.gpus, n.milliCPU, n.memoryMiB, n.model = 2, 64000, 262144, "B"
		case k < 4:
			n.gpus, n.milliCPU, n.memoryMiB, n.model = 4, 64000, 393216, "C"
		}
		ns = append(ns, n)
	}
	var ps []podRow
	for range 2000 {
		p := podRow{gpus: 1, gpuMilli: 1000, milliCPU: int64(2+r.IntN(11)) * 1000, memoryMiB: int64(8+r.IntN(40)) * 1024}
		switch k := r.IntN(100); {
		case k < 8:
			p.gpus, p.gpuMilli = 0, 0
		case k < 20:
			p.gpus = 2
		case k < 28:
			p.gpus = 4
		case k < 34:
			p.gpus = 8
		}
		if p.gpus > 1 {
			p.milliCPU = int64(p.gpus) * int64(4+r.IntN(7)) * 1000
			p.memoryMiB = int64(p.gpus) * 32768
		}
		ps = append(ps, p)
	}
	return ns, ps
}
