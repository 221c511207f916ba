"""pyarrow without pandas, which it would import at the first array that it makes."""

import importlib.abc
import sys
from importlib.machinery import ModuleSpec

import pyarrow as pa


class _Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError("no pandas here", name=fullname)
        return None


def leave_pandas_out() -> None:
    """Keep pyarrow from importing pandas in this process.

    It looks once, at the first array, whatever that is of, and the import takes longer than all
    else that a worker needs. ``to_pandas`` still works, and so does ``import pandas``; only a
    DataFrame is no longer taken for a table. Does nothing where pandas is imported already.
    """
    if "pandas" in sys.modules:
        return
    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(absent)
