"""What a section of the page is put together from; the template knows how each looks."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PHOTO_QUALITY, _PHOTO_DPI = 80, 110
_RASTER_DPI = 110


@dataclass(frozen=True)
class Paragraph:
    """Text."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Missing:
    """What the reader does not see, why, and the command that makes it, if there is one."""

    kind: ClassVar[str] = "missing"
    sentence: str
    command: str = ""


@dataclass(frozen=True)
class Table:
    """A table; the first `n_words` columns hold words, the others numbers. Rows in `strong` are summaries."""

    kind: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    n_words: int = 1
    strong: Sequence[int] = ()


@dataclass(frozen=True)
class Picture:
    """An embedded picture.

    Attributes:
        source: a data URI.
        description: for those who cannot see it.
        caption: below it.
    """

    kind: ClassVar[str] = "picture"
    source: str
    description: str
    caption: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, as many as the screen holds.

    Attributes:
        pictures: to show.
        title: above them.
        legend: name and colour of what they show.
        size: `few` wide pictures a row, or `many` narrow ones.
    """

    kind: ClassVar[str] = "gallery"
    pictures: Sequence[Picture]
    title: str = ""
    legend: Sequence[tuple[str, str]] = ()
    size: str = "few"


Block = Paragraph | Missing | Table | Picture | Gallery


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: its name in links.
        title: its heading.
        blocks: what it holds.
    """

    anchor: str
    title: str
    blocks: Sequence[Block]


def drawing(figure: Figure, description: str, caption: str = "") -> Picture:
    """Return a figure of lines and text as an embedded SVG: sharp at every size, the same bytes for the same data."""
    import matplotlib

    stream = io.StringIO()
    # Text stays text: a third of the size of outlines, and every system has a font like it.
    with matplotlib.rc_context({"svg.hashsalt": "fedmepd", "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", dpi=_RASTER_DPI, metadata={"Date": None})
    return Picture(_data_uri("image/svg+xml", stream.getvalue().encode()), description, caption)


def photograph(figure: Figure, description: str, caption: str = "") -> Picture:
    """Return a figure of images as an embedded JPEG, a tenth of the size of a PNG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="jpeg", dpi=_PHOTO_DPI, pil_kwargs={"quality": _PHOTO_QUALITY, "optimize": True})
    return Picture(_data_uri("image/jpeg", stream.getvalue()), description, caption)


def _data_uri(mime_type: str, data: bytes) -> str:
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"
