package engine

import "sync"

// Interner keeps one pointer per distinct shape, so that thousands of equal
// nodes share their structure and memo entries. The zero value is ready; it is
// safe for concurrent use. Shapes are kept for the life of the interner: there
// are as many as there are server models, not nodes.
type Interner struct {
	mu       sync.Mutex
	shapes   map[string]*Shape
	requests map[string]*Request
	pods     map[string]*Pod

	profiles profiles
}

// maxRequests bounds the table of requests; beyond it the table starts afresh.
const maxRequests = 4096

// Request returns the one pointer for equal requests, by which memo entries are
// found.
func (in *Interner) Request(r *Request) *Request {
	key := r.String()
	in.mu.Lock()
	defer in.mu.Unlock()
	if old, ok := in.requests[key]; ok {
		return old
	}
	if in.requests == nil || len(in.requests) >= maxRequests {
		in.requests = map[string]*Request{}
	}
	in.requests[key] = r
	return r
}

func (in *Interner) intern(s *Shape) *Shape {
	in.mu.Lock()
	defer in.mu.Unlock()
	if old, ok := in.shapes[s.key]; ok {
		return old
	}
	if in.shapes == nil {
		in.shapes = map[string]*Shape{}
	}
	s.id = uint64(len(in.shapes)) + 1
	s.in = in
	in.shapes[s.key] = s
	return s
}

// Len is the number of distinct shapes.
func (in *Interner) Len() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.shapes)
}

// Pod returns the one pointer for equal pods.
func (in *Interner) Pod(p *Pod) *Pod {
	req := in.Request(p.Request)
	key := p.key()
	in.mu.Lock()
	defer in.mu.Unlock()
	if old, ok := in.pods[key]; ok {
		return old
	}
	if in.pods == nil || len(in.pods) >= maxRequests {
		in.pods = map[string]*Pod{}
	}
	p.Request = req
	in.pods[key] = p
	return p
}

// Shapes are the distinct shapes, in no order.
func (in *Interner) Shapes() []*Shape {
	in.mu.Lock()
	defer in.mu.Unlock()
	out := make([]*Shape, 0, len(in.shapes))
	for _, s := range in.shapes {
		out = append(out, s)
	}
	return out
}
