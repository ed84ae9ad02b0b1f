package host

import "testing"

func TestParseFatal(t *testing.T) {
	for text, want := range map[string]struct {
		n  uint64
		ok bool
	}{
		"Undefined 0\nDLP 2\nTLP 0\nTOTAL_ERR_FATAL 2\n": {2, true},
		"TOTAL_ERR_FATAL 18446744073709551615":           {1<<64 - 1, true},
		"TOTAL_ERR_FATAL 18446744073709551616\n":         {0, false},
		"TOTAL_ERR_FATAL x\n":                            {0, false},
		"TOTAL_ERR_NONFATAL 3\n":                         {0, false},
		"":                                               {0, false},
	} {
		if n, ok := parseFatal([]byte(text)); ok != want.ok || ok && n != want.n {
			t.Errorf("%q: %d, %t", text, n, ok)
		}
	}
}

func FuzzParseFatal(f *testing.F) {
	f.Add([]byte("DLP 0\nTOTAL_ERR_FATAL 7\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, ok := parseFatal(b); !ok && n != 0 && len(b) < 20 {
			t.Errorf("%d without a number", n)
		}
	})
}
