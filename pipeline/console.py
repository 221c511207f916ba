"""Where a command speaks, beside its results: progress and advice."""

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
