"""One blurry photo of any size to T sharp frames, and on to an animation.

Large photos are restored tile by tile. The time direction of every tile is ambiguous, so each tile first
gets the direction in which its odd parts (x_k - x_{T+1-k}) agree best with those of its neighbours, then the
tiles are blended in linear light: a blend of tiles that re-blur to the photo re-blurs to the photo too.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import SpooledTemporaryFile, gettempdir

import numpy as np
from torch import Tensor, nn

from hypercut_core.errors import BadCheckpoint, BadImage, BadParameters
from hypercut_core.files import explain_os_errors
from hypercut_core.photos import MAX_PIXELS, load_photo
from hypercut_core.progress import Progress
from hypercut_core.tiles import Tiles, agreement, blend, consistent_signs, cover

AnyPath = str | os.PathLike[str]
SMALLEST_SIDE = 32  # smaller photos are continued by their edge pixels for the network
MEMORY_FOR_TILES = 512 * 2**20  # bytes; more than that waits in a temporary file


def restore(model: nn.Module, photo: np.ndarray, *, tile: int = 512,
            overlap: int | None = None, guidance: Tensor | None = None) -> np.ndarray:
    """Recover the sharp frames of one blurry photo, at its own resolution.

    Args:
        model: a deblurrer (``load_deblurrer``), on any device.
        photo: uint8 sRGB ``[H, W, 3]``, any H, W >= 1.
        tile: photos of at most ``tile ** 2`` pixels are restored whole, larger ones in tiles
            of about that side.
        overlap: how many pixels two neighbouring tiles share and are blended over;
            None: a quarter of the tile, at most 64.
        guidance: (2, H, W) of `restore_guidance.guidance_for`, for a model that takes one; it decides the direction
            of every tile.

    Returns:
        uint8 sRGB ``[T, H, W, 3]``. Beside it, memory holds one float32 frame and at most about 1 GiB more.

    Raises:
        BadImage: `photo` is no uint8 RGB image.
        BadParameters: `overlap` is not in 0 .. tile / 4.
    """
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
        raise BadImage(f"a photo must be uint8 [H, W, 3], this one is {photo.dtype} {list(photo.shape)}",
                       remedy="read it with load_photo")
    overlap = min(64, tile // 4) if overlap is None else overlap
    if not (tile >= 64 and 0 <= overlap <= tile // 4):
        raise BadParameters(f"tile {tile} and overlap {overlap} do not fit together",
                            remedy="use a tile of at least 64 and an overlap of at most a quarter of it")
    height, width = photo.shape[:2]
    if height * width <= tile * tile:
        return _predict(model, photo, guidance)
    rows, columns = cover(height, tile, overlap), cover(width, tile, overlap)
    with explain_os_errors(Path(gettempdir())), SpooledTemporaryFile(max_size=MEMORY_FOR_TILES) as file:
        tiles = Tiles(file, rows, columns)
        signs = _restore_tiles(model, photo, tiles, guidance)
        return blend(tiles, signs, int(model.frames), str(model.response))  # type: ignore[arg-type]


def restore_command(photo: AnyPath, out: AnyPath, model: AnyPath, frames: int | None = None,
                    reverse: bool = False, bounce: bool = False, fps: float = 10.0, tile: int = 512,
                    overlap: int | None = None, views: int | None = None, max_pixels: int = MAX_PIXELS,
                    device: str = "cpu", guidance: AnyPath | None = None) -> Path:
    """`hypercut restore`: read `photo`, recover its frames with the model file `model`, write `out`.

    Args:
        out: .gif, .webp, .mp4, or a folder (no suffix) of PNG files.
        frames: how many frames to show; interpolated linearly between the model's own T.
        reverse: play backwards (the direction of time cannot be told from blur).
        bounce: play forwards and then backwards, so that a loop has no jump.
        views: 1, 2, 4 or 8 mirrored and turned views to join; None: as many as the model was made for.
        guidance: strokes (.json) or a painted picture, for a motion-guided model.

    Returns:
        the path written. The output is whole or absent.

    Raises:
        BadImage, BadCheckpoint, BadParameters, StorageError.
    """
    from hypercut_core.animation import check_output, write_animation

    check_output(out, fps=fps, frames=frames)
    from hypercut_core.deblurring.models import load_deblurrer
    from hypercut_core.restore_guidance import guidance_for

    pixels = load_photo(photo, max_pixels)
    check_output(out, size=(pixels.shape[1], pixels.shape[0]))
    deblurrer = load_deblurrer(Path(model), views).to(device).eval()
    sharp = restore(deblurrer, pixels, tile=tile, overlap=overlap,
                    guidance=guidance_for(deblurrer, pixels, guidance, tile))
    return write_animation(sharp, out, frames_shown=frames, reverse=reverse, bounce=bounce, fps=fps)


def _predict(model: nn.Module, photo: np.ndarray, guidance: Tensor | None = None) -> np.ndarray:
    """uint8 [H, W, 3] and perhaps guidance (2, H, W) -> uint8 [T, H, W, 3], whole image at once."""
    import torch

    height, width = photo.shape[:2]
    below, right = max(0, SMALLEST_SIDE - height), max(0, SMALLEST_SIDE - width)
    if below or right:
        photo = np.pad(photo, ((0, below), (0, right), (0, 0)), mode="edge")
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    with torch.inference_mode():
        blurry = torch.from_numpy(np.array(photo, order="C")).to(device).permute(2, 0, 1)[None].float() / 255
        given = () if guidance is None else (_continued(guidance, below, right).to(blurry),)
        sharp: Tensor = model(blurry, *given)[0, :, :, :height, :width]
        if not bool(torch.isfinite(sharp).all()):
            raise BadCheckpoint("the model's output is not finite", remedy="train or fetch the model again")
        return (sharp.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _continued(guidance: Tensor, below: int, right: int) -> Tensor:
    """(2, H, W) to (1, 2, H + below, W + right): edge pixels go on."""
    import torch.nn.functional as F

    return F.pad(guidance[None].float(), (0, right, 0, below), mode="replicate")


def _restore_tiles(model: nn.Module, photo: np.ndarray, tiles: Tiles, guidance: Tensor | None = None) -> np.ndarray:
    """Restore all tiles into the file; returns the direction (+1 keep, -1 reverse) of each."""
    across, total = len(tiles.columns), len(tiles.rows) * len(tiles.columns)
    agreements: list[tuple[int, int, float]] = []
    strength = np.zeros(total)
    recent: dict[int, np.ndarray] = {}  # the last row of tiles: all that a new tile touches
    with Progress("restoring tiles", total) as progress:
        for index, (top, bottom), (left, right) in tiles.places():
            part = None if guidance is None else guidance[:, top:bottom, left:right]
            sharp = _predict(model, photo[top:bottom, left:right], part)
            tiles.file.write(sharp.tobytes())
            strength[index] = agreement(sharp, sharp)
            left_neighbour = recent.get(index - 1) if index % across else None
            above = recent.pop(index - across, None)
            for other, neighbour, axis, shared in (
                    (index - 1, left_neighbour, 2, tiles.columns[index % across - 1][1] - left),
                    (index - across, above, 1, tiles.rows[index // across - 1][1] - top)):
                if neighbour is not None and shared > 0:
                    length = neighbour.shape[axis]
                    before = neighbour.take(range(length - shared, length), axis)
                    score = agreement(before, sharp.take(range(shared), axis))
                    agreements.append((other, index, score))
            recent[index] = sharp
            progress.advance()
    return consistent_signs(agreements, strength) if guidance is None else np.ones(total, np.int8)
