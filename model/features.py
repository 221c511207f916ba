"""The style features of a set of samples, each computed once and kept in a file.

A frozen style network gives the same features every epoch, and VGG19 costs more than the
generator does. They are kept as float16, and used as float16 even when fresh, so that a run does
not depend on what happens to be in the file.
"""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.data import Batch, Samples
from model.style import StyleNetwork
from pipeline.errors import UserError
from pipeline.rows import replacing


class StyleFeatures:
    """Style features of samples, from the file or from the network.

    Args:
        network: on the device where features are wanted.
        samples: whose features these are; self-reference: a sample's own picture is its reference.
        cache_dir: folder of the file, or None to compute every time.

    Raises:
        UserError: where the disk has no room for the file.
    """

    def __init__(self, network: StyleNetwork, samples: Samples, cache_dir: Path | None) -> None:
        self._network = network
        self._file: int | None = None
        if cache_dir is None:
            return
        self._shape = tuple(network.shape)
        self._row_bytes = 2 * int(np.prod(self._shape))
        identity = f"{network.provenance.sha256} {network.normalised} {samples.fingerprint}"
        key = hashlib.sha256(identity.encode()).hexdigest()[:16]
        path = cache_dir / f"{samples.split}-{key}.f16"
        self._known_path = path.with_suffix(".known")
        cache_dir.mkdir(parents=True, exist_ok=True)
        self._known = _read_known(self._known_path, len(samples))
        needed = int((~self._known).sum()) * self._row_bytes
        if needed > shutil.disk_usage(cache_dir).free:
            raise UserError(
                f"{cache_dir}: no room for {needed / 1e9:.1f} GB of style features. Free some, "
                "or compute them every time: --set train.cache_style=false."
            )
        self._dirty = False
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def __call__(self, batch: Batch, reference: Tensor) -> Tensor:
        """Return a batch's style features, float N x the network's shape, on its device.

        Args:
            batch: says which samples.
            reference: their pictures as the network takes them.
        """
        if self._file is None:
            features: Tensor = self._network(reference)
            return features
        missing = np.flatnonzero(~self._known[batch.indices])
        if missing.size:
            fresh = self._network(reference[torch.from_numpy(missing).to(reference.device)])
            self._write(batch.indices[missing], fresh)
        rows = np.empty((len(batch.indices), *self._shape), dtype=np.float16)
        for row, index in zip(rows, batch.indices, strict=True):
            row.flat = np.frombuffer(
                os.pread(self._file, self._row_bytes, int(index) * self._row_bytes), np.float16
            )
        return torch.from_numpy(rows).to(reference.device).float()

    def flush(self) -> None:
        """Make what was computed outlive a crash: features first, then the note that they exist."""
        if self._file is not None and self._dirty:
            os.fsync(self._file)
            with replacing(self._known_path) as temporary:
                temporary.write_bytes(np.packbits(self._known).tobytes())
            self._dirty = False

    def close(self) -> None:
        """Flush, and close the file."""
        if self._file is not None:
            self.flush()
            os.close(self._file)
            self._file = None

    def _write(self, indices: np.ndarray[tuple[int], np.dtype[np.int64]], fresh: Tensor) -> None:
        assert self._file is not None
        for index, row in zip(indices, fresh.half().cpu().numpy(), strict=True):
            os.pwrite(self._file, row.tobytes(), int(index) * self._row_bytes)
        self._known[indices] = True
        self._dirty = True


def _read_known(path: Path, num_samples: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    if not path.is_file():
        return np.zeros(num_samples, dtype=bool)
    bits = np.frombuffer(path.read_bytes(), np.uint8)
    return np.unpackbits(bits, count=num_samples).astype(bool)
