import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.jittor_setup  # noqa: F401  (before any test imports Jittor)
