package subresources

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	subresourcesv1alpha1 "github.com/kubevfio/kubevfio/api/subresources/v1alpha1"
)

// discover answers what clients and the API server ask before all else. The group
// lists subresources only: with a parent of the same name kubectl could take it for
// the objects of group kubevfio.io.
func (h *Handler) discover(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		fail(w, r, apierrors.NewMethodNotSupported(schema.GroupResource{Group: subresourcesv1alpha1.Group}, r.Method))
		return
	}
	version := metav1.GroupVersionForDiscovery{GroupVersion: subresourcesv1alpha1.GroupVersion, Version: subresourcesv1alpha1.Version}
	group := metav1.APIGroup{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"},
		Name:     subresourcesv1alpha1.Group, Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version,
	}
	switch r.URL.Path {
	case "/apis", "/apis/":
		answer(w, http.StatusOK, metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{group}})
	case "/apis/" + subresourcesv1alpha1.Group, "/apis/" + subresourcesv1alpha1.Group + "/":
		answer(w, http.StatusOK, group)
	case "/apis/" + subresourcesv1alpha1.GroupVersion, "/apis/" + subresourcesv1alpha1.GroupVersion + "/":
		answer(w, http.StatusOK, resourceList())
	default:
		fail(w, r, &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
			Message: fmt.Sprintf("%s is not served", r.URL.Path),
		}})
	}
}

func resourceList() metav1.APIResourceList {
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: subresourcesv1alpha1.GroupVersion}
	for resource, subs := range routes() {
		for name, rt := range subs {
			verb := metav1.Verbs{"get"}
			if rt.method == http.MethodPut {
				verb = metav1.Verbs{"update"}
			}
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: resource + "/" + name, Namespaced: true, Kind: rt.kind, Verbs: verb})
		}
	}
	slices.SortFunc(list.APIResources, func(a, b metav1.APIResource) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
