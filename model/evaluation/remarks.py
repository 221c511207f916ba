"""What figures mean, in words, where they mean that a model does not colour after the reference.

MSE can fall while a model paints everything in one colour, and the article's three did. Whoever
trains should not have to know which figure tells.
"""

from collections.abc import Mapping

IGNORING = 0.1
"""A model whose following is under this ignores the reference."""

TINTED = 0.1
"""From this paper error on one can see that white paper is coloured."""

WON = 0.01
"""A discriminator whose mean loss is under this recognises every picture."""

_LOSSES = (("d_source_real", "d_source_generated"), ("d_patch_real", "d_patch_generated"))


def remarks(figures: Mapping[str, float | None]) -> dict[str, str]:
    """Return a sentence for each figure that is a bad sign, by the figure's name.

    Args:
        figures: of a validation or an evaluation, by name, and terms of the loss beside them, as
            in ``log.jsonl``; what is not there, or null, is no sign.
    """
    found = {}
    following = figures.get("following")
    if following is not None and following < IGNORING:
        does = "it paints the same colours whatever the reference"
        if following <= -IGNORING:
            does = "its colours go the other way than the reference's"
        found["following"] = f"following {following:.2f}: {does}."
    chroma_error = figures.get("chroma_error")
    if chroma_error is not None and chroma_error >= 1:
        found["chroma_error"] = (
            f"chroma error {chroma_error:.2f}: its colours are no nearer to the truth than none at "
            "all."
        )
    paper_error = figures.get("paper_error")
    if paper_error is not None and paper_error >= TINTED:
        found["paper_error"] = f"paper error {paper_error:.2f}: it colours white paper."
    for names in _LOSSES:
        losses = [loss for name in names if (loss := figures.get(name)) is not None]
        if len(losses) == len(names) and sum(losses) / len(losses) < WON:
            found["discriminator"] = (
                f"discriminator's loss {sum(losses) / len(losses):.4f}: it tells every picture, "
                "and so teaches little. --gan none trains without it."
            )
    return found
