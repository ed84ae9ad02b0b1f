package kubevirt

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/kubevfio/kubevfio/api/v1alpha1"
)

func specType() reflect.Type { return reflect.TypeFor[v1alpha1.VirtualMachineInstanceSpec]() }

// keep copies of a value what a Go type has by its JSON names, and notes the rest.
func (c *conversion) keep(v any, t reflect.Type, at string) any {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	// Types that read themselves (quantities, times) take the value as it is.
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return v
	}
	switch value := v.(type) {
	case map[string]any:
		switch t.Kind() {
		case reflect.Map:
			kept := map[string]any{}
			for k, e := range value {
				kept[k] = c.keep(e, t.Elem(), at+"."+k)
			}
			return kept
		case reflect.Struct:
			fields := map[string]reflect.Type{}
			jsonFields(t, fields)
			kept := map[string]any{}
			for _, k := range slices.Sorted(maps.Keys(value)) {
				field, ok := fields[k]
				switch {
				case !ok:
					c.lose(at+"."+k, "is not supported")
				case value[k] == nil:
				default:
					kept[k] = c.keep(value[k], field, at+"."+k)
				}
			}
			return kept
		}
	case []any:
		if t.Kind() == reflect.Slice {
			kept := make([]any, 0, len(value))
			for i, e := range value {
				kept = append(kept, c.keep(e, t.Elem(), fmt.Sprintf("%s[%d]", at, i)))
			}
			return kept
		}
	}
	return v
}

// jsonFields collects a struct's fields by JSON name, embedded ones included.
func jsonFields(t reflect.Type, into map[string]reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case name == "" && f.Anonymous:
			e := f.Type
			if e.Kind() == reflect.Pointer {
				e = e.Elem()
			}
			jsonFields(e, into)
		case name != "":
			into[name] = f.Type
		}
	}
}
