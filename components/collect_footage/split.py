"""Which source goes into which split: by source, by contents, never by clip."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence

TEST_SHARE = 0.2
VAL_SHARE = 0.1


def split_sources(sources: Sequence[tuple[str, str, str]]) -> list[str]:
    """Split of each (category, sha256, partition); given partitions are kept where all splits are among them.

    Within a category, sources are sorted by their contents' hash: the first fifth (at least one of three) is
    for the test, the next tenth for validation. The result depends on neither order nor names. With three or
    more sources no split is empty.
    """
    splits = [partition for _, _, partition in sources]
    if not any(splits):
        splits = _by_category(sources)
    for number, split in enumerate(splits):
        splits[number] = split or "train"
    for missing, share in (("test", TEST_SHARE), ("val", VAL_SHARE), ("train", 1 - TEST_SHARE - VAL_SHARE)):
        if missing not in splits and len(splits) >= 3:
            _move(sources, splits, missing, share)
    return splits


def _by_category(sources: Sequence[tuple[str, str, str]]) -> list[str]:
    groups: dict[str, list[int]] = defaultdict(list)
    for number in _by_contents(sources, range(len(sources))):
        groups[sources[number][0]].append(number)
    splits = ["train"] * len(sources)
    for members in groups.values():
        tests = max(1, round(TEST_SHARE * len(members))) if len(members) > 1 else 0
        vals = max(1, round(VAL_SHARE * len(members))) if len(members) > 2 else 0
        for place, number in enumerate(members[:tests + vals]):
            splits[number] = "test" if place < tests else "val"
    return splits


def _move(sources: Sequence[tuple[str, str, str]], splits: list[str], missing: str, share: float) -> None:
    """Fill an empty split from the largest; that keeps one at least."""
    giver = max(("train", "test", "val"), key=splits.count)
    members = _by_contents(sources, [n for n, split in enumerate(splits) if split == giver])
    for number in members[:max(1, min(len(members) - 1, round(share * len(members))))]:
        splits[number] = missing


def _by_contents(sources: Sequence[tuple[str, str, str]], numbers: Sequence[int]) -> list[int]:
    # hashed once more: a hash that ends up first in every list would always be a test source
    return sorted(numbers, key=lambda n: (zlib.crc32(sources[n][1].encode()), sources[n][1]))
