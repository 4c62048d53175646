"""Opens image files by Pillow, and says in one line what is wrong with one that cannot be read whole."""

import io
from typing import TYPE_CHECKING

import numpy as np

from jaxtrain.errors import DataError, Words

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
MOST_PIXELS = 89_478_485
"""The most pixels of an image, Pillow's own limit: a small file may claim to unpack to more than memory holds."""

AN_IMAGE = "a PNG, JPEG, BMP, GIF, WebP or TIFF image"

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_GREY = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L")
_COLOUR = ("RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")


def open_image(content: bytes, where: str) -> "ImageFile":
    """Opens an image by Pillow without decoding it, and checks what its header says."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        several = getattr(image, "is_animated", False) and image.format != "MPO"  # a photo with its own preview
        deep = ";16" in str(image.tile[:1]) and not image.mode.startswith("I;16")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(where, Words(str(error)), f"at most {MOST_PIXELS:,} pixels", "Cut it into tiles") from error
    except Exception as error:  # damage can raise anything
        raise unreadable(content, where, error) from error
    check_size(*image.size, where)
    if several:
        hint = "Save each of them as a file of its own"
        raise DataError(where, Words(f"a {image.format} file of several pictures"), "one picture", hint)
    if deep or image.mode not in (*_GREY, *_COLOUR, "P"):
        got = Words(f"colours of 16 bits each ({image.format})" if deep else f"pixels of the kind {image.mode!r}")
        hint = "Save it with 8 bits a channel, or convert the pictures to arrays (data.name=arrays)"
        raise DataError(where, got, "8 bits a channel, or 16 bits of grey", hint)
    return image


def load(image: "ImageFile", content: bytes, where: str) -> None:
    """Decodes an open image."""
    try:
        image.load()
    except Exception as error:  # damage can raise anything
        raise unreadable(content, where, error) from error


def may_be_turned(content: bytes) -> bool:
    """Tells whether there may be a tag of EXIF or XMP that turns the image, without parsing it."""
    return any(mark in content for mark in (b"Exif\0", b"EXIF", b"eXIf", b"type exif", b"Orientation"))


def orientation_of(image: "ImageFile", content: bytes, where: str) -> int:
    """Returns the EXIF orientation of an open image, 1 where there is none, or a block of EXIF that is damaged."""
    if not may_be_turned(content):
        return 1
    try:
        found = image.getexif().get(0x0112, 1)
    except OSError as error:  # a PNG may have it behind its pixels, which are damaged
        raise unreadable(content, where, error) from error
    except Exception:  # the pixels are whole, and damage can raise anything
        return 1
    return found if isinstance(found, int) else 1


def is_grey(image: "Image") -> bool:
    """Tells whether an image has no colours, by its kind or its palette."""
    if image.mode == "P":
        palette = np.reshape(image.getpalette("RGB") or [], (-1, 3))
        return bool((palette == palette[:, :1]).all())
    return image.mode in _GREY


def check_size(width: int, height: int, where: str) -> None:
    """Raises DataError for an image of more pixels than are decoded."""
    if width * height > MOST_PIXELS:
        got = Words(f"{width} x {height} pixels")
        raise DataError(where, got, f"at most {MOST_PIXELS:,} pixels", "Cut it into tiles")


def unreadable(content: bytes, where: str, error: Exception) -> DataError:
    """Builds the error for bytes that are no whole image: empty, of another kind, or damaged."""
    kind = next((name for signature, name in _SIGNATURES.items() if content.startswith(signature)), None)
    if not content:
        got = "an empty file"
    elif kind:
        reason = str(error).splitlines()[0] if str(error) and "cannot identify" not in str(error) else "of its header"
        got = f"a damaged or truncated {kind} file ({reason[:100]})"
    else:
        got = f"a file that is no image (it begins with {content[:8]!r})"
    return DataError(where, Words(got), f"{AN_IMAGE}, whole", "Restore it, or remove it")
