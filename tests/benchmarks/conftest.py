import sys
from pathlib import Path

# The benchmarks are programs: they find their neighbours by the folder that they are in.
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
