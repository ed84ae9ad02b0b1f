package subresources

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
	"k8s.io/client-go/kubernetes"

	subresourcesv1alpha1 "github.com/kubevfio/kubevfio/api/subresources/v1alpha1"
)

// Where every cluster keeps whom its API server's front proxy and client
// certificates are signed by (kube-apiserver writes it).
const (
	authNamespace = metav1.NamespaceSystem
	authConfig    = "extension-apiserver-authentication"
)

const (
	// tokenTimeout bounds one question about a token, allowFor and denyFor how long
	// an answer about a right may be old, tokenFor about a token.
	tokenTimeout      = 10 * time.Second
	allowFor, denyFor = 10 * time.Second, 5 * time.Second
	tokenFor          = 10 * time.Second
	// maxReads and maxWrites are how many requests may be under way at a time, beside
	// streams.
	maxReads, maxWrites = 100, 100
)

// Auth says who a caller is and what it may do, by asking the API server.
type Auth struct {
	authn       authenticator.Request
	authz       authorizer.Authorizer
	headers     *authenticatorfactory.RequestHeaderConfig
	controllers []controller
}

// controller keeps something of the cluster's configuration up to date.
type controller interface {
	RunOnce(ctx context.Context) error
	Run(ctx context.Context, workers int)
}

// NewAuth makes it; nobody is let in before [Auth.Start]. kube needs the rights of
// the Role extension-apiserver-authentication-reader in kube-system, and to create
// TokenReviews and SubjectAccessReviews.
func NewAuth(kube kubernetes.Interface) (*Auth, error) {
	clients, err := dynamiccertificates.NewDynamicCAFromConfigMapController("client-ca", authNamespace, authConfig, "client-ca-file", kube)
	if err != nil {
		return nil, fmt.Errorf("client certificates: %w", err)
	}
	proxy, err := dynamiccertificates.NewDynamicCAFromConfigMapController("front-proxy", authNamespace, authConfig, "requestheader-client-ca-file", kube)
	if err != nil {
		return nil, fmt.Errorf("front proxy's certificates: %w", err)
	}
	names := headerrequest.NewRequestHeaderAuthRequestController(authConfig, authNamespace, kube,
		"requestheader-username-headers", "requestheader-uid-headers", "requestheader-group-headers",
		"requestheader-extra-headers-prefix", "requestheader-allowed-names")
	a := &Auth{controllers: []controller{clients, proxy, names}}
	a.headers = &authenticatorfactory.RequestHeaderConfig{
		CAContentProvider:   proxy,
		UsernameHeaders:     headerrequest.StringSliceProviderFunc(names.UsernameHeaders),
		UIDHeaders:          headerrequest.StringSliceProviderFunc(names.UIDHeaders),
		GroupHeaders:        headerrequest.StringSliceProviderFunc(names.GroupHeaders),
		ExtraHeaderPrefixes: headerrequest.StringSliceProviderFunc(names.ExtraHeaderPrefixes),
		AllowedClientNames:  headerrequest.StringSliceProviderFunc(names.AllowedClientNames),
	}
	backoff := &wait.Backoff{Duration: 500 * time.Millisecond, Factor: 1.5, Jitter: 0.2, Steps: 5}
	a.authn, _, err = authenticatorfactory.DelegatingAuthenticatorConfig{
		// The options that come with k8s.io/apiserver leave this on.
		Anonymous:                          &apiserver.AnonymousAuthConfig{Enabled: false},
		TokenAccessReviewClient:            kube.AuthenticationV1(),
		TokenAccessReviewTimeout:           tokenTimeout,
		WebhookRetryBackoff:                backoff,
		CacheTTL:                           tokenFor,
		ClientCertificateCAContentProvider: clients,
		RequestHeaderConfig:                a.headers,
	}.New()
	if err != nil {
		return nil, fmt.Errorf("authentication: %w", err)
	}
	a.authz, err = authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: kube.AuthorizationV1(),
		AllowCacheTTL:             allowFor, DenyCacheTTL: denyFor,
		WebhookRetryBackoff: backoff,
	}.New()
	if err != nil {
		return nil, fmt.Errorf("authorization: %w", err)
	}
	return a, nil
}

// Start follows the cluster's configuration until the context ends. The error is of
// the first look, after which everything is tried again by itself.
func (a *Auth) Start(ctx context.Context) error {
	var failures []error
	for _, c := range a.controllers {
		failures = append(failures, c.RunOnce(ctx))
		go c.Run(ctx, 1)
	}
	return errors.Join(failures...)
}

// Chain puts the filters around next: panics are caught, what a request is about is
// put into its context, it is bounded in time and number unless it is a stream, and
// it is authenticated and authorized.
func (a *Auth) Chain(next http.Handler) http.Handler {
	// Only for errors of the filters, which are a metav1.Status.
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	scheme.AddUnversionedTypes(metav1.SchemeGroupVersion, &metav1.Status{})
	codecs := serializer.NewCodecFactory(scheme)

	resolver := &request.RequestInfoFactory{APIPrefixes: sets.NewString("apis"), GrouplessAPIPrefixes: sets.NewString()}
	long := genericfilters.BasicLongRunningRequestCheck(sets.NewString("watch"),
		sets.NewString(subresourcesv1alpha1.Console, subresourcesv1alpha1.VNC, subresourcesv1alpha1.Log))

	h := genericapifilters.WithAuthorization(next, a.authz, codecs)
	h = genericfilters.WithMaxInFlightLimit(h, maxReads, maxWrites, long)
	h = noAnonymous(h)
	h = genericapifilters.WithAuthentication(h, a.authn, genericapifilters.Unauthorized(codecs), nil, a.headers)
	h = genericfilters.WithTimeoutForNonLongRunningRequests(h, long)
	h = withDeadline(h, long)
	h = genericapifilters.WithRequestInfo(h, resolver)
	return genericfilters.WithPanicRecovery(h, resolver)
}

// noAnonymous refuses callers whom the front proxy names as anonymous: whoever binds
// a role to them by mistake opens consoles to nobody.
func noAnonymous(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, ok := request.UserFrom(r.Context())
		if !ok || u.GetName() == user.Anonymous || slices.Contains(u.GetGroups(), user.AllUnauthenticated) {
			answer(w, http.StatusUnauthorized, metav1.Status{
				TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
				Status:   metav1.StatusFailure, Code: http.StatusUnauthorized, Reason: metav1.StatusReasonUnauthorized,
				Message: "anonymous callers are not served",
			})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// requestLimit bounds requests that are no streams.
const requestLimit = 30 * time.Second

func withDeadline(next http.Handler, long request.LongRunningRequestCheck) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, ok := request.RequestInfoFrom(r.Context())
		if ok && !long(r, info) {
			ctx, cancel := context.WithTimeout(r.Context(), requestLimit)
			defer cancel()
			r = r.WithContext(ctx)
		}
		next.ServeHTTP(w, r)
	})
}
