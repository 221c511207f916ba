"""The style features of a set of samples, each computed once and kept in a file.

A frozen style network gives the same features every epoch, and VGG19 costs more than the
generator does. They are kept as float16, and used as float16 even when fresh, so that a run does
not depend on what happens to be in the file. What a step computes is written by the next one: a
GPU has it ready by then, and never runs dry while this process waits for it.
"""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.data.order import Indices
from model.data.samples import Batch, Samples
from model.networks.style import StyleNetwork
from pipeline.disk import open_no_link, telling_unwritable
from pipeline.errors import UserError
from pipeline.words import sized


class _Computed:
    """Features on their way from the device, and whose they are."""

    def __init__(self, indices: Indices, features: Tensor) -> None:
        self.indices = indices
        self._copy = features.detach().to("cpu", non_blocking=True)
        self._arrived = torch.Event("cuda") if features.is_cuda else None
        if self._arrived is not None:
            self._arrived.record()

    def rows(self) -> NDArray[np.float16]:
        """Return them, after a wait where the copy has not arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        rows: NDArray[np.float16] = self._copy.numpy()
        return rows


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
        with telling_unwritable(cache_dir):
            cache_dir.mkdir(parents=True, exist_ok=True)
        self._file = open_no_link(str(path), os.O_RDWR)
        self._notes = open_no_link(str(path.with_suffix(".known")), os.O_RDWR)
        self._known = np.zeros(len(samples), dtype=bool)
        self._fresh: list[Indices] = []
        self._late: _Computed | None = None
        self._forget_lost()
        self._read_notes()
        needed = int((~self._known).sum()) * self._row_bytes
        if needed > shutil.disk_usage(cache_dir).free:
            raise UserError(
                f"{cache_dir}: no room for {sized(needed)} of style features. Free some, "
                "or compute them every time: --set train.cache_style=false."
            )

    def __call__(self, batch: Batch, reference: Tensor) -> Tensor:
        """Return a batch's style features, float N x the network's shape, on its device.

        ``reference`` has the samples' pictures as the network takes them.
        """
        if self._file is None:
            features: Tensor = self._network(reference)
            return features
        self._write_late()
        known = self._known[batch.indices]
        on_gpu = reference.device.type == "cuda"  # where pageable memory would stall the host
        kept = torch.empty(len(known), *self._shape, dtype=torch.float16, pin_memory=on_gpu)
        rows = kept.numpy()
        for i in np.flatnonzero(known):
            offset = int(batch.indices[i]) * self._row_bytes
            # False where the file was cut short meanwhile
            known[i] = os.preadv(self._file, [rows[i]], offset) == self._row_bytes
        kept = kept.to(reference.device, non_blocking=True)
        if not known.all():
            missing = np.flatnonzero(~known)
            places = torch.from_numpy(missing).to(reference.device, non_blocking=True)
            fresh = self._network(reference[places]).half()
            if fresh.shape[1:] != self._shape:
                raise UserError(
                    f"{self._network.name} gives {tuple(fresh.shape[1:])} features for pictures "
                    f"of this size, and {self._shape} can be kept: --set train.cache_style=false."
                )
            kept = kept.index_copy(0, places, fresh)
            self._late = _Computed(batch.indices[missing], fresh)
        return kept.float()

    def flush(self) -> None:
        """Make what was computed outlive a crash: features first, then the note that they exist.

        Each note is one byte, so processes that share the file never overwrite each other's notes.
        Those that others wrote meanwhile are read here.
        """
        if self._file is None:
            return
        self._write_late()
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

    def _write_late(self) -> None:
        if self._late is None:
            return
        assert self._file is not None
        indices, rows = self._late.indices, self._late.rows()
        self._late = None
        for index, row in zip(indices, rows, strict=True):
            os.pwrite(self._file, row.tobytes(), int(index) * self._row_bytes)
        self._known[indices] = True
        self._fresh.append(indices)

    def _forget_lost(self) -> None:
        """Drop the notes of features that the file does not hold: it was lost, or cut short."""
        assert self._file is not None
        # In this order: a process beside this one writes features before their notes.
        num_noted = os.fstat(self._notes).st_size
        num_held = os.fstat(self._file).st_size // self._row_bytes
        if num_noted > num_held:
            os.ftruncate(self._notes, num_held)

    def _read_notes(self) -> None:
        notes = np.frombuffer(os.pread(self._notes, len(self._known), 0), np.uint8)
        self._known[: len(notes)] |= notes == 1
