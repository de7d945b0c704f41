"""Where the public data lie that some tests read: RAYLR_DATA, by default `shared/data` beside the project."""

import os
from pathlib import Path

DATA = Path(os.environ.get("RAYLR_DATA", Path(__file__).parents[3] / "shared" / "data"))
