"""Sequences in which ranks work on one folder at once, and others use it meanwhile."""

from pathlib import Path

import pytest

from tests.stories import Story, seeds


class RanksStory(Story):
    """A story of ranks that run at the same time, in processes of their own."""

    def __init__(self, seed: int, root: Path) -> None:
        super().__init__(seed, root)
        self._settings["split.shard_size"] = "2"

    def make(self) -> None:
        """Let all ranks run at once, one of them twice, and others beside them."""
        commands = [["fetch"], ["fetch", "--replan"], ["fetch", "--retry-failed"]]
        command = self._chance.choice(commands + [["prepare"]] * 3)
        num_ranks = self._chance.choice([2, 3])
        words = self.by_recipe(*command, "--world-size", num_ranks, "--rank")
        begun = [
            self.begin(self._chance.choice(self.faults), *words, rank)
            for rank in (*range(num_ranks), self._chance.randrange(num_ranks))
        ]
        others = [self.choose_other() for _ in range(self._chance.randint(0, 2))]
        for finish in [*begun, *(self.begin("", *words) for words in others)]:
            assert "do not add up" not in finish()

    def choose_other(self) -> list[object]:
        """Return a command from outside, which no rank expects."""
        work, post_id = self._work.root, self._chance.choice([*self._posts])
        commands: list[list[object]] = [[name, work] for name in ("status", "verify", "report")]
        commands += [["push", work, self._there], ["takedown", work, post_id]]
        commands += [["repair", work, "--workers", 1]]
        commands += [self.by_recipe(name) for name in ("fetch", "prepare", "lock")]
        return self._chance.choice(commands)


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("seed", seeds(2, 6, 16))
def test_ranks_at_once_end_where_one_run_does(tmp_path: Path, seed: int) -> None:
    RanksStory(seed, tmp_path).live(8)
