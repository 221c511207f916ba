"""A folder's story: commands in any order, with faults, in a world that changes meanwhile."""

import json
import random
import re
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import cli
from pipeline.errors import UserError
from pipeline.removals import read_removals
from pipeline.work import Work
from tests.calls import call
from tests.crashing import begin_child, make_source, meet_fault, original_path
from tests.pictures import draw_picture, encoded
from tests.sources import originals
from tests.takedowns import members, readable

SETTINGS = (
    *("prepare.size=32", "prepare.size=48", "prepare.near_duplicates=-1", "prepare.min_side=80"),
    *("split.seed=1", "split.shard_size=8", "split.by='character'", "source.max_bytes=2000"),
)
RECORDS = {"is_deleted": True, "is_banned": True, "parent_id": 1, "rating": "q"}
KILLED = 9


def seeds(num_fast: int, num_slow: int, num_soak: int) -> list[Any]:
    """Return the seeds 0, 1, ... of so many fast tests, slow ones after them, and ones to soak."""
    marks: list[list[pytest.MarkDecorator]] = [[]] * num_fast
    marks += [[pytest.mark.slow]] * num_slow + [[pytest.mark.soak]] * num_soak
    return [pytest.param(seed, marks=some) for seed, some in enumerate(marks)]


class Story:
    """A work folder, a place where it is shared, the world around them, and what was ``told``.

    Attributes:
        faults: what a command may meet, "" for none; each as often as it stands there.
        settings: of the recipe, that may be changed.
        changes: that the world may see.
        shared: where whoever pulls finds what was pushed.
    """

    faults: tuple[str, ...] = ("", "", "", "kill", "full disk")
    settings: tuple[str, ...] = SETTINGS
    changes: tuple[str, ...] = ("picture", "setting", "posts", *RECORDS)

    def __init__(self, seed: int, root: Path, images: str = "{root}/original/{{id}}.jpg") -> None:
        self.told: list[str] = []
        self._chance, self._root = random.Random(seed), root
        self._work, self._there = Work(root / "work"), str(root / "there")
        self.shared = self._there
        self._posts: dict[int, dict[str, Any]] = {}
        self._pictures: dict[int, list[bytes]] = {}
        self._settings: dict[str, str] = {}
        make_source(root, images)  # of whose posts only the recipe is of use
        self.add_posts(10)

    def steps(self) -> list[Callable[[], None]]:
        """Return what may happen, each as often as it stands there."""
        return [self.make, self.make, self.look_after, self.change_world, self.damage]

    def live(self, num_steps: int) -> None:
        """Let the folder live through some steps, and come to a good end."""
        try:
            for step in (self.make, *self._chance.choices(self.steps(), k=num_steps)):
                step()
            self.end()
        except Exception as error:
            error.add_note("\n".join(self.told))
            raise

    def do(self, command: object, *words: object) -> Result:
        self.told.append(" ".join(map(str, [command, *words])))
        result = call(command, *words)
        self.told += [*result.output.splitlines(), str(result.exception)]
        assert ends_well(result), "".join(traceback.format_exception(result.exception))
        return result

    def must(self, *words: object) -> None:
        assert self.do(*words).exit_code == 0

    def risk(self, *words: object) -> None:
        if fault := self._chance.choice(self.faults):
            self.begin(fault, *words)()
        else:
            self.do(*words)

    def begin(self, fault: str, *words: object) -> Callable[[], str]:
        """Begin a command in a child, which meets a fault there, if any.

        Returns:
            What waits until it has ended; returns what it said, nothing where it was killed.
        """
        number = self._chance.randint(1, 90)

        def run() -> tuple[bool, str]:
            if fault:
                self.meet_fault(fault, number)
            result = call(*words)
            return ends_well(result), f"{result.output}{result.exception!r}"

        wait = begin_child(run)

        def finish() -> str:
            found = wait()
            self.told.append(f"{fault} at {number}: " + " ".join(map(str, words)))
            if found == KILLED and "kill" in fault:
                return ""
            is_well, said = found
            self.told += said.splitlines()
            assert is_well
            return str(said)

        return finish

    def meet_fault(self, fault: str, number: int) -> None:
        """Let this process meet a fault, at an operation of some number."""
        meet_fault(fault, number, self._root)

    def by_recipe(self, command: str, *words: object, work: Path | None = None) -> list[object]:
        sets = [x for key, value in self._settings.items() for x in ("--set", f"{key}={value}")]
        place: list[object] = ["--work", work or self._work.root]
        place += ["--workers", 1] * (command != "lock")
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
        self.risk(*self._chance.choice([*commands, ["pull", self.shared, self._root / "far"]]))

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
        key, _, value = self._chance.choice(self.settings).partition("=")
        what = self._chance.choice(self.changes)
        self.told.append(f"{what} of {post_id}, {number}, {key}={value}")
        if what == "picture":
            self.put_picture(post_id, self._chance.choice([0, number]))
        elif what == "posts":
            self.add_posts(3)
        elif what in RECORDS:
            self.change_record(post_id, what, RECORDS[what])
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
        """Do as commands say until nothing is broken, and see that all is as it would be afresh."""
        self.mend()
        work, again = self._work.root, self._root / "again"
        for words in (["status", work], ["push", work, self._there], ["pull", self.shared, again]):
            self.must(*words)
        places = (work, self.bring_shared(), again)
        for place in places:
            self.must("verify", place)
        self.check_against_afresh(self._work, self._work)
        self.check_taken_down(*places)
        self.check_swept()

    def bring_shared(self) -> Path:
        """Return a folder of this disk with what was pushed."""
        return Path(self._there)

    def mend(self) -> None:
        work = self._work.root
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

    def check_against_afresh(self, fetched: Work, prepared: Work, *words: object) -> None:
        """Make a folder afresh, of the same originals: it has the same samples.

        What has come is not asked for again, so originals need not be those of today.
        """
        fresh, images = Work(self._root / "fresh"), self._root / "images"
        for folder in (images, fresh.root):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        for post_id, data in originals(fetched).items():
            assert data in self._pictures[post_id]
            (images / f"{post_id}.jpg").write_bytes(data)
        if self._work.removals_path.exists():
            shutil.copy(self._work.removals_path, fresh.removals_path)
        source = ("--images", images / "{id}.jpg")
        self.do(*self.by_recipe("fetch", *source, *words, work=fresh.root))
        self.do(*self.by_recipe("prepare", work=fresh.root))
        assert members(prepared) == members(fresh)

    def check_taken_down(self, *places: Path) -> None:
        for post_id in read_removals(self._work.removals_path).post_ids:
            for place in places:
                found = readable(place).items()
                assert not [path for path, x in found if b"number_%d_" % post_id in x]

    def check_swept(self) -> None:
        """Check that nothing half-written is left, once all commands have come to their ends."""
        assert [*self._root.rglob(".*.tmp"), *self._root.rglob(".incoming")] == []


def ends_well(result: Result) -> bool:
    """Whether a command ended as promised: with a sentence, or 0, 1, or by Ctrl-C 130."""
    if isinstance(result.exception, UserError | OSError):
        return bool(cli._sentence(result.exception))
    is_bug = re.search(r"^shard \S+ failed: \w*(Error|Exception): ", result.output, re.M)
    is_crash = not isinstance(result.exception, SystemExit | None)
    return result.exit_code in (0, 1, 130) and not is_bug and not is_crash
