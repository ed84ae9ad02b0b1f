package plugin

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// asked is kubelet's question about n free devices.
func asked(n int) *pluginapi.PreferredAllocationRequest {
	c := &pluginapi.ContainerPreferredAllocationRequest{AllocationSize: 2, MustIncludeDeviceIDs: []string{"0000:00:00.1"}}
	for i := range n {
		c.AvailableDeviceIDs = append(c.AvailableDeviceIDs, fmt.Sprintf("0000:%02x:%02x.%d", i>>8, i>>3&31, i&7))
	}
	return &pluginapi.PreferredAllocationRequest{ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{c}}
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCodec(t *testing.T) {
	for name, m := range map[string]*pluginapi.PreferredAllocationRequest{
		"empty":          {},
		"nothing in it":  {ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{{}}},
		"two containers": {ContainerRequests: append(asked(3).ContainerRequests, asked(1).ContainerRequests...)},
		"negative":       {ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{{AllocationSize: -1}}},
		"many":           asked(4096),
	} {
		t.Run(name, func(t *testing.T) {
			b := encode(t, m)
			got := asked(1) // what is there goes
			// In pieces, as it comes from the network.
			pieces := mem.BufferSlice{mem.SliceBuffer(b[:len(b)/2]), mem.SliceBuffer(b[len(b)/2:])}
			if err := newCodec().Unmarshal(pieces, got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(m, got, protocmp.Transform()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	// Other messages are the library's.
	want := &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: []string{"a"}}}}
	got := &pluginapi.AllocateRequest{}
	if err := newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(encode(t, want))}, got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestCodecPlain: today's form is read without the library.
func TestCodecPlain(t *testing.T) {
	if _, ok := preferredRequest(string(encode(t, asked(100)))); !ok {
		t.Error("left to the library")
	}
}

// FuzzCodec: what the codec reads, and what it refuses, is what the library does.
func FuzzCodec(f *testing.F) {
	f.Add(encode(f, asked(3)))
	f.Add([]byte{0x0a, 0x02, 0x18, 0x80})
	f.Add([]byte{0x0a, 0x03, 0x0a, 0x01, 0xff})
	f.Add([]byte{0x0a, 0x04, 0x22, 0x02, 'x', 'y'})
	f.Fuzz(func(t *testing.T, b []byte) {
		data := mem.BufferSlice{mem.SliceBuffer(b)}
		want, got := &pluginapi.PreferredAllocationRequest{}, &pluginapi.PreferredAllocationRequest{}
		c := newCodec()
		werr, gerr := c.CodecV2.Unmarshal(data, want), c.Unmarshal(data, got)
		if (werr == nil) != (gerr == nil) {
			t.Fatalf("library: %v, codec: %v", werr, gerr)
		}
		if werr == nil && !proto.Equal(want, got) {
			t.Errorf("library: %v, codec: %v", want, got)
		}
	})
}

// BenchmarkCodec reads kubelet's question about 4,096 devices.
func BenchmarkCodec(b *testing.B) {
	text := encode(b, asked(4096))
	c := newCodec()
	for name, read := range map[string]func(mem.BufferSlice, any) error{"kubevfio": c.Unmarshal, "library": c.CodecV2.Unmarshal} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := read(mem.BufferSlice{mem.SliceBuffer(text)}, &pluginapi.PreferredAllocationRequest{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
