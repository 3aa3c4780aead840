"""The direction of every frame of a shot, so that neighbours agree: the shortest path through two states a frame.

    E(s) = sum_t link_t(s_t, s_{t+1}),     s_t: 0 keep, 1 reverse

A link is what two neighbours say about their directions, in nats (`evidence.py`). The minimum is found by dynamic
programming (Viterbi 1967), frame by frame: as soon as the best paths to both states of the newest frame begin alike,
that beginning is decided and can be written. Where they do not meet within a window, the oldest frame is decided as
the better of the two paths has it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

KEEP, REVERSE = 0, 1


class SignChain:
    """Decide the frames of one shot as they come.

    Args:
        window: most frames that wait for a decision; the result is exact where the paths meet within it, and
            `forced` counts the frames where they did not.
    """

    def __init__(self, window: int = 64):
        if window < 1:
            raise ValueError(f"window is {window}, at least 1 expected")
        self.window = window
        self.forced = 0
        self._waiting: deque[np.ndarray] = deque()  # cost of each step into a frame
        self._energy = np.zeros(2)
        self._back: deque[np.ndarray] = deque()  # best state before, for each state

    def add(self, link: np.ndarray | None) -> list[int]:
        """One more frame.

        Args:
            link: (2, 2) cost, first index the frame before; None for the first frame.

        Returns:
            states of the oldest waiting frames that are decided now.
        """
        self._waiting.append(np.zeros((2, 2)) if link is None else link)
        self._step(self._waiting[-1])
        decided = self._meeting()
        if not decided and len(self._waiting) > self.window:
            decided = [self._force()]
        return decided

    def finish(self) -> list[int]:
        """States of all frames that still wait."""
        states = self._trace(int(self._energy.argmin())) if self._waiting else []
        self._waiting.clear()
        self._back.clear()
        self._energy = np.zeros(2)
        return states

    def _step(self, link: np.ndarray) -> None:
        total = self._energy[:, None] + link
        self._back.append(total.argmin(0))
        self._energy = total.min(0) - total.min()

    def _trace(self, state: int) -> list[int]:
        """The best path of the waiting frames that ends in `state`."""
        states = [state]
        for back in list(self._back)[:0:-1]:
            states.append(int(back[states[-1]]))
        return states[::-1]

    def _meeting(self) -> list[int]:
        one, other = self._trace(KEEP), self._trace(REVERSE)
        same = next((place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))
        for _ in range(same):
            self._waiting.popleft()
            self._back.popleft()
        return one[:same]

    def _force(self) -> int:
        """Decide the oldest frame as the better path has it, and forget the paths that begin otherwise."""
        oldest = self._trace(int(self._energy.argmin()))[0]
        self.forced += 1
        waiting = list(self._waiting)
        self._waiting.popleft()
        self._back.clear()
        self._energy = np.where(np.arange(2) == oldest, 0.0, np.inf)
        for link in waiting[1:]:
            self._step(link)
        return oldest


def best_states(links: np.ndarray, window: int = 0) -> np.ndarray:
    """States of least energy of a whole shot of N frames: `links` (N - 1, 2, 2) -> int (N,).

    Args:
        window: as of SignChain; 0: exact.
    """
    chain = SignChain(window or len(links) + 1)
    states = chain.add(None)
    for link in links:
        states += chain.add(link)
    return np.array(states + chain.finish(), int)


@dataclass(frozen=True)
class Margins:
    """How much worse the best other answer is, nats; negative where the window forced a worse one."""

    frames: np.ndarray  # (N,) the best path in which this frame runs the other way
    links: np.ndarray  # (N - 1,) the best path in which these two neighbours, relative to each other, do
    whole: float  # the same path with all frames the other way


def margins(links: np.ndarray, states: Sequence[int] | np.ndarray) -> Margins:
    """Min-marginals of the energy, by a pass in each direction: `links` (N - 1, 2, 2), `states` (N,)."""
    chosen, count = np.asarray(states, int), len(links) + 1
    before, after = np.zeros((count, 2)), np.zeros((count, 2))  # least energy of all that comes before and after
    for t in range(1, count):
        before[t] = (before[t - 1][:, None] + links[t - 1]).min(0)
    for t in range(count - 2, -1, -1):
        after[t] = (after[t + 1][None] + links[t]).min(1)
    through, rows = before + after, np.arange(count)
    frames = through[rows, 1 - chosen] - through[rows, chosen]
    pairs = before[:-1, :, None] + links + after[1:, None]
    alike = np.minimum(pairs[:, 0, 0], pairs[:, 1, 1])
    apart = np.minimum(pairs[:, 0, 1], pairs[:, 1, 0])
    between = np.where(chosen[1:] == chosen[:-1], apart - alike, alike - apart)
    return Margins(frames, between, energy(links, 1 - chosen) - energy(links, chosen))


def energy(links: np.ndarray, states: np.ndarray) -> float:
    """E(s) of the module's formula."""
    return float(links[np.arange(len(links)), states[:-1], states[1:]].sum())
