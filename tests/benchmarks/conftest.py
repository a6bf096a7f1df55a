import sys
from pathlib import Path

# The scripts find their modules beside them.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
