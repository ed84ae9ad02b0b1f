package plugin

import (
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// codec is gRPC's codec of protocol buffers, except that it reads
// PreferredAllocationRequest itself. Kubelet puts all free devices of a resource
// into that message, thousands of short strings. The library makes each a piece of
// memory of its own; here they are parts of one.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(*pluginapi.PreferredAllocationRequest); ok {
		var text strings.Builder
		text.Grow(data.Len())
		for _, b := range data {
			text.Write(b.ReadOnlyData())
		}
		if containers, ok := preferredRequest(text.String()); ok {
			r.Reset()
			r.ContainerRequests = containers
			return nil
		}
	}
	return c.CodecV2.Unmarshal(data, v)
}

// preferredRequest reads the message's encoding. It is false for anything that is
// not plainly of today's form, also where the library would take it.
func preferredRequest(text string) ([]*pluginapi.ContainerPreferredAllocationRequest, bool) {
	var out []*pluginapi.ContainerPreferredAllocationRequest
	for len(text) > 0 {
		field, body, _, rest, ok := protoField(text)
		if !ok || field != 1<<3|2 {
			return nil, false
		}
		text = rest
		c, ok := containerRequest(body)
		if !ok {
			return nil, false
		}
		out = append(out, c)
	}
	return out, true
}

func containerRequest(text string) (*pluginapi.ContainerPreferredAllocationRequest, bool) {
	var counts [3]int
	for rest := text; len(rest) > 0; {
		field, _, _, next, ok := protoField(rest)
		if !ok {
			return nil, false
		}
		if field == 1<<3|2 || field == 2<<3|2 {
			counts[field>>3]++
		}
		rest = next
	}
	c := &pluginapi.ContainerPreferredAllocationRequest{}
	if counts[1] > 0 {
		c.AvailableDeviceIDs = make([]string, 0, counts[1])
	}
	if counts[2] > 0 {
		c.MustIncludeDeviceIDs = make([]string, 0, counts[2])
	}
	for len(text) > 0 {
		field, body, n, rest, _ := protoField(text)
		text = rest
		switch {
		case field == 1<<3|2 && utf8.ValidString(body):
			c.AvailableDeviceIDs = append(c.AvailableDeviceIDs, body)
		case field == 2<<3|2 && utf8.ValidString(body):
			c.MustIncludeDeviceIDs = append(c.MustIncludeDeviceIDs, body)
		case field == 3<<3:
			c.AllocationSize = int32(n) // cut off, as the encoding says
		default:
			return nil, false
		}
	}
	return c, true
}

// protoField takes one field off an encoded message: its tag (number<<3 | wire
// type), and the bytes of wire type 2 or the number of wire type 0. Others are
// false. See https://protobuf.dev/programming-guides/encoding.
func protoField(text string) (tag uint64, body string, n uint64, rest string, ok bool) {
	tag, text, ok = varint(text)
	if !ok {
		return 0, "", 0, "", false
	}
	n, text, ok = varint(text)
	switch {
	case !ok:
		return 0, "", 0, "", false
	case tag&7 == 0:
		return tag, "", n, text, true
	case tag&7 == 2 && n <= uint64(len(text)):
		return tag, text[:n], 0, text[n:], true
	}
	return 0, "", 0, "", false
}

// varint takes a number of base 128 off.
func varint(text string) (n uint64, rest string, ok bool) {
	for i := 0; i < len(text) && i < 9; i++ { // a tenth byte only negative numbers have
		b := text[i]
		n |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return n, text[i+1:], true
		}
	}
	return 0, "", false
}
