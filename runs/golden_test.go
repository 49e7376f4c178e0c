package runs

import (
	"flag"
	"fmt"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

var update = flag.Bool("update", false, "write the golden files")

func TestStoredNames(t *testing.T) {
	const run = "run_01ARYZ6S410000000000000000"
	writtest.Golden(t, *update, "names.txt", fmt.Appendf(nil, "todo    %s\ntodo    %s\nindex   %s\ncounter %v\n", todoReap(run), todoOffer(run), writ.IndexUnfold, writ.RunUnfolded(run)))
}
