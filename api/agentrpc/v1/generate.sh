#!/bin/sh
# Regenerates agent.pb.go and agent_grpc.pb.go. Needs protoc (Debian's
# protobuf-compiler) in PATH; the Go plugins are pinned here.
set -eu
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
go build -o "$tmp/protoc-gen-go" google.golang.org/protobuf/cmd/protoc-gen-go
GOBIN="$tmp" GOFLAGS= go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.1
PATH="$tmp:$PATH" protoc -I . --go_out=. --go_opt=paths=source_relative \
	--go-grpc_out=. --go-grpc_opt=paths=source_relative agent.proto
