import subprocess
import sys

CODE = """
import sys
from pipeline.shards.arrow import leave_pandas_out
leave_pandas_out()
import pyarrow as pa
table = pa.table({"a": pa.array([1, 2])})
assert "pandas" not in sys.modules
assert table.to_pandas()["a"].sum() == 3
assert "pandas" in sys.modules
"""


def test_arrays_are_made_without_pandas_which_is_there_when_it_is_asked_for() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True)
