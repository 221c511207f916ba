"""Import this to compute with one thread: small networks, and cores that other tests share.

Two busy threads for two cores are quick until a third process wants one of them; then every
operation waits for the slower thread. One thread also gives equal sums in child processes, where
``ENVIRONMENT`` asks for the same.
"""

import os

import torch

torch.set_num_threads(1)

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
