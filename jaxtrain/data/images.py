"""Images: the bytes of a file become an array, whatever their format, and arrays are resized.

A picture is read as a viewer shows it: turned as its EXIF tag says, and transparent parts over white. What cannot be
read whole is an error that names the file: half a picture is never returned.
"""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from jaxtrain.errors import DataError, Words

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff")
"""The endings of files that are read as images, in lower case."""

Resampling = Literal["bilinear", "bicubic", "lanczos", "box", "nearest"]
"""How a pixel of a resized image is computed; all but "nearest" average over the pixels that it covers."""

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
_TURNED_SIDEWAYS = (5, 6, 7, 8)
"""The values of the EXIF orientation that exchange height and width."""


class Header(NamedTuple):
    """What a file declares: the size as it is shown, 1 (grey) or 3 (colour) channels, and uint8 or uint16."""

    height: int
    width: int
    channels: int
    dtype: np.dtype


def decode_image(content: bytes, where: str, channels: int | None = None) -> np.ndarray:
    """Decodes the bytes of an image file to (height, width, channels): uint8, or uint16 for 16 bits of grey.

    Args:
        content: the whole file.
        where: the file, which errors name.
        channels: 1 (colours become their luma), 3 (grey is repeated), 4 (colour and alpha as it is stored), or None:
            1 for a grey image, else 3. Transparent parts are laid over white except with 4.

    Raises:
        DataError: no image, a damaged or truncated one, several pictures in one, more than 8 bits a colour or 16 of
            grey, or more than 89,478,485 pixels.
    """
    pixels = _decode_plain_jpeg(content, where, channels) if content.startswith(b"\xff\xd8") else None
    if pixels is not None:
        return pixels
    image = _open(content, where)
    _load(image, content, where)
    return _as_array(image, where, channels)


def decode_labels(content: bytes, where: str) -> np.ndarray:
    """Decodes a mask to its values as stored (height, width): indices of a palette, grey levels, or 0 and 1 of 1 bit.

    Levels of 2 and 4 bits are those of the file, which an image spreads over 0 to 255. Raises DataError as
    `decode_image`, and for colours that are no grey.
    """
    image = _open(content, where)
    spread = next((step for kind, step in (("L;2", 85), ("L;4", 17)) if f"'{kind}" in str(image.tile[:1])), 1)
    _load(image, content, where)
    if image.mode != "P" and not _is_grey(image):
        colours = np.asarray(image.convert("RGB"))
        if (colours != colours[..., :1]).any():
            hint = "Save the number of the class of each pixel, as grey values or as indices of a palette"
            raise DataError(where, Words("a mask in colours"), "a mask of labels", hint)
        return colours[..., 0]
    values = np.asarray(image)
    values = values[..., 0] if values.ndim == 3 else values  # the rest is alpha
    return values.astype(np.uint8) if values.dtype == bool else values // spread


def read_header(start: bytes, read_all: Callable[[], bytes], where: str) -> Header:
    """Returns what an image declares, from the `start` of its file, or from all of it where that is not enough.

    Raises DataError as `decode_image`, except for damage that lies behind the header.
    """
    try:
        return _header(start, where)
    except DataError:
        return _header(read_all(), where)


def _header(content: bytes, where: str) -> Header:
    image = _open(content, where)
    sideways = _turn(image, content, where) in _TURNED_SIDEWAYS and image.format != "TIFF"  # it has exchanged them
    width, height = image.size[::-1] if sideways else image.size
    dtype = np.uint16 if image.mode.startswith("I;16") else np.uint8
    return Header(height, width, 1 if _is_grey(image) else 3, np.dtype(dtype))


def resize(image: np.ndarray, size: tuple[int, int], method: Resampling = "bilinear") -> np.ndarray:
    """Resizes (h, w, c) to (*size, c), or a mask (h, w) to `size`; uint8 or uint16.

    The ratio of the sides is not kept. An image that has the size is returned as it is.
    """
    if image.shape[:2] == tuple(size):
        return image
    from PIL import Image

    def resized(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling[method.upper()]))

    shape = (*size, *image.shape[2:])
    if image.dtype == np.uint8:
        return resized(image[..., 0] if image.shape[2:] == (1,) else image).reshape(shape)
    planes = [resized(plane.astype(np.float32)) for plane in np.moveaxis(np.atleast_3d(image), 2, 0)]
    values = np.clip(np.rint(np.stack(planes, axis=2)), 0, np.iinfo(image.dtype).max)
    return values.astype(image.dtype).reshape(shape)


def _decode_plain_jpeg(content: bytes, where: str, channels: int | None) -> np.ndarray | None:
    """Decodes a JPEG by simplejpeg, six times as fast for small ones; None for what Pillow must read.

    The pixels are Pillow's. Colours become grey by the same formula, not by taking the luma that the file stores.
    """
    import simplejpeg

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:  # damaged, or of a kind that Pillow may read
        return None
    if colours not in ("Gray", "YCbCr", "RGB") or channels == 4:
        return None
    if _may_be_turned(content) and _turn(_open(content, where), content, where) != 1:
        return None
    _check_size(int(width), int(height), where)
    grey = colours == "Gray" and channels != 3
    try:
        pixels = simplejpeg.decode_jpeg(content, "GRAY" if grey else "RGB")
    except ValueError as error:
        raise _unreadable(content, where, error) from error
    return _luma(pixels) if channels == 1 and not grey else pixels


def _luma(pixels: np.ndarray) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def _load(image: "ImageFile", content: bytes, where: str) -> None:
    """Decodes an open image, and turns it as its tag says."""
    from PIL import ImageOps

    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # damage can raise anything
        raise _unreadable(content, where, error) from error


def _may_be_turned(content: bytes) -> bool:
    """Tells whether there may be a tag of EXIF or XMP that turns the image, without parsing it."""
    return any(mark in content for mark in (b"Exif\0", b"EXIF", b"eXIf", b"type exif", b"Orientation"))


def _turn(image: "ImageFile", content: bytes, where: str) -> int:
    """Returns the EXIF orientation of an open image, 1 where there is none."""
    if not _may_be_turned(content):
        return 1
    try:
        return image.getexif().get(0x0112, 1)
    except Exception as error:  # damage can raise anything
        raise _unreadable(content, where, error) from error


def _open(content: bytes, where: str) -> "ImageFile":
    """Opens an image by Pillow without decoding it, and checks what its header says."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        several = getattr(image, "is_animated", False) and image.format != "MPO"  # a photo with its own preview
        deep = ";16" in str(image.tile[:1]) and not image.mode.startswith("I;16")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(where, Words(str(error)), f"at most {MOST_PIXELS:,} pixels", "Cut it into tiles") from error
    except Exception as error:  # damage can raise anything
        raise _unreadable(content, where, error) from error
    _check_size(*image.size, where)
    if several:
        hint = "Save each of them as a file of its own"
        raise DataError(where, Words(f"a {image.format} file of several pictures"), "one picture", hint)
    if deep or image.mode not in (*_GREY, *_COLOUR, "P"):
        got = Words(f"colours of 16 bits each ({image.format})" if deep else f"pixels of the kind {image.mode!r}")
        hint = "Save it with 8 bits a channel, or convert the pictures to arrays (data.name=arrays)"
        raise DataError(where, got, "8 bits a channel, or 16 bits of grey", hint)
    return image


def _check_size(width: int, height: int, where: str) -> None:
    if width * height > MOST_PIXELS:
        got = Words(f"{width} x {height} pixels")
        raise DataError(where, got, f"at most {MOST_PIXELS:,} pixels", "Cut it into tiles")


def _unreadable(content: bytes, where: str, error: Exception) -> DataError:
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


def _is_grey(image: "Image") -> bool:
    if image.mode == "P":
        palette = np.reshape(image.getpalette("RGB") or [], (-1, 3))
        return bool((palette == palette[:, :1]).all())
    return image.mode in _GREY


def _as_array(image: "Image", where: str, channels: int | None) -> np.ndarray:
    """Converts a decoded image to an array of 1, 3 or 4 channels; see `decode_image`."""
    grey = _is_grey(image)
    wanted = channels or (1 if grey else 3)
    if image.mode.startswith("I;16"):
        if wanted == 4:
            raise DataError(where, Words("16 bits of grey"), "8 bits a channel, as data.channels=4 has")
        return np.repeat(np.asarray(image).astype(np.uint16)[..., None], wanted, axis=2)
    if wanted == 4:
        return np.asarray(image.convert("RGBA"))
    if image.has_transparency_data:
        image = _over_white(image)
    if not grey and wanted == 1:
        image = image.convert("RGB")
    return np.asarray(image.convert("L" if wanted == 1 else "RGB")).reshape(image.height, image.width, wanted)


def _over_white(image: "Image") -> "Image":
    from PIL import Image

    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image.convert("RGBA"))
    return page.convert("RGB")
