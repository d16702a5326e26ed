package capture

import (
	"testing"

	"github.com/tributarydb/tributary/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
