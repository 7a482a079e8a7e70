#!/bin/sh
# Regenerates the Go code of all .proto files beside them. The three tools are built into .bin of the
# checkout at the versions below unless they are there already; the versions are also in the headers of
# the generated files, so a change of version shows as drift.
#
#   proto/generate.sh          lint and generate
#   proto/generate.sh check    the same, and fail when a generated file differs from the committed one
set -eu

buf=v1.75.0
protoc_gen_go=v1.36.12
protoc_gen_go_grpc=v1.6.2

proto=$(cd "$(dirname "$0")" && pwd)
bin=$(dirname "$proto")/.bin
mkdir -p "$bin"
PATH=$bin:$PATH
export PATH GOBIN="$bin"

at() { [ "$("$bin/$1" --version 2>/dev/null | sed 's/^.* //; s/^v//')" = "${2#v}" ]; }
at buf "$buf" || go install "github.com/bufbuild/buf/cmd/buf@$buf"
at protoc-gen-go "$protoc_gen_go" || go install "google.golang.org/protobuf/cmd/protoc-gen-go@$protoc_gen_go"
at protoc-gen-go-grpc "$protoc_gen_go_grpc" || go install "google.golang.org/grpc/cmd/protoc-gen-go-grpc@$protoc_gen_go_grpc"

cd "$proto"
buf lint
buf generate

if [ "${1:-}" = check ]; then
	drift=$(git status --porcelain -- . | grep '\.pb\.go$' || true)
	if [ -n "$drift" ]; then
		printf 'generated code differs from what is committed; run proto/generate.sh and commit:\n%s\n' "$drift" >&2
		exit 1
	fi
fi
