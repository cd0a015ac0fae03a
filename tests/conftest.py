"""Lets the tests import `sealing` and `fuzzing` from this directory."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
