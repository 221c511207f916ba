"""Where a command speaks, beside its results: progress and advice."""

import os
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.words import harmless


class PlainConsole(Console):
    """Shows texts as they are: nothing in a path is taken for markup, and no line is broken.

    What a terminal would obey is replaced; see ``words.harmless``.
    """

    def __init__(self, *, stderr: bool) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text, or a table's cell, as it is shown."""
        return super().render_str(harmless(text), **options)

    def on_broken_pipe(self) -> None:
        """End the command, as its reader has seen enough.

        Rich silences standard output, whichever it was: what is left for this one would fail again.
        """
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
        super().on_broken_pipe()
