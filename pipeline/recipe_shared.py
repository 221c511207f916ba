"""A recipe as others may see it: in rows and locks, and in what is shared."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.recipe import PrepareSettings, Recipe, SketchSettings, SourceSettings
from pipeline.urls import is_on_disk, without_password


def without_secrets(recipe: Recipe) -> Recipe:
    """Return an effective recipe as it may be written into what others get to see.

    It has no path of this machine, and no user, password or key in a URL.
    """
    images = recipe.source.images
    if is_on_disk(images):
        images = ""
    elif "://" in images:
        parts = urlsplit(without_password(images))
        images = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
    source = replace(recipe.source, metadata="", images=images)
    return _without_files(replace(recipe, source=source))


def shared_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe as it is shared: what decides the data set, and no place.

    It names no host, so whoever fetches by it decides whom to ask, and how often; and no file of
    this machine.
    """
    deciding = ("layout", "max_bytes", "max_pixels", "check_md5")
    source = SourceSettings(**{name: getattr(recipe.source, name) for name in deciding})
    return _without_files(replace(recipe, source=source))


def _without_files(recipe: Recipe) -> Recipe:
    """Return a recipe without the paths in its other sections; ``[train]`` has one."""
    select = replace(recipe.select, nsfw_ids="")
    is_file = recipe.train.get("style_weights") not in (None, "imagenet", "random")
    train = {k: v for k, v in recipe.train.items() if not (is_file and k == "style_weights")}
    return replace(recipe, select=select, prepare=portable(recipe.prepare), train=train)


def portable(prepare: PrepareSettings) -> PrepareSettings:
    """Return settings with each sketch's network by its file's name and SHA-256 alone."""

    def name_alone(member: str, sketch: SketchSettings) -> SketchSettings:
        return replace(sketch, onnx=replace(sketch.onnx, model=Path(sketch.onnx.model).name))

    return prepare.map_sketches(name_alone)


def content_settings(source: SourceSettings) -> dict[str, Any]:
    """Return the settings that decide what is fetched, without those of how politely.

    The host is not among them: a mirror that has moved serves the same pictures.
    """
    path = source.images.partition("://")[2].partition("/")[2] or source.images
    return {
        "images": path,
        "layout": source.layout,
        "max_bytes": source.max_bytes,
        "max_pixels": source.max_pixels,
        "check_md5": source.verifies_md5,
    }
