package certs

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ForValidatingWebhooks publishes to all webhooks of a ValidatingWebhookConfiguration.
// An absent configuration is no error: whoever installs it without it goes without.
func ForValidatingWebhooks(c client.Client, name string) Publisher {
	return func(ctx context.Context, bundle []byte) error {
		var config admissionv1.ValidatingWebhookConfiguration
		if err := c.Get(ctx, client.ObjectKey{Name: name}, &config); err != nil {
			return client.IgnoreNotFound(err)
		}
		before := config.DeepCopy()
		changed := false
		for i := range config.Webhooks {
			if !bytes.Equal(config.Webhooks[i].ClientConfig.CABundle, bundle) {
				config.Webhooks[i].ClientConfig.CABundle, changed = bundle, true
			}
		}
		if !changed {
			return nil
		}
		if err := c.Patch(ctx, &config, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
			return fmt.Errorf("publish the authority in ValidatingWebhookConfiguration %s: %w", name, err)
		}
		return nil
	}
}

// ForAPIService publishes to an APIService, which is read and written without its
// own Go types: only one field of it matters here. An absent one is no error.
func ForAPIService(c client.Client, name string) Publisher {
	return func(ctx context.Context, bundle []byte) error {
		service := &unstructured.Unstructured{}
		service.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService"})
		if err := c.Get(ctx, client.ObjectKey{Name: name}, service); err != nil {
			if meta.IsNoMatchError(err) {
				return nil // a cluster without aggregation
			}
			return client.IgnoreNotFound(err)
		}
		want := base64.StdEncoding.EncodeToString(bundle)
		have, _, err := unstructured.NestedString(service.Object, "spec", "caBundle")
		if err == nil && have == want {
			return nil
		}
		before := service.DeepCopy()
		if err := unstructured.SetNestedField(service.Object, want, "spec", "caBundle"); err != nil {
			return fmt.Errorf("publish the authority in APIService %s: %w", name, err)
		}
		if err := c.Patch(ctx, service, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
			return fmt.Errorf("publish the authority in APIService %s: %w", name, err)
		}
		return nil
	}
}
