"""How far a mean over clips may be from that over all such clips: the bootstrap over sources (Efron 1979).

Clips of one video are alike, so whole sources are drawn first and clips within each of them after that: an interval
over clips alone would be far too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DRAWS = 1000
LEVEL = 0.95


def interval(values: Sequence[float] | np.ndarray, sources: Sequence[str], draws: int = DRAWS,
             seed: int = 0) -> list[float]:
    """[low, high]: the middle 95 % of the mean, with sources and clips drawn anew.

    Args:
        values: [N], one a clip; nan where there is none, which is left out.
        sources: [N], which source each clip is from.
        draws: how often.

    Returns:
        Two equal numbers where there is a single clip, nan where there is none. The same input gives the same
        output.
    """
    array = np.asarray(values, np.float64)
    known = np.isfinite(array)
    groups = [array[known & (np.asarray(sources) == name)] for name in sorted(set(np.asarray(sources)[known].tolist()))]
    if not groups:
        return [float("nan")] * 2
    random = np.random.default_rng(seed)
    means = np.empty(draws)
    for draw in range(draws):
        chosen = [groups[k] for k in random.integers(0, len(groups), len(groups))]
        means[draw] = np.concatenate([one[random.integers(0, len(one), len(one))] for one in chosen]).mean()
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]
