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

from model.data import Batch, Indices, Samples
from model.style import StyleNetwork
from pipeline.errors import UserError


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
        cache_dir.mkdir(parents=True, exist_ok=True)
        self._notes = os.open(path.with_suffix(".known"), os.O_RDWR | os.O_CREAT, 0o644)
        self._known = np.zeros(len(samples), dtype=bool)
        self._fresh: list[Indices] = []
        self._read_notes()
        needed = int((~self._known).sum()) * self._row_bytes
        if needed > shutil.disk_usage(cache_dir).free:
            raise UserError(
                f"{cache_dir}: no room for {needed / 1e9:.1f} GB of style features. Free some, "
                "or compute them every time: --set train.cache_style=false."
            )
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
        kept = torch.from_numpy(rows)
        if reference.device.type == "cuda":  # a copy from pageable memory would stall the host
            kept = kept.pin_memory()
        return kept.to(reference.device, non_blocking=True).float()

    def flush(self) -> None:
        """Make what was computed outlive a crash: features first, then the note that they exist.

        A note is a byte of its own, so that processes side by side take none of each other's back;
        what they noted meanwhile is known from now on.
        """
        if self._file is None:
            return
        if self._fresh:
            os.fsync(self._file)
            for index in np.concatenate(self._fresh):
                os.pwrite(self._notes, b"\1", int(index))
            os.fsync(self._notes)
            self._fresh.clear()
        self._read_notes()

    def close(self) -> None:
        """Flush, and close the file."""
        if self._file is not None:
            self.flush()
            os.close(self._file)
            os.close(self._notes)
            self._file = None

    def _write(self, indices: Indices, fresh: Tensor) -> None:
        assert self._file is not None
        for index, row in zip(indices, fresh.half().cpu().numpy(), strict=True):
            os.pwrite(self._file, row.tobytes(), int(index) * self._row_bytes)
        self._known[indices] = True
        self._fresh.append(indices)

    def _read_notes(self) -> None:
        notes = np.frombuffer(os.pread(self._notes, len(self._known), 0), np.uint8)
        self._known[: len(notes)] |= notes == 1
