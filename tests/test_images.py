"""Decoding of image files to arrays: every kind of picture, and the error for each kind of damage."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxtrain.data.images import decode_image, decode_labels, read_header, resize
from jaxtrain.errors import DataError

COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
GREY = COLOURS[..., 0]
DEEP = np.arange(35, dtype=np.uint16).reshape(5, 7) * 1870
SMOOTH = np.asarray(Image.fromarray(COLOURS).resize((45, 31)))
LOSSLESS = {"PNG": {}, "BMP": {}, "WEBP": {"lossless": True}, "TIFF": {}}


def saved(image, kind="PNG", **options):
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(rows, bits, colours, *chunks):
    """Writes a PNG by hand: `rows` hold the bytes of each line."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, lines = rows
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))
    packed = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*part) for part in chunks) + packed + chunk(b"IEND", b"")


def exif(orientation):
    """Writes an EXIF block by hand, big-endian, with the orientation alone."""
    return b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) + b"\0\0\0\0"


@pytest.mark.parametrize("kind", LOSSLESS)
def test_colours_are_those_that_were_written(kind):
    decoded = decode_image(saved(COLOURS, kind, **LOSSLESS[kind]), "x")
    np.testing.assert_array_equal(decoded, COLOURS)
    assert decoded.dtype == np.uint8


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_grey_has_one_channel_or_is_repeated(kind):
    content = saved(GREY, kind)
    np.testing.assert_array_equal(decode_image(content, "x"), GREY[..., None])
    np.testing.assert_array_equal(decode_image(content, "x", 3), np.repeat(GREY[..., None], 3, axis=2))
    assert decode_image(content, "x", 4)[..., 3].min() == 255


def test_colours_become_grey_by_their_luma():
    luma = COLOURS @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode_image(saved(COLOURS), "x", 1)[..., 0] - luma).max() <= 1
    np.testing.assert_array_equal(
        decode_image(saved(SMOOTH, "JPEG"), "x", 1)[..., 0],
        np.asarray(Image.fromarray(decode_image(saved(SMOOTH, "JPEG"), "x")).convert("L")),
    )


def test_a_palette_gives_its_colours():
    image = Image.fromarray((GREY % 3).astype(np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 200, 100, 0, 7, 7, 9])
    table = np.array([[10, 20, 30], [200, 100, 0], [7, 7, 9]], np.uint8)
    np.testing.assert_array_equal(decode_image(saved(image), "x"), table[GREY % 3])
    image.putpalette([10, 10, 10, 200, 200, 200, 7, 7, 7])
    np.testing.assert_array_equal(decode_image(saved(image), "x")[..., 0], table[:, 0][GREY % 3])


def test_transparent_parts_lie_over_white_except_with_alpha():
    alpha = np.tile(np.array([0, 255, 51, 255, 0, 102, 255], np.uint8), (5, 1))
    content = saved(np.dstack([COLOURS, alpha]))
    np.testing.assert_array_equal(decode_image(content, "x", 4), np.dstack([COLOURS, alpha]))
    weight = alpha[..., None] / 255
    expected = COLOURS * weight + 255 * (1 - weight)
    assert np.abs(decode_image(content, "x") - expected).max() <= 1
    assert (decode_image(content, "x")[:, 0] == 255).all()
    grey = decode_image(saved(np.dstack([GREY, alpha])), "x")
    assert grey.shape == (5, 7, 1)
    assert np.abs(grey - expected[..., :1]).max() <= 1


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\xff"])
def test_a_transparent_entry_of_a_palette_is_white(transparency):
    image = Image.fromarray((GREY % 3).astype(np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 200, 100, 0, 7, 7, 9])
    table = np.array([[10, 20, 30], [255, 255, 255], [7, 7, 9]], np.uint8)
    np.testing.assert_array_equal(decode_image(saved(image, transparency=transparency), "x"), table[GREY % 3])


def test_one_bit_is_black_and_white():
    bits = (5, 7, [bytes([value]) for value in (0b10101010, 0, 0xFF, 0b01000000, 0b11110000)])
    expected = np.unpackbits(np.array([[0b10101010], [0], [0xFF], [0b01000000], [0b11110000]], np.uint8), axis=1)
    np.testing.assert_array_equal(decode_image(png(bits, 1, 0), "x")[..., 0], expected[:, :7] * 255)
    np.testing.assert_array_equal(decode_labels(png(bits, 1, 0), "x"), expected[:, :7])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_are_kept(kind):
    content = saved(DEEP, kind)
    for decoded in (
        decode_image(content, "x")[..., 0],
        decode_image(content, "x", 3)[..., 2],
        decode_labels(content, "x"),
    ):
        assert decoded.dtype == np.uint16
        np.testing.assert_array_equal(decoded, DEEP)
    assert read_header(content, bytes, "x").dtype == np.uint16


def test_sixteen_bits_a_colour_are_refused():
    content = png((1, 2, [bytes(12)]), 16, 2)
    with pytest.raises(DataError, match=r"^a.png: got colours of 16 bits each \(PNG\); expected 8 bits a channel"):
        decode_image(content, "a.png")
    with pytest.raises(DataError, match="16 bits of grey; expected 8 bits"):
        decode_image(saved(DEEP), "x", 4)


def test_other_kinds_of_pixels_are_refused():
    with pytest.raises(DataError, match="got pixels of the kind 'F'"):
        decode_image(saved(np.ones((2, 2), np.float32), "TIFF"), "x")


TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_is_turned_as_its_tag_says(kind, orientation):
    options = LOSSLESS.get(kind, {}) | ({"description": "Orientation"} if kind == "TIFF" else {})
    tagged = saved(SMOOTH, kind, exif=exif(orientation), **options)
    expected = TURNS[orientation](decode_image(saved(SMOOTH, kind, **options), "x"))
    np.testing.assert_array_equal(decode_image(tagged, "x"), expected)
    np.testing.assert_array_equal(decode_image(tagged, "x", 4)[..., :3], expected)
    header = read_header(tagged, lambda: tagged, "x")
    assert (header.height, header.width) == expected.shape[:2]


@pytest.mark.parametrize(
    "block", [b"Exif\0\0garbage", exif(9), b"Exif\0\0", exif(6)[:20], exif(6).replace(b"\0\3", b"\0\2", 1)]
)
def test_a_damaged_block_of_exif_turns_nothing(block):
    plain = saved(SMOOTH, "JPEG")
    content = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]
    with warnings.catch_warnings(action="ignore"):  # of Pillow
        np.testing.assert_array_equal(decode_image(content, "x"), decode_image(plain, "x"))
        assert read_header(content, bytes, "x")[:2] == (31, 45)


def test_a_mask_is_turned_as_its_tag_says():
    np.testing.assert_array_equal(decode_labels(saved(GREY, exif=exif(6)), "x"), np.rot90(GREY, -1))


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 95, "subsampling": 1}, {"keep_rgb": True}]
)
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_jpeg_has_the_pixels_of_pillow(options, channels):
    content = saved(SMOOTH, "JPEG", **options)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB").convert("L" if channels == 1 else "RGB"))
    np.testing.assert_array_equal(decode_image(content, "x", channels), expected.reshape(31, 45, -1))


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_grey_jpeg_has_the_pixels_of_pillow(channels):
    content = saved(SMOOTH[..., 0], "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(content)))
    decoded = decode_image(content, "x", channels)
    assert decoded.shape == (31, 45, channels or 1)
    np.testing.assert_array_equal(decoded, np.broadcast_to(expected[..., None], decoded.shape))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size_but_not_below_what_is_needed(orientation, channels):
    large = np.asarray(Image.fromarray(COLOURS).resize((448, 320), Image.Resampling.BICUBIC))
    content = saved(large, "JPEG", quality=95, exif=exif(orientation))
    size = (40, 150) if orientation == 1 else (150, 40)
    reduced = decode_image(content, "x", channels, size)
    assert reduced.shape[:2] == ((120, 168) if orientation == 1 else (168, 120))  # three eighths
    whole = resize(decode_image(content, "x", channels), size)
    assert np.abs(resize(reduced, size).astype(int) - whole).mean() < 2
    assert decode_image(content, "x", channels, (1000, 2000)).shape[:2] == TURNS[orientation](large).shape[:2]


def test_cmyk_is_converted():
    content = saved(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=100, subsampling=0)
    decoded = decode_image(content, "x")
    np.testing.assert_array_equal(decoded, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    assert np.abs(decoded.astype(int) - SMOOTH).max() < 12
    assert read_header(content, bytes, "x")[:3] == (31, 45, 3)


def test_a_header_is_read_from_the_start_or_from_the_whole_file():
    content = saved(SMOOTH, "JPEG", comment=b"-" * 2000)
    for start in (content[:3000], content[:100], content):
        assert read_header(start, lambda: content, "x") == (31, 45, 3, np.dtype(np.uint8))
    for kind, image, channels in (("PNG", GREY, 1), ("GIF", GREY, 1), ("TIFF", COLOURS, 3), ("WEBP", COLOURS, 3)):
        content = saved(image, kind)
        assert read_header(content[:64], lambda content=content: content, "x")[:3] == (5, 7, channels)


WHOLE = {
    "PNG": saved(SMOOTH),
    "JPEG": saved(SMOOTH, "JPEG"),
    "progressive JPEG": saved(SMOOTH, "JPEG", progressive=True),
    "CMYK JPEG": saved(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG"),
    "turned JPEG": saved(SMOOTH, "JPEG", exif=exif(6)),
    "turned CMYK JPEG": saved(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", exif=exif(6)),
    "BMP": saved(SMOOTH, "BMP"),
    "GIF": saved(SMOOTH[..., 0], "GIF"),
    "WebP": saved(SMOOTH, "WEBP"),
    "TIFF": saved(SMOOTH, "TIFF"),
    "packed TIFF": saved(SMOOTH, "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_truncated_file_is_never_half_a_picture(kind):
    whole = decode_image(WHOLE[kind], "x")
    refusals = set()
    for length in np.linspace(8, len(WHOLE[kind]) - 3, 60).astype(int):
        try:
            with warnings.catch_warnings(action="ignore"):  # of Pillow, for what is an error of ours
                decoded = decode_image(WHOLE[kind][:length], "some.file")
            np.testing.assert_array_equal(decoded, whole)  # what is missing holds no pixels
        except DataError as error:
            refusals.add(str(error).partition("(")[0])
    assert refusals == {f"some.file: got a damaged or truncated {kind.split()[-1]} file "}


def test_a_flipped_bit_is_an_error_or_a_whole_picture():
    seen = set()
    for kind in ("PNG", "JPEG"):
        for place in range(60, len(WHOLE[kind]), 7):
            damaged = bytearray(WHOLE[kind])
            damaged[place] ^= 16
            try:
                seen.add(decode_image(bytes(damaged), "x").shape)
            except DataError as error:
                seen.add(str(error).partition("(")[0])
    assert {f"x: got a damaged or truncated {kind} file " for kind in ("PNG", "JPEG")} <= seen
    assert all(isinstance(item, str) or item == (31, 45, 3) for item in seen)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", "an empty file"),
        (b"hello, world", r"a file that is no image \(it begins with b'hello, w'\)"),
        (b"\x89PNG\r\n\x1a\n", r"a damaged or truncated PNG file \(of its header\)"),
        (saved(Image.new("L", (2, 2)), "PPM"), "a file that is no image"),
    ],
)
@pytest.mark.parametrize("read", [decode_image, decode_labels, lambda c, where: read_header(c, lambda: c, where)])
def test_what_is_no_image_is_named(content, got, read):
    with pytest.raises(DataError, match=rf"^some.file: got {got}.*; expected a PNG, JPEG, BMP, GIF, WebP or TIFF"):
        read(content, "some.file")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_pictures_in_a_file_are_refused(kind):
    others = [Image.fromarray(255 - COLOURS), Image.fromarray(COLOURS[::-1])]
    content = saved(COLOURS, kind, save_all=True, append_images=others)
    with pytest.raises(DataError, match=rf"^a: got a {kind} file of several pictures; expected one picture"):
        decode_image(content, "a")


@pytest.mark.parametrize("side", [9_460, 20_000])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_unread(kind, side):
    content = png((side, side, [b""]), 8, 0)
    if kind == "JPEG":
        small = saved(SMOOTH, "JPEG")
        content = small.replace(struct.pack(">HH", 31, 45), struct.pack(">HH", side, side), 1)
    with pytest.raises(DataError, match=r"^bomb: got .*pixels.*expected at most 89,478,485 pixels"):
        decode_image(content, "bomb")


def test_a_mask_gives_what_is_stored():
    labels = (GREY % 4).astype(np.uint8)
    np.testing.assert_array_equal(decode_labels(saved(labels), "x"), labels)
    palette = Image.fromarray(labels).convert("P")
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        np.testing.assert_array_equal(decode_labels(saved(palette, kind), "x"), labels)
    np.testing.assert_array_equal(decode_labels(saved(np.dstack([labels] * 3)), "x"), labels)
    np.testing.assert_array_equal(decode_labels(saved(np.dstack([labels, labels * 0 + 255])), "x"), labels)
    with pytest.raises(DataError, match="got a mask in colours; expected a mask of labels"):
        decode_labels(saved(COLOURS), "x")


@pytest.mark.parametrize("bits", [2, 4])
def test_a_mask_of_few_bits_is_not_spread(bits):
    labels = np.arange(4)
    line = bytes([0b00011011]) if bits == 2 else bytes([0x01, 0x23])
    np.testing.assert_array_equal(decode_labels(png((1, 4, [line]), bits, 0), "x"), [labels])
    np.testing.assert_array_equal(
        decode_image(png((1, 4, [line]), bits, 0), "x")[..., 0], [labels * 255 // (2**bits - 1)]
    )


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_resized_by_boxes_gives_means(shape, dtype):
    image = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    image[..., -1:] |= 0 if shape[-1] != 4 else np.iinfo(dtype).max  # opaque
    large = np.repeat(np.repeat(image, 2, axis=0), 3, axis=1)
    small = resize(large, (5, 7), "box")
    assert (small.shape, small.dtype) == (shape, dtype)
    np.testing.assert_array_equal(small, image)
    np.testing.assert_array_equal(resize(image, (10, 21), "nearest"), large)
    assert resize(image, (5, 7)) is image


def test_resizing_averages_over_what_a_pixel_covers():
    checks = np.indices((64, 64)).sum(axis=0).astype(np.uint8) % 2 * 200
    assert np.abs(resize(checks, (8, 8))[1:-1, 1:-1].astype(int) - 100).max() <= 1
    assert set(np.unique(resize(checks, (9, 9), "nearest"))) == {0, 200}
