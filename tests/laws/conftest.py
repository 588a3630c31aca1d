"""Lets the laws import the checks, models and flaws beside them, in any import mode of pytest."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
