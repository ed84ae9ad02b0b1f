// Package page tests the controller's page in headless Chromium: what is drawn, that
// nothing overflows, keyboard, console, colours, and how long it takes at 50 nodes. Its
// screenshots are in out/page.
//
// It is run by `make page-test`. The server is a plain one with a made-up cluster and a
// made-up authenticator; that the real API server lets only the right people to the page
// is tested in test/integration.
package page
