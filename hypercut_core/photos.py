"""Any photo that people have, as uint8 sRGB pixels; what cannot be trusted is refused before decoding."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from hypercut_core.errors import BadImage

MAX_PIXELS = 120_000_000  # 108-megapixel phones pass; decoding needs about 4 bytes a pixel
MAX_BYTES = 2 * 2**30
# No EPS, PDF or the like: their readers start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "AVIF", "TGA")
_OTHER_PROGRAM = "convert it to PNG or JPEG with another program"


def load_photo(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read one photo as uint8 sRGB ``[H, W, 3]``, turned the way its EXIF orientation says.

    Grey, palette, CMYK, Lab, 1-, 16- and 32-bit images are converted; alpha is laid over white; an embedded
    colour profile is converted to sRGB (a broken profile is ignored). Of an animation the first frame is
    read.

    Args:
        path: the image file.
        max_pixels: larger images are refused by their header, before anything is decoded.

    Raises:
        BadImage: the file is missing, empty, truncated, no image, or too large.
    """
    file = Path(path)
    _check_file(file)
    Image.init()  # else the rarer formats are not yet known by name
    formats = [name for name in FORMATS if name in Image.OPEN]
    with _explain_decoding(file), Image.open(file, formats=formats) as image:
        width, height = image.size
        if width < 1 or height < 1:
            raise BadImage("the image has no pixels", where=file, remedy="choose another photo")
        if width * height > max_pixels:
            raise BadImage(f"the image claims {width} x {height} pixels, more than the {max_pixels:,} that "
                           "are decoded safely", where=file, remedy="scale it down with another program")
        image.load()
        profile = image.info.get("icc_profile")
        pixels = _to_rgb(_turned(_to_8_bit(image, file)), profile)
    return np.array(pixels)  # a copy that may be written to, as torch asks for


def _check_file(file: Path) -> None:
    try:
        status = file.stat()
    except OSError as error:
        raise BadImage(f"the photo cannot be opened ({error.strerror or error})", where=file,
                       remedy="check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise BadImage("this is a folder, not a photo", where=file, remedy="name one image file in it")
    if not stat.S_ISREG(status.st_mode):  # a pipe or a device would block or never end
        raise BadImage("this is no regular file", where=file, remedy="name an image file")
    if status.st_size == 0:
        raise BadImage("the file is empty", where=file, remedy="copy the photo again from where it came from")
    if status.st_size > MAX_BYTES:
        raise BadImage("the file is larger than 2 GiB", where=file, remedy=_OTHER_PROGRAM)


@contextlib.contextmanager
def _explain_decoding(file: Path) -> Iterator[None]:
    """Decoders meet hostile bytes here and fail in any way they like: every failure becomes a BadImage."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BadImage:
        raise
    except Image.DecompressionBombError as error:
        raise BadImage("the image claims too many pixels to be decoded safely", where=file,
                       remedy="scale it down with another program") from error
    except PermissionError as error:
        raise BadImage("the photo may not be read", where=file, remedy="change its permissions") from error
    except Image.UnidentifiedImageError as error:
        raise _unidentified(file) from error
    except MemoryError as error:
        raise BadImage("there is not enough memory to decode the image", where=file,
                       remedy="scale it down with another program") from error
    except Exception as error:
        reason = str(error).split("\n")[0][:120] or type(error).__name__
        raise BadImage(f"the image is damaged or cut off ({reason})", where=file,
                       remedy="copy the photo again from where it came from") from error


def _unidentified(file: Path) -> BadImage:
    with file.open("rb") as stream:
        head = stream.read(512)
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return BadImage("HEIC photos cannot be read", where=file, remedy=_OTHER_PROGRAM)
    if head[4:8] == b"ftyp" or head[:4] in (b"\x1aE\xdf\xa3", b"RIFF"):
        return BadImage("this looks like a video, not a photo", where=file, remedy="export one frame as PNG")
    with contextlib.suppress(UnicodeDecodeError):
        if head.decode("utf-8", errors="strict").isprintable() or b"\n" in head:
            return BadImage("this is a text file, not a photo", where=file, remedy="choose an image file")
    return BadImage("the image is damaged, or of a kind that cannot be read", where=file,
                    remedy=_OTHER_PROGRAM)


def _turned(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF data is no reason to refuse the pixels
        return image


def _to_8_bit(image: Image.Image, file: Path) -> Image.Image:
    """Scale deep grey images to 8 bits (Pillow scales deep colour itself)."""
    if image.mode.startswith(("I", "F")):
        shallow = Image.fromarray(_grey_8_bit(np.asarray(image), _tiff_tag(image, 339)[0], file))
    elif image.mode == "RGB" and _tiff_tag(image, 284)[0] == 2 and _tiff_tag(image, 258)[0] == 16:
        shallow = Image.fromarray(_planar_colour(file))
    else:
        return image
    shallow.info = {key: value for key, value in image.info.items() if key != "transparency"}
    shallow.getexif().update(image.getexif())
    return shallow


def _tiff_tag(image: Image.Image, tag: int) -> tuple[int, ...]:
    value = image.tag_v2.get(tag, 1) if hasattr(image, "tag_v2") else 1
    return value if isinstance(value, tuple) else (value,)


def _grey_8_bit(values: np.ndarray, sample_format: int, file: Path) -> np.ndarray:
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise BadImage("the floating-point values are not between 0 and 1, so white is not defined",
                           where=file, remedy=_OTHER_PROGRAM)
        white = 1.0
    elif values.dtype.itemsize == 4 and values.view(np.uint32).max() > 65535:
        values = values.view(np.uint32) if sample_format == 1 else values.clip(0)
        white = 2.0**32 - 1 if sample_format == 1 else 2.0**31 - 1
    else:
        white = 65535.0
    return (values.astype(np.float64) * (255 / white) + 0.5).astype(np.uint8)


def _planar_colour(file: Path) -> np.ndarray:
    """16-bit TIFF with separate colour planes, which Pillow misreads."""
    import av

    with av.open(str(file)) as container:
        deep = next(container.decode(video=0)).to_ndarray(format="rgb48le")
    return (deep.astype(np.float32) * (255 / 65535) + 0.5).astype(np.uint8)


def _to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """8-bit RGB over white, in sRGB."""
    if image.mode in ("1", "HSV", "YCbCr"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if image.mode in ("P", "PA", "LA", "La", "RGBa", "RGBX") or "transparency" in image.info:
        see_through = image.mode != "RGBX" and (image.mode != "P" or "transparency" in image.info)
        image = image.convert("RGBA" if see_through else "RGB")
    if profile:
        image = _to_srgb(image, profile)
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert from the embedded profile; an unreadable or unfitting profile leaves the pixels as they are."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image  # a round trip would only add rounding
        space = source.profile.xcolor_space.strip()
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        if mode == "RGBA" and space == "GRAY":
            grey = _to_srgb(image.convert("L"), profile).convert("RGB")
            grey.putalpha(image.getchannel("A"))
            return grey
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"),
                                         outputMode=mode) or image
    except Exception:
        return image
