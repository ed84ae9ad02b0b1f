// Package domaintest checks domains without the help of the code that built
// them, for the tests of packages domain and rendercmd.
package domaintest
