package proto_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/koios-metrics/koios/proto/exemplarspb"
	"github.com/koios-metrics/koios/proto/hintspb"
	"github.com/koios-metrics/koios/proto/infopb"
	"github.com/koios-metrics/koios/proto/labelpb"
	"github.com/koios-metrics/koios/proto/metadatapb"
	"github.com/koios-metrics/koios/proto/prompb"
	"github.com/koios-metrics/koios/proto/querypb"
	"github.com/koios-metrics/koios/proto/rulespb"
	"github.com/koios-metrics/koios/proto/statuspb"
	"github.com/koios-metrics/koios/proto/storepb"
	"github.com/koios-metrics/koios/proto/targetspb"
	"github.com/koios-metrics/koios/proto/writev2pb"

	// The packages that bring generated code of the same messages: a name that two of them register
	// would panic before any test runs.
	_ "github.com/prometheus/prometheus/prompb"
	_ "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	_ "github.com/thanos-io/promql-engine/engine"
)

var files = []protoreflect.FileDescriptor{
	labelpb.File_labelpb_label_proto,
	prompb.File_prompb_types_proto,
	prompb.File_prompb_remote_proto,
	storepb.File_storepb_types_proto,
	storepb.File_storepb_store_proto,
	storepb.File_storepb_write_proto,
	hintspb.File_hintspb_hints_proto,
	infopb.File_infopb_info_proto,
	rulespb.File_rulespb_rules_proto,
	targetspb.File_targetspb_targets_proto,
	metadatapb.File_metadatapb_metadata_proto,
	exemplarspb.File_exemplarspb_exemplars_proto,
	querypb.File_querypb_query_proto,
	statuspb.File_statuspb_status_proto,
	writev2pb.File_writev2pb_write_proto,
}

// The table in testdata, taken from the wire of Thanos, names every message, enum, field number, type
// and repetition there is: the generated code, seen through reflection, must be the same and no more.
func TestMessages(t *testing.T) {
	var got []string
	for _, f := range files {
		if f.Syntax() != protoreflect.Proto3 {
			t.Errorf("%s: syntax %v", f.Path(), f.Syntax())
		}
		got = append(got, describeEnums(f.Enums())...)
		got = append(got, describeMessages(f.Messages())...)
	}
	want := lines(t, "messages.txt")
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-table +generated)\n%s", d)
	}
}

// Lists of numbers travel packed, as every peer writes them.
func TestRepeatedScalarsArePacked(t *testing.T) {
	for _, f := range files {
		for i := range f.Messages().Len() {
			fs := f.Messages().Get(i).Fields()
			for j := range fs.Len() {
				fd := fs.Get(j)
				if numeric := fd.Kind() != protoreflect.StringKind && fd.Kind() != protoreflect.BytesKind && fd.Kind() != protoreflect.MessageKind; fd.IsList() && numeric && !fd.IsPacked() {
					t.Errorf("%s is not packed", fd.FullName())
				}
			}
		}
	}
}

// The table in testdata names every method: reflection must show the same, and so must the
// descriptors that gRPC serves and calls by.
func TestMethods(t *testing.T) {
	want := lines(t, "methods.txt")
	var got []string
	for _, f := range files {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				line := fmt.Sprintf("/%s/%s %s %s", s.FullName(), m.Name(), m.Input().FullName(), m.Output().FullName())
				if m.IsStreamingServer() {
					line += " stream"
				}
				if m.IsStreamingClient() {
					t.Errorf("%s streams requests", m.FullName())
				}
				got = append(got, line)
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("descriptors (-table +generated)\n%s", d)
	}

	got = nil
	for _, d := range []grpc.ServiceDesc{
		storepb.Store_ServiceDesc, storepb.WriteableStore_ServiceDesc, infopb.Info_ServiceDesc, rulespb.Rules_ServiceDesc,
		targetspb.Targets_ServiceDesc, metadatapb.Metadata_ServiceDesc, exemplarspb.Exemplars_ServiceDesc,
		querypb.Query_ServiceDesc, statuspb.Status_ServiceDesc,
	} {
		for _, m := range d.Methods {
			got = append(got, "/"+d.ServiceName+"/"+m.MethodName)
		}
		for _, s := range d.Streams {
			got = append(got, "/"+d.ServiceName+"/"+s.StreamName+" stream")
		}
	}
	for i, l := range want {
		f := strings.Fields(l)
		if len(f) == 4 {
			f[0] += " stream"
		}
		want[i] = f[0]
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("gRPC (-table +generated)\n%s", d)
	}
}

// Every message is found by name, which is how hints in a google.protobuf.Any are opened.
func TestRegistry(t *testing.T) {
	for _, url := range []string{"type.googleapis.com/hintspb.SeriesRequestHints", "type.googleapis.com/thanos.queryPlan"} {
		if _, err := protoregistry.GlobalTypes.FindMessageByURL(url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func describeEnums(es protoreflect.EnumDescriptors) []string {
	var ls []string
	for i := range es.Len() {
		e := es.Get(i)
		var vs []string
		for j := range e.Values().Len() {
			v := e.Values().Get(j)
			vs = append(vs, fmt.Sprintf("%s %d", v.Name(), v.Number()))
		}
		ls = append(ls, fmt.Sprintf("enum %s: %s", e.FullName(), strings.Join(vs, ", ")))
	}
	return ls
}

func describeMessages(ms protoreflect.MessageDescriptors) []string {
	var ls []string
	for i := range ms.Len() {
		m := ms.Get(i)
		if m.IsMapEntry() {
			continue
		}
		var fs []string
		for j := range m.Fields().Len() {
			fs = append(fs, describeField(m.Fields().Get(j)))
		}
		ls = append(ls, strings.TrimSpace(fmt.Sprintf("%s: %s", m.FullName(), strings.Join(fs, ", "))))
		ls = append(ls, describeEnums(m.Enums())...)
		ls = append(ls, describeMessages(m.Messages())...)
	}
	return ls
}

func describeField(f protoreflect.FieldDescriptor) string {
	name, typ := string(f.Name()), typeOf(f)
	switch {
	case f.IsMap():
		typ = fmt.Sprintf("map %s %s", typeOf(f.MapKey()), typeOf(f.MapValue()))
	case f.IsList():
		typ = "rep " + typ
	}
	if f.ContainingOneof() != nil {
		name = "?" + name
	}
	return fmt.Sprintf("%d %s:%s", f.Number(), name, typ)
}

func typeOf(f protoreflect.FieldDescriptor) string {
	var full string
	switch f.Kind() {
	case protoreflect.MessageKind:
		full = string(f.Message().FullName())
	case protoreflect.EnumKind:
		full = string(f.Enum().FullName())
	default:
		return f.Kind().String()
	}
	return strings.TrimPrefix(full, string(f.ParentFile().Package())+".")
}

func lines(t *testing.T, name string) []string {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var ls []string
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if l := strings.TrimSpace(sc.Text()); l != "" && !strings.HasPrefix(l, "#") {
			ls = append(ls, l)
		}
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	return ls
}
