"""Images: the bytes of a file become an array, whatever their format, and arrays are resized.

A picture is read as a viewer shows it: turned as its EXIF tag says, and transparent parts over white. What cannot be
read whole is an error that names the file: half a picture is never returned.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from jaxtrain.data.image_files import check_size, is_grey, load, may_be_turned, open_image, orientation_of, unreadable
from jaxtrain.errors import DataError, Words

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff")
"""The endings of files that are read as images, in lower case."""

Resampling = Literal["bilinear", "bicubic", "lanczos", "box", "nearest"]
"""The method that computes a pixel of a resized image; all but "nearest" average over the pixels that it covers."""

_TURNED_SIDEWAYS = (5, 6, 7, 8)
"""The values of the EXIF orientation that exchange height and width."""

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""The turn that shows the pixels of a file upright, by its EXIF orientation."""


class Header(NamedTuple):
    """The declarations of a file: the size as it is shown, 1 (grey) or 3 (colour) channels, and uint8 or uint16."""

    height: int
    width: int
    channels: int
    dtype: np.dtype


def decode_image(
    content: bytes, where: str, channels: int | None = None, least: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Decodes the bytes of an image file to (height, width, channels): uint8, or uint16 for 16 bits of grey.

    Args:
        content: the whole file.
        where: the file, which errors name.
        channels: 1 (colours become their luma), 3 (grey is repeated), 4 (colour and alpha as it is stored), or None:
            1 for a grey image, else 3. Transparent parts are laid over white except with 4.
        least: (height, width) that an image which is then resized must keep: a large JPEG is decoded at a fraction of
            its size, up to five times as fast, which changes pixels of the result by about one level in 255. (0, 0):
            the image as it is.

    Raises:
        DataError: no image, a damaged or truncated one, several pictures in one, more than 8 bits a colour or 16 of
            grey, or more than 89,478,485 pixels.
    """
    pixels = _decode_plain_jpeg(content, where, channels, least) if content.startswith(b"\xff\xd8") else None
    if pixels is not None:
        return pixels
    image = open_image(content, where)
    load(image, content, where)
    return _turned(_as_array(image, where, channels), orientation_of(image, content, where))


def decode_labels(content: bytes, where: str) -> np.ndarray:
    """Decodes a mask to its values as stored (height, width): indices of a palette, grey levels, or 0 and 1 of 1 bit.

    Levels of 2 and 4 bits are those of the file, which an image spreads over 0 to 255. Raises DataError as
    `decode_image`, and for colours that are no grey.
    """
    image = open_image(content, where)
    spread = next((step for kind, step in (("L;2", 85), ("L;4", 17)) if f"'{kind}" in str(image.tile[:1])), 1)
    load(image, content, where)
    return _turned(_labels(image, where) // np.uint8(spread), orientation_of(image, content, where))


def _labels(image: "Image", where: str) -> np.ndarray:
    if image.mode != "P" and not is_grey(image):
        colours = np.asarray(image.convert("RGB"))
        if (colours != colours[..., :1]).any():
            hint = "Save the number of the class of each pixel, as grey values or as indices of a palette"
            raise DataError(where, Words("a mask in colours"), "a mask of labels", hint)
        return colours[..., 0]
    values = np.asarray(image)
    values = values[..., 0] if values.ndim == 3 else values  # the rest is alpha
    return values.astype(np.uint8) if values.dtype == bool else values


def read_header(start: bytes, read_all: Callable[[], bytes], where: str) -> Header:
    """Returns what an image declares, from the `start` of its file, or from all of it where that is not enough.

    Raises DataError as `decode_image`, except for damage that lies behind the header.
    """
    try:
        return _header(start, where)
    except DataError:
        return _header(read_all(), where)


def _header(content: bytes, where: str) -> Header:
    image = open_image(content, where)
    sideways = (
        orientation_of(image, content, where) in _TURNED_SIDEWAYS and image.format != "TIFF"
    )  # it has exchanged them
    width, height = image.size[::-1] if sideways else image.size
    dtype = np.uint16 if image.mode.startswith("I;16") else np.uint8
    return Header(height, width, 1 if is_grey(image) else 3, np.dtype(dtype))


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


def _decode_plain_jpeg(content: bytes, where: str, channels: int | None, least: tuple[int, int]) -> np.ndarray | None:
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
    check_size(int(width), int(height), where)
    turn = orientation_of(open_image(content, where), content, where) if may_be_turned(content) else 1
    rows, columns = least[::-1] if turn in _TURNED_SIDEWAYS else least
    grey = colours == "Gray" and channels != 3
    try:
        pixels = simplejpeg.decode_jpeg(content, "GRAY" if grey else "RGB", min_height=rows, min_width=columns)
    except ValueError as error:
        raise unreadable(content, where, error) from error
    pixels = _turned(pixels, turn)
    return _luma(pixels) if channels == 1 and not grey else pixels


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Returns the pixels of a file as they are to be seen, by its EXIF orientation."""
    return _TURNS[orientation](pixels) if orientation in _TURNS else pixels


def _luma(pixels: np.ndarray) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def _as_array(image: "Image", where: str, channels: int | None) -> np.ndarray:
    """Converts a decoded image to an array of 1, 3 or 4 channels; see `decode_image`."""
    grey = is_grey(image)
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
