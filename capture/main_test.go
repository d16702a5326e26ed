package capture

import (
	"os"
	"testing"

	"github.com/tributarydb/tributary/internal/testenv"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(childMain())
	}
	testenv.Main(m)
}
