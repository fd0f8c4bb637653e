"""Where the repository, its parts and what lies beside it are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "uniad_lightning"
TESTS = ROOT / "tests"
SHARED = ROOT.parent / "shared"
