"""A page to colour on, in the browser: sketch, reference and result side by side.

Gradio (extra ``app``) draws it and ``model.app.server`` serves it. It loads nothing from elsewhere.
"""

import html
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

from model.config import MAX_GUIDANCE
from model.use.painter import DrawLines, Painter, check_sketch, redraw, remarks_on
from model.use.picture_files import save_picture
from model.use.pictures import NotLineArtError, open_picture
from pipeline.errors import UserError, install

if TYPE_CHECKING:
    import gradio

Dropped = dict[str, Any]
"""A file on the page: ``path`` where it lies now, and ``orig_name``, how it was called."""

LINE_ART = "line art"
LIGHT_LINES = "light lines"

_NUM_KEPT = 16  # results that may still be downloaded
_KEPT = 24 * 3600  # seconds for which Gradio keeps what was dropped: longer than anybody tries out


@dataclass(slots=True)
class Studio:
    """What the page does.

    Attributes:
        painter: what colours.
        draw_lines: how to make line art of a picture, by the name of the method.
        home: where all that is dropped lies, and results until they are fetched: the last few.
    """

    painter: Painter
    draw_lines: Mapping[str, DrawLines]
    home: Path
    _results: deque[Path] = field(default_factory=deque)
    _last: tuple[object, tuple[str | None, str]] = None, (None, "")  # what was asked, the answer

    def color(
        self, sketch: Dropped | None, reference: Dropped | None, method: str, guidance: float = 1.0
    ) -> tuple[str | None, str]:
        """Colour what was dropped on the page.

        Args:
            sketch: the file; None for none.
            reference: likewise.
            method: out of ``draw_lines``, ``LINE_ART`` for a sketch that is some, or
                ``LIGHT_LINES`` where its paper is dark.
            guidance: see ``Painter.paint``.

        Returns:
            The path of the result, None for none, and what to say of it, as HTML. What was asked
            for just before is not painted again: where one picture replaces another, Gradio asks
            twice.
        """
        asked = sketch, reference, method, guidance
        before, answer = self._last
        if asked != before or answer[0] is None or not Path(answer[0]).exists():
            answer = self._color(*asked)
            self._last = asked, answer  # at once: several may ask at a time
        return answer

    def _color(
        self, sketch: Dropped | None, reference: Dropped | None, method: str, guidance: float
    ) -> tuple[str | None, str]:
        if sketch is None or reference is None:
            missing = [n for n, f in (("sketch", sketch), ("reference", reference)) if f is None]
            return None, say("hint", f"Waiting for a {' and a '.join(missing)}.")
        names = name_of(sketch), name_of(reference)
        try:
            picture = self._open(sketch)
            if method in self.draw_lines:
                picture = redraw(picture, self.draw_lines[method])
            elif method == LIGHT_LINES:
                picture = ImageOps.invert(picture)
            check_sketch(picture, names[0])
            seen = self.painter.look_at(self._open(reference), names[1])
            result = self._make_room() / f"{Path(names[0]).stem}-coloured.png"
            save_picture(self.painter.paint(picture, seen, guidance), result)
        except NotLineArtError as error:
            return None, say(
                "error", f"{error} Say below it that it is a picture, and its lines are drawn."
            )
        except UserError as error:
            return None, say("error", str(error))
        remarks = remarks_on(picture, names[0])
        if not seen.has_color:
            remarks.append(f"{names[1]}: has no colour, so the result has none.")
        if remarks:
            return str(result), say("remark", " ".join(remarks))
        return str(result), say("done", f"{picture.width} x {picture.height} pixels.")

    def _open(self, dropped: Dropped) -> Image.Image:
        path = Path(dropped["path"]).resolve()
        if not path.is_relative_to(self.home.resolve()):  # Gradio sees to that; twice is safer
            raise UserError(f"{name_of(dropped)}: was not dropped on this page.")
        if not path.exists():
            raise UserError(f"{name_of(dropped)}: is not kept for so long; drop it again.")
        return open_picture(path, name_of(dropped))

    def _make_room(self) -> Path:
        """Return a new folder for a result, and drop the oldest one."""
        while len(self._results) >= _NUM_KEPT:
            shutil.rmtree(self._results.popleft(), ignore_errors=True)
        self._results.append(Path(tempfile.mkdtemp(dir=self.home)))
        return self._results[-1]


def name_of(dropped: Dropped) -> str:
    """Return how a file was called, shortened: it is a stranger's text."""
    name = Path(str(dropped.get("orig_name") or dropped["path"])).name
    return name if len(name) <= 60 else f"{name[:40]}…{name[-16:]}"


def say(kind: str, text: str) -> str:
    """Return a sentence as HTML; ``kind`` is hint, done, remark or error."""
    return f'<p class="said {kind}">{html.escape(text)}</p>'


def build_page(
    studio: Studio, sketches: Sequence[Path], references: Sequence[Path]
) -> "gradio.Blocks":
    """Build the page, with examples of sketches and references to pick from.

    Raises:
        UserError: where the extra ``app`` is missing.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise UserError(f"the page needs Gradio: {install('app')}.") from error

    def markup(html_text: str, elem_id: str) -> gr.Markdown:
        # Not gr.HTML, which evaluates strings as scripts and would need leave to.
        return gr.Markdown(html_text, latex_delimiters=[], elem_id=elem_id)

    def place(label: str, prompt: str) -> gr.Image:
        return gr.Image(
            label=label,
            type="filepath",
            image_mode=None,
            sources=["upload", "clipboard"],
            buttons=["fullscreen"],
            height=380,
            placeholder=prompt,
            elem_id=label.lower(),
        )

    def examples(paths: Sequence[Path], place: gr.Image) -> None:
        if paths:
            gr.Examples(
                [str(path) for path in paths],
                place,
                label="or take one of these",
                api_visibility="private",
                examples_per_page=len(paths),
            )

    with gr.Blocks(title="Nurie", analytics_enabled=False, delete_cache=(600, _KEPT)) as page:
        markup(_head_of(studio.painter), "head")
        with gr.Row(equal_height=False, elem_id="places"):
            with gr.Column(min_width=280):
                sketch = place("Sketch", "# Drop a sketch\ndark lines on light paper")
                method = gr.Radio(
                    [
                        ("line art", LINE_ART),
                        ("light lines on dark paper", LIGHT_LINES),
                        *((f"a picture: lines by {m}", m) for m in studio.draw_lines),
                    ],
                    value=LINE_ART,
                    label="The sketch is",
                    elem_id="method",
                )
                examples(sketches, sketch)
            with gr.Column(min_width=280):
                reference = place("Reference", "# Drop a reference\nwhose colours to take")
                guidance = gr.Slider(
                    0,
                    MAX_GUIDANCE,
                    1.0,
                    step=0.1,
                    label="Guidance",
                    info="How far the reference is followed: 1 as in training.",
                    visible=studio.painter.can_be_guided,
                    elem_id="guidance",
                )
                examples(references, reference)
            with gr.Column(min_width=280):
                result = gr.Image(
                    label="Result",
                    type="filepath",
                    format="png",
                    interactive=False,
                    buttons=["fullscreen"],
                    height=380,
                    elem_id="result",
                )
                said = markup(say("hint", "Waiting for a sketch and a reference."), "said")
                download = gr.DownloadButton(
                    "Download", interactive=False, variant="primary", elem_id="download"
                )

        def color(
            sketch: Dropped | None, reference: Dropped | None, method: str, guidance: float | None
        ) -> Iterator[tuple[Any, Any, Any]]:
            if guidance is None:  # its field is empty, until a number is typed
                yield gr.skip(), gr.skip(), gr.skip()
                return
            guidance = min(max(guidance, 0.0), MAX_GUIDANCE)  # as the field itself does when left
            if sketch is not None and reference is not None:
                yield gr.skip(), say("hint", "Colouring…"), gr.DownloadButton(interactive=False)
            try:
                path, text = studio.color(sketch, reference, method, guidance)
            except Exception:  # memory that is used up, say
                yield None, say("error", "That failed; the server's console says how."), gr.skip()
                raise
            yield path, text, gr.DownloadButton(value=path, interactive=path is not None)

        gr.on(
            # Not ``release``, which the arrow keys do not trigger.
            [sketch.change, reference.change, method.change, guidance.change],
            color,
            [sketch, reference, method, guidance],
            [result, said, download],
            api_visibility="private",
            preprocess=False,  # files as they came: it is for ``open_picture`` to judge them
            trigger_mode="always_last",
            concurrency_limit=1,
            show_progress="minimal",
            show_progress_on=result,
        )
    return page


def _head_of(painter: Painter) -> str:
    width, height = painter.size
    recipe = html.escape(str(painter.recipe.get("name", "")))
    facts = [html.escape(painter.model), f"{width} x {height} px", *([recipe] if recipe else [])]
    return (
        "<header><h1>Nurie</h1><p>Colours a sketch after a reference picture.</p>"
        f'<p class="facts">{" · ".join(facts)}</p></header>'
    )
