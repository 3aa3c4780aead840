"""What the page allows."""

from __future__ import annotations

from dataclasses import dataclass

SIDES = (640, 1280, 2048)  # px, longest side that a photo is scaled down to
MOST_FRAMES = 60  # of a download
PLAYED = (5, 10, 20)  # frames a second


@dataclass(frozen=True)
class UiConfig:
    """Where the page is served, and the limits of its visitors."""

    host: str = "127.0.0.1"  # address to listen on
    port: int = 7860  # 0: any free one
    names: tuple[str, ...] = ()  # host names that visitors may use, besides localhost and plain addresses
    max_bytes: int = 40 * 2**20  # of a photo's file
    max_pixels: int = 60_000_000  # of a photo, before it is scaled down
    photos_a_minute: int = 20  # of one address
    films_a_minute: int = 60  # of one address
    keep: float = 15 * 60.0  # that a session without a sign of its page is kept, s
    sessions: int = 100  # at once
    waiting: int = 8  # photos in line; more are asked to come back
    patience: float = 120.0  # for the upload of one photo, s
