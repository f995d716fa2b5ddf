"""Results as HTML, as notebooks show them; and text from outside, escaped for HTML."""

import html
import os
from collections.abc import Iterable, Sequence

from mixer_mlx.images.inputs import ImageInput, LazyImage
from mixer_mlx.images.thumbnail import image_url, open_thumbnail

# Inline, since notebooks and the sites that show them drop style sheets. Colours are those of the
# text and translucent ones, which suit light and dark pages.
_CARD = "display:flex;gap:12px;align-items:flex-start;font-size:13px;line-height:1.5;max-width:30em"
_FRAME = (
    "flex:none;width:96px;height:96px;display:flex;align-items:center;justify-content:center;"
    "background:rgba(128,128,128,.12)"
)
_IMAGE = "max-width:96px;max-height:96px;min-width:64px;object-fit:contain;margin:0"
_BODY = "flex:1;min-width:0"
_NAME = "opacity:.65;overflow:hidden;text-overflow:ellipsis;white-space:nowrap"
_ROWS = "display:grid;grid-template-columns:minmax(4em,1fr) 8em auto;gap:0 8px;align-items:center"
_TRACK = "height:.6em;background:rgba(128,128,128,.2)"
_BAR = "height:100%;background:#3b6fb6"
_NUMBER = "text-align:right;font-variant-numeric:tabular-nums"
_GRID = "display:grid;grid-template-columns:repeat(auto-fill,minmax(24em,1fr));gap:12px 24px"


def text(value: object) -> str:
    """A value from outside, escaped for HTML."""
    plain = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in str(value))
    return html.escape(plain)


def card(image: ImageInput, rows: Sequence[tuple[str, float]], error: Exception | None) -> str:
    """An image beside its (label, probability) rows as bars, or beside the error.

    The image is read again for its thumbnail; one that is gone by now, or on the network, has none.
    """
    whole = _name(image)
    name = text(os.path.basename(whole) or whole)
    body = "".join(_row(label, probability) for label, probability in rows)
    if error is not None:
        body = f"<div>{text(error)}</div>"
    return (
        f'<div style="{_CARD}"><div style="{_FRAME}">{_thumbnail(image, name)}</div>'
        f'<div style="{_BODY}"><div style="{_NAME}" title="{text(whole)}">{name}</div>'
        f'<div style="{"" if error else _ROWS}">{body}</div></div></div>'
    )


def grid(cards: Iterable[str], left_out: int) -> str:
    """Cards side by side, as many as the page is wide; `left_out` more aren't shown."""
    more = f"<div>and {left_out:,} more</div>" if left_out else ""
    return f'<div style="{_GRID}">{"".join(cards)}</div>{more}'


def _row(label: str, probability: float) -> str:
    return (
        f'<span style="overflow-wrap:anywhere">{text(label)}</span>'
        f'<span style="{_TRACK}"><span style="display:block;width:{probability:.1%};{_BAR}">'
        f'</span></span><span style="{_NUMBER}">{probability:.1%}</span>'
    )


def _name(image: ImageInput) -> str:
    """What a user knows the image by."""
    if isinstance(image, str | os.PathLike | LazyImage):
        return str(image)
    name = getattr(image, "filename", None) or getattr(image, "name", None)
    shape = getattr(image, "shape", None)
    return str(name or (f"array {tuple(shape)}" if shape else type(image).__name__))


def _thumbnail(image: ImageInput, name: str) -> str:
    if isinstance(image, LazyImage) and image.name.lower().startswith(("http://", "https://")):
        return ""
    try:
        small = open_thumbnail(image)
    except (OSError, ValueError):  # e.g. a file that was closed since
        small = None
    return f'<img alt="{name}" style="{_IMAGE}" src="{image_url(small)}">' if small else ""
