"""Commands in any order, in a world that changes meanwhile, end where one run afresh would."""

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import cli
from pipeline.errors import UserError
from pipeline.removals import read_removals
from pipeline.work import Work
from tests.calls import call
from tests.crashing import in_child, make_source, meet_fault, original_path
from tests.pictures import draw_picture, encoded
from tests.sources import originals
from tests.takedowns import members, readable

SETTINGS = (
    *("prepare.size=32", "prepare.size=48", "prepare.near_duplicates=-1", "prepare.min_side=80"),
    *("split.seed=1", "split.shard_size=8", "split.by='character'", "source.max_bytes=2000"),
)
FAULTS = ("", "", "", "kill", "full disk")
CHANGES = {"is_deleted": True, "is_banned": True, "parent_id": 1, "rating": "q"}


class Story:
    """A work folder, a place where it is shared, the world around them, and what was ``told``."""

    def __init__(self, seed: int, root: Path) -> None:
        self.told: list[str] = []
        self._chance, self._root = random.Random(seed), root
        self._work, self._there = Work(root / "work"), root / "there"
        self._posts: dict[int, dict[str, Any]] = {}
        self._pictures: dict[int, list[bytes]] = {}
        self._settings: dict[str, str] = {}
        make_source(root)  # of whose posts only the recipe is of use
        self.add_posts(10)

    def run(self, num_steps: int) -> None:
        steps = [self.make, self.make, self.look_after, self.change_world, self.damage]
        for step in (self.make, *self._chance.choices(steps, k=num_steps)):
            step()

    def do(self, command: object, *words: object) -> Result:
        self.told.append(" ".join(map(str, [command, *words])))
        result = call(command, *words)
        self.told += [*result.output.splitlines(), str(result.exception)]
        assert ends_well(result), result.exception
        return result

    def risk(self, *words: object) -> None:
        fault, number = self._chance.choice(FAULTS), self._chance.randint(1, 90)

        def meet() -> bool:
            meet_fault(fault, number, self._root)
            return ends_well(call(*words))

        if fault:
            self.told.append(f"{fault} at {number}: " + " ".join(map(str, words)))
            assert in_child(meet) in (True, 9)
        else:
            self.do(*words)

    def by_recipe(self, command: str, *words: object, work: Path | None = None) -> list[object]:
        sets = [x for key, value in self._settings.items() for x in ("--set", f"{key}={value}")]
        place = ["--work", work or self._work.root, "--workers", 1]
        return [command, self._root / "recipe.toml", *place, *sets, *words]

    def make(self) -> None:
        commands = [["fetch"], ["fetch", "--replan"], ["fetch", "--retry-failed"]]
        commands += [["prepare"]] * 3
        part = ["--rank", str(self._chance.randint(0, 1)), "--world-size", "2"]
        part *= self._chance.random() < 0.2
        self.risk(*self.by_recipe(*self._chance.choice(commands), *part))

    def look_after(self) -> None:
        work, post_id = self._work.root, self._chance.choice([*self._posts])
        commands: list[list[object]] = [["repair", work, "--workers", 1], ["report", work]]
        commands += [["push", work, self._there], ["takedown", work, post_id]] * 3
        self.risk(*self._chance.choice([*commands, ["pull", self._there, self._root / "far"]]))

    def damage(self) -> None:
        """Damage a file, but for the list of what was taken down: nothing promises to mend that."""
        files = sorted(path for path in self._work.root.glob("**/[!.]*") if path.is_file())
        kinds = {path.relative_to(self._work.root).parts[0] for path in files} - {"takedown.json"}
        for kind in self._chance.sample(sorted(kinds), min(1, len(kinds))):
            among = [path for path in files if path.is_relative_to(self._work.root / kind)]
            path = self._chance.choice(among)
            self.told.append(f"damage {path}")
            data = bytearray(path.read_bytes() or b"x")
            data[self._chance.randrange(len(data))] ^= 1
            path.write_bytes(data) if self._chance.random() < 0.5 else path.unlink()

    def change_world(self) -> None:
        post_id, number = self._chance.choice([*self._posts]), self._chance.randint(100, 120)
        key, _, value = self._chance.choice(SETTINGS).partition("=")
        what = self._chance.choice(["picture", "setting", "posts", *CHANGES])
        self.told.append(f"{what} of {post_id}, {number}, {key}={value}")
        if what == "picture":
            self.put_picture(post_id, self._chance.choice([0, number]))
        elif what == "posts":
            self.add_posts(3)
        elif what in CHANGES:
            self.change_record(post_id, what, CHANGES[what])
        else:
            self._settings[key] = value

    def add_posts(self, num_posts: int) -> None:
        """Add posts, some of which belong to earlier ones, or show the same picture."""
        for post_id in range(len(self._posts) + 1, len(self._posts) + 1 + num_posts):
            others = [*self._posts][-3:]
            self._posts[post_id] = {"id": post_id, "rating": "s", "file_ext": "jpg", "x": ""} | {
                "parent_id": self._chance.choice([None, None, *others]),
                "tag_string_general": f"solo number_{post_id}_",
                "tag_string_character": self._chance.choice(["", "miku", "rin"]),
            }
            self.put_picture(post_id, self._chance.choice([post_id, post_id, post_id, *others]))
        self.change_record(1, "rating", "s")

    def put_picture(self, post_id: int, number: int) -> None:
        """Let a post show the picture of a number; of 0 there is none."""
        path = original_path(self._root, post_id)
        path.unlink(missing_ok=True)
        if number:
            path.write_bytes(encoded(draw_picture(number, 72, 72), "jpeg"))
            self._pictures.setdefault(post_id, []).append(path.read_bytes())

    def change_record(self, post_id: int, key: str, value: object) -> None:
        """Change a record; a plan only sees what changes the size of the metadata."""
        self._posts[post_id][key] = value
        self._posts[1]["x"] += "x" * 20
        (self._root / "posts.json").write_text("\n".join(map(json.dumps, self._posts.values())))

    def end(self) -> None:
        """Do as commands say until nothing is broken, and see that all is as it would be afresh.

        What has come is not asked for again, so originals need not be those of today.
        """
        work, again, fresh = self._work.root, self._root / "again", Work(self._root / "fresh")
        for _ in range(6):
            start = len(self.told)
            self.do("repair", work, "--workers", 1)
            self.do(*self.by_recipe("fetch", "--replan", "--retry-failed"))
            said = "\n".join(self.told[start:])
            if "a takedown was cut short" in said:
                self.do("takedown", work)
                continue
            for path in re.findall(r"^(\S+): (?:does not belong|too damaged to be)", said, re.M):
                Path(path).unlink()
            self.do(*self.by_recipe("prepare"))
            if self.do("verify", work).exit_code == 0:
                break
        ends = [["status", work], ["push", work, self._there], ["pull", self._there, again]]
        for words in (*ends, *(["verify", place] for place in (work, self._there, again))):
            assert self.do(*words).exit_code == 0
        for folder in (images := self._root / "images", fresh.root):
            folder.mkdir()
        for post_id, data in originals(self._work).items():
            assert data in self._pictures[post_id]
            (images / f"{post_id}.jpg").write_bytes(data)
        if self._work.removals_path.exists():
            shutil.copy(self._work.removals_path, fresh.removals_path)
        self.do(*self.by_recipe("fetch", "--images", images / "{id}.jpg", work=fresh.root))
        self.do(*self.by_recipe("prepare", work=fresh.root))
        assert members(self._work) == members(fresh)
        for post_id in read_removals(self._work.removals_path).post_ids:
            for place in (work, self._there, again):
                assert not any(b"number_%d_" % post_id in x for x in readable(place).values())


def ends_well(result: Result) -> bool:
    if isinstance(result.exception, UserError | OSError):
        return bool(cli._sentence(result.exception))
    return result.exit_code in (0, 1)


SLOW = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 80)]


@pytest.mark.parametrize("seed", [*range(8), *SLOW])
def test_any_sequence_ends_where_a_run_afresh_does(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # the dead lose nothing of it here
    story = Story(seed, tmp_path)
    try:
        story.run(12)
        story.end()
    except Exception as error:
        error.add_note("\n".join(story.told))
        raise
