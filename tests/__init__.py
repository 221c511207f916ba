"""Tests compute with one thread, in this process and in those that it starts.

Two busy threads for two cores are quick until a third process wants one of them; then every
operation waits for the slower thread. One thread also gives equal sums in every process.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # which is read once, so before torch is imported
