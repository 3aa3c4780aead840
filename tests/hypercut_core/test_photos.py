"""Every kind of photo that people have becomes the same pixels; what cannot be trusted is refused."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from hypercut_core.errors import BadImage
from hypercut_core.photos import load_photo


def scene(height: int = 37, width: int = 53) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + 2 * y) % 256], 2).astype(np.uint8)


def save(tmp_path: Path, pixels: np.ndarray | Image.Image, name: str = "photo.png",
         **options: object) -> Path:
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.tga"])
def test_lossless_kinds_keep_every_pixel(tmp_path: Path, name: str) -> None:
    loaded = load_photo(save(tmp_path, scene(), name))
    assert loaded.dtype == np.uint8
    assert loaded.flags.c_contiguous
    np.testing.assert_array_equal(loaded, scene())


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 1), (31, 33)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    np.testing.assert_array_equal(load_photo(save(tmp_path, scene(*size))), scene(*size))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_photo_upright(tmp_path: Path, orientation: int) -> None:
    upright = scene()
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
              5: upright.swapaxes(0, 1), 6: np.rot90(upright, 1), 7: upright[::-1, ::-1].swapaxes(0, 1),
              8: np.rot90(upright, -1)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, np.ascontiguousarray(stored), exif=exif)
    np.testing.assert_array_equal(load_photo(path), upright)


def test_16_bit_grey_keeps_its_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    deep = scene()[..., 0].astype(np.uint16) * 257
    loaded = load_photo(save(tmp_path, Image.fromarray(deep), exif=exif))
    np.testing.assert_array_equal(loaded[..., 1], scene()[::-1, ::-1, 0])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(scene())
    image = image.convert("L").convert(mode) if mode in ("1", "LA") else \
        ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"),
                                  outputMode="LAB") if mode == "LAB" else image.convert(mode)
    name = "a.tif" if mode in ("CMYK", "YCbCr", "LAB") else "a.png"
    path = tmp_path / name
    (image.convert("RGB") if mode == "HSV" else image).save(path)
    loaded = load_photo(path)
    assert loaded.shape == (37, 53, 3)
    expected = scene() if mode not in ("1", "L", "LA") else np.asarray(Image.fromarray(scene()).convert("L"))
    if mode not in ("1", "P"):
        difference = np.abs(loaded.astype(int) - expected.reshape(37, 53, -1))
        assert np.percentile(difference, 95) <= 8


def test_alpha_is_laid_over_white(tmp_path: Path) -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2, :, 3] = 255  # opaque black above, transparent below
    loaded = load_photo(save(tmp_path, rgba))
    assert (loaded[:2] == 0).all()
    assert (loaded[2:] == 255).all()


def test_transparent_palette_colour_is_laid_over_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    loaded = load_photo(save(tmp_path, image, transparency=0))
    np.testing.assert_array_equal(loaded, [[[255, 255, 255], [200, 100, 50]]])


def test_transparent_grey_level_and_colour(tmp_path: Path) -> None:
    grey = Image.fromarray(np.array([[7, 90]], np.uint8))
    np.testing.assert_array_equal(load_photo(save(tmp_path, grey, transparency=7))[0, :, 0], [255, 90])
    colour = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    np.testing.assert_array_equal(load_photo(save(tmp_path, colour, transparency=(1, 2, 3)))[0],
                                  [[255] * 3, [4, 5, 6]])


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_16_bit_grey(tmp_path: Path, name: str) -> None:
    deep = np.array([[0, 128, 129, 257 * 100, 65535]], np.uint16)
    np.testing.assert_array_equal(load_photo(save(tmp_path, Image.fromarray(deep), name))[0, :, 0],
                                  [0, 0, 1, 100, 255])


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_16_bit_colour(tmp_path: Path, name: str, planes: str) -> None:
    deep = scene().astype(np.uint16) * 257
    if name == "deep.png":
        cv2 = pytest.importorskip("cv2")
        cv2.imwrite(str(tmp_path / name), deep[..., ::-1])
    else:
        tifffile = pytest.importorskip("tifffile")
        pixels = deep if planes == "contig" else np.moveaxis(deep, 2, 0)
        tifffile.imwrite(tmp_path / name, pixels, photometric="rgb", planarconfig=planes)
    assert np.abs(load_photo(tmp_path / name).astype(int) - scene()).max() <= 1


def test_32_bit_grey_and_floating_point(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "u.tif", np.array([[0, 2**31, 2**32 - 1]], np.uint32))
    np.testing.assert_array_equal(load_photo(tmp_path / "u.tif")[0, :, 0], [0, 128, 255])
    tifffile.imwrite(tmp_path / "f.tif", np.array([[0, 0.5, 1]], np.float32))
    np.testing.assert_array_equal(load_photo(tmp_path / "f.tif")[0, :, 0], [0, 128, 255])
    tifffile.imwrite(tmp_path / "nan.tif", np.array([[0, np.nan]], np.float32))
    with pytest.raises(BadImage, match="white is not defined"):
        load_photo(tmp_path / "nan.tif")


def test_colour_profile_is_converted_and_a_broken_one_ignored(tmp_path: Path) -> None:
    linear = _profile_with_gamma(1.0)
    flat = np.full((4, 4, 3), 55, np.uint8)  # 55/255 of the light is sRGB 128
    loaded = load_photo(save(tmp_path, flat, "linear.png", icc_profile=linear))
    assert np.abs(loaded.astype(int) - 128).max() <= 2
    for broken in (b"not a profile", linear[:200], linear[:140] + b"\xff" * 60 + linear[200:]):
        assert load_photo(save(tmp_path, flat, "broken.png", icc_profile=broken)).shape == (4, 4, 3)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(load_photo(save(tmp_path, scene(), "s.png", icc_profile=srgb)), scene())


def test_grey_photo_with_a_colour_profile_still_loads(tmp_path: Path) -> None:
    grey = scene()[..., 0]
    np.testing.assert_array_equal(
        load_photo(save(tmp_path, grey, icc_profile=_profile_with_gamma(1.0)))[..., 2], grey)


def test_image_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(_png_header(60_000, 50_000))
    with pytest.raises(BadImage, match=r"too many pixels|claims") as caught:
        load_photo(path)
    assert "bomb.png" in str(caught.value)
    assert "scale it down" in str(caught.value)
    path.write_bytes(_png_header(12_000, 12_000))  # below Pillow's own limit, above ours
    with pytest.raises(BadImage, match="12000 x 12000"):
        load_photo(path)
    with pytest.raises(BadImage, match="53 x 37"):
        load_photo(save(tmp_path, scene()), max_pixels=1000)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_truncated_files_are_refused(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    path = save(tmp_path, noise, name)
    whole = path.read_bytes()
    for share in (0.02, 0.5, 0.9):
        path.write_bytes(whole[:int(len(whole) * share)])
        with pytest.raises(BadImage, match=name):
            load_photo(path)


@pytest.mark.parametrize(("content", "what"), [
    (b"dear diary,\ntoday\n", "text file"), (b"", "empty"), (b"\x00" * 100, "damaged"),
    (b"\x00\x00\x00\x18ftypheic\x00\x00", "HEIC"), (b"\x00\x00\x00\x18ftypisom\x00\x00", "video"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "text file"),
])
def test_files_that_are_no_photo(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(BadImage, match=what) as caught:
        load_photo(path)
    assert caught.value.remedy


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="No such file"):
        load_photo(tmp_path / "none.png")
    with pytest.raises(BadImage, match="folder"):
        load_photo(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "TIFF", "GIF"]))
def test_damaged_bytes_give_pixels_or_a_clear_error(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(scene(16, 16)).save(stream, kind)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged"
    path.write_bytes(content)
    with contextlib.suppress(BadImage):  # any other exception fails the test
        assert load_photo(path, max_pixels=10_000).ndim == 3


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + \
        chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def _profile_with_gamma(gamma: float) -> bytes:
    """An RGB profile with sRGB primaries and a power curve: the sRGB profile with its curves replaced."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", profile[128:132])[0]
    for index in range(count):
        tag, offset, size = struct.unpack(">4sII", profile[132 + 12 * index:144 + 12 * index])
        if tag in (b"rTRC", b"gTRC", b"bTRC"):
            curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
            profile[offset:offset + size] = curve.ljust(size, b"\0")[:max(size, 16)]
        if tag == b"desc":
            profile[offset:offset + size] = bytes(profile[offset:offset + size]).replace(
                "sRGB".encode("utf-16-be"), "line".encode("utf-16-be")).replace(b"sRGB", b"line")
    return bytes(profile)
