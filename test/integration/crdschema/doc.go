// Package crdschema holds the schemas of virtual machines against what the
// controller and the launcher take, in process: it runs the API server's own code
// for custom resources (strict decoding, defaults, schema, list types, CEL rules)
// without an API server, thousands of objects a second.
//
// Traps:
//   - Admission policies are not part of it; package admission has the API server.
package crdschema
