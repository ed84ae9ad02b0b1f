package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// ready is a request whose encoding is made before the clock starts: that is
// kubelet's own time, like that of writing its list of pods.
type ready struct{ text []byte }

func makeReady(m proto.Message) (ready, error) {
	b, err := proto.Marshal(m)
	return ready{b}, err
}

// call makes a call with a request that is ready.
func (r ready) call(ctx context.Context, conn *grpc.ClientConn, method string, answer proto.Message) error {
	return conn.Invoke(ctx, method, r, answer, grpc.ForceCodecV2(readyCodec{encoding.GetCodecV2(grpcproto.Name)}))
}

type readyCodec struct{ encoding.CodecV2 }

// Marshal implements encoding.CodecV2.
func (c readyCodec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(ready); ok {
		return mem.BufferSlice{mem.SliceBuffer(r.text)}, nil
	}
	return c.CodecV2.Marshal(v)
}
