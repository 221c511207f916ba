"""A stage away from the work folder: in scratch on any machine, its outcome into a store."""

import platform
from dataclasses import dataclass, replace
from functools import cache, partial

from pipeline.counts import Fates
from pipeline.errors import DamagedError, UserError
from pipeline.executor import Tick
from pipeline.shard_store.files import (
    Kind,
    download_checked_tar,
    download_rows,
    download_tar,
    put_shard,
    scratch_work,
)
from pipeline.shard_store.identity import MAX_IDENTITY
from pipeline.shard_store.scratch import process_scratch
from pipeline.shards.shard import rows_path
from pipeline.share.index import IDENTITY
from pipeline.stages.fetch import FetchStage
from pipeline.stages.originals import split_tar
from pipeline.stages.prepare import PrepareStage
from pipeline.stores.open import open_writable
from pipeline.stores.remote import PATIENCE, retry_while_down
from pipeline.stores.transfer import WritableStore
from pipeline.work import Work

_PATIENCE_AT_FIRST = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class StageInStore:
    """Runs a stage for a shard where no work folder is, between a store and a scratch folder.

    Attributes:
        stage: its folders are those of the driver, and are not touched.
        url: of the store; its credentials are in each machine's own environment.
    """

    stage: FetchStage | PrepareStage
    url: str

    def __call__(self, name: str, tick: Tick) -> Fates:
        """Do shard ``name`` and put it into the store, its rows last.

        What an earlier ``fetch`` settled of the shard is not asked for again, if the store has it.

        Raises:
            DamagedError: where the store holds something else than was put there.
            UserError: where the store is out of reach, or there is no room for a shard.
        """
        store = _open(self.url)
        with scratch_work() as work:
            if isinstance(self.stage, FetchStage):
                fates = self._fetch(self.stage, name, work, store, tick)
            else:
                fates = self._prepare(self.stage, name, work, store, tick)
        return fates

    def _fetch(
        self, stage: FetchStage, name: str, work: Work, store: WritableStore, tick: Tick
    ) -> Fates:
        if not download_rows(store, Kind.PLAN, name, work.plan_path):
            raise DamagedError(f"{store.url}/{Kind.PLAN}/{name}.parquet: is not there.")
        ledger = rows_path(work.ledger_dir, name)
        if download_rows(store, Kind.RAW, name, rows_path(work.raw_dir, name)):
            download_tar(store, Kind.RAW, name, work.root)  # the stage finds what in it is sound
            download_rows(store, Kind.LEDGER, name, ledger)
        index_dir = process_scratch() if split_tar(stage.source.images)[1] else None
        fates = replace(stage, work=work, index_dir=index_dir)(name, tick)
        put_shard(store, Kind.RAW, name, work.root, ledger)
        return fates

    def _prepare(
        self, stage: PrepareStage, name: str, work: Work, store: WritableStore, tick: Tick
    ) -> Fates:
        if not download_rows(store, Kind.RAW, name, rows_path(work.raw_dir, name)):
            raise DamagedError(f"{store.url}/{Kind.RAW}/{name}.parquet: is not there; run `fetch`.")
        download_checked_tar(store, Kind.RAW, name, work.root)
        fates = replace(stage, work=work)(name, tick)
        put_shard(store, Kind.SAMPLES, name, work.root)
        return fates


@cache
def _open(url: str) -> WritableStore:
    """Return a store, the same for all shards of a process.

    It is waited for from the start: it has answered the driver.
    """
    return retry_while_down(partial(_open_and_ask, url), PATIENCE)


def _open_and_ask(url: str) -> WritableStore:
    store = open_writable(url)
    store.read(IDENTITY, MAX_IDENTITY)  # so that it has answered here
    return store


def check_reach(url: str, patience: float = _PATIENCE_AT_FIRST) -> None:
    """Ask a store from this machine that has answered the driver a moment ago.

    Args:
        url: of the store.
        patience: seconds for which to wait for an answer.

    Raises:
        UserError: where there is none, or a refusal: this machine looks for it elsewhere, or with
            other credentials.
    """
    try:
        retry_while_down(partial(_open_and_ask, url), patience)
    except UserError as error:
        raise UserError(
            f"{error} So says {platform.node()}, a machine of the cluster, while the store answers "
            "this one: start Ray there with the store's address and credentials in its "
            "environment, as they are here (AWS_ENDPOINT_URL, AWS_PROFILE, ...)."
        ) from error
