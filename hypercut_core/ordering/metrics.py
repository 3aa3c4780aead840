"""hit, Con@2, Con@K and Joint@K of an order (HyperCUT, section 4)."""

from __future__ import annotations

from torch import Tensor


def order_metrics(forward: Tensor, swapped: Tensor) -> dict[str, float]:
    """Figures of an order from the scores of pairs and swapped pairs, each (N, K).

    Returns:
        ``hit``: share with u_1 v_1 < 0. ``con2``: sign u_1 = sign u_2. ``conK`` (con3 for T = 7): all
        signs agree. ``jointK``: all pairs hit and agree: the one figure that a collapsed encoder fails.
        ``median_score``: median |u|.
    """
    pairs = forward.shape[1]
    sides = forward > 0
    agree = (sides == sides[:, :1]).all(1)
    hits = forward * swapped < 0
    share = lambda mask: float(mask.double().mean())  # noqa: E731
    figures = {"hit": share(hits[:, 0]), f"joint{pairs}": share(hits.all(1) & agree),
               "median_score": float(forward.abs().median())}
    if pairs >= 2:
        figures["con2"] = share(sides[:, 0] == sides[:, 1])
    if pairs >= 3:
        figures[f"con{pairs}"] = share(agree)
    return figures
