package certs

import (
	"bytes"
	"context"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
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
