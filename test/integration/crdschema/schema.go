package crdschema

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// ErrRefused is the class of errors about objects that an API server would refuse.
var ErrRefused = errors.New("refused")

// Schema is what an API server knows of one kind.
type Schema struct {
	definition *apiextensions.CustomResourceDefinition
	columns    []apiextensionsv1.CustomResourceColumnDefinition
	structural *structuralschema.Structural
	validator  validation.SchemaValidator
	rules      *cel.Validator
}

// Load reads the definitions of a checkout as they are installed, patches
// included, by kind.
func Load(checkout string) (map[string]*Schema, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(checkout, "manifests/crd"))
	if err != nil {
		return nil, fmt.Errorf("kustomize manifests/crd: %w", err)
	}
	schemas := map[string]*Schema{}
	for _, r := range built.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			return nil, fmt.Errorf("definition %s: %w", r.GetName(), err)
		}
		var v1 apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &v1); err != nil {
			return nil, fmt.Errorf("definition %s: %w", r.GetName(), err)
		}
		s, err := newSchema(&v1)
		if err != nil {
			return nil, fmt.Errorf("definition %s: %w", r.GetName(), err)
		}
		schemas[v1.Spec.Names.Kind] = s
	}
	return schemas, nil
}

func newSchema(v1 *apiextensionsv1.CustomResourceDefinition) (*Schema, error) {
	apiextensionsv1.SetDefaults_CustomResourceDefinition(v1)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&v1.Spec)
	s := &Schema{definition: &apiextensions.CustomResourceDefinition{}, columns: v1.Spec.Versions[0].AdditionalPrinterColumns}
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(v1, s.definition, nil); err != nil {
		return nil, err
	}
	var schema apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v1.Spec.Versions[0].Schema.OpenAPIV3Schema, &schema, nil); err != nil {
		return nil, err
	}
	var err error
	if s.structural, err = structuralschema.NewStructural(&schema); err != nil {
		return nil, err
	}
	if s.validator, _, err = validation.NewSchemaValidator(&schema); err != nil {
		return nil, err
	}
	s.rules = cel.NewValidator(s.structural, true, celconfig.PerCallLimit)
	return s, nil
}

// Definition says what an API server would say to the definition itself: whether
// it is structural, its rules compile and cost little enough.
func (s *Schema) Definition(ctx context.Context) error {
	s.definition.Status.StoredVersions = []string{s.definition.Spec.Versions[0].Name}
	return crdvalidation.ValidateCustomResourceDefinition(ctx, s.definition).ToAggregate()
}

// Create does with an object what an API server does with one that is to be
// created under strict field validation: it writes the defaults into it and says
// what is wrong with it. Errors are of class [ErrRefused].
func (s *Schema) Create(ctx context.Context, o map[string]any) error {
	unknown := pruning.PruneWithOptions(o, s.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	if len(unknown) > 0 {
		return fmt.Errorf(`%w: unknown field "%s"`, ErrRefused, strings.Join(unknown, `", unknown field "`))
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(o, s.structural)
	defaulting.Default(o, s.structural)
	errs := validation.ValidateCustomResource(nil, o, s.validator)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, s.structural, o)...)
	if !blocking(errs) {
		rules, _ := s.rules.Validate(ctx, nil, s.structural, o, nil, celconfig.RuntimeCELCostBudget)
		errs = append(errs, rules...)
	}
	if len(errs) > 0 {
		return fmt.Errorf("%w: %w", ErrRefused, errs.ToAggregate())
	}
	return nil
}

// blocking tells whether rules are not looked at because of what the schema found,
// as the API server has it.
func blocking(errs field.ErrorList) bool {
	for _, err := range errs {
		switch err.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return true
		}
	}
	return false
}
