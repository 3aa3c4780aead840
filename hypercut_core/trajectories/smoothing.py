"""Noisy points of some moments to a smooth path over all of them.

Each point's path is a polynomial in time, fitted by weighted least squares: x(t) = sum_k a_k (t - t0)^k. Up to
WINDOW moments one polynomial is fitted to all, its degree chosen by generalised cross-validation over all points
(Craven & Wahba 1979); more moments get one for each, of degree 2, fitted to the nearest WINDOW moments with tricube
weights (LOESS, Cleveland 1979; Savitzky-Golay where moments are even and none is missing). Outliers lose their
weight by Tukey's bisquare of the studentised residuals, which are scaled by their median.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WINDOW = 15  # moments that one polynomial is fitted to
HIGHEST = 3  # degree
ROUNDS = 4  # of reweighting
TUKEY = 4.685  # standard deviations at which an outlier has no weight left: 95 % efficiency for normal noise
NOISE_FLOOR = 0.2  # px: smaller residuals are no ground to distrust others
RAYLEIGH_MEDIAN = 1.1774  # of a 2-D normal's length, in standard deviations
LEAST = 1e-3  # of its weight that an outlier keeps, so that every fit can be made


@dataclass(frozen=True)
class Smoothed:
    """A fit of n moments by P points.

    Attributes:
        points: float64 ``[m, P, 2]`` at the moments asked for.
        trust: float64 ``[n, P]`` in [0, 1]: 1 where a measurement agrees with the path, 0 for an outlier.
        noise: float64 ``[P]``: standard deviation of one measurement about the path, px a coordinate.
        degree: of the polynomials.
    """

    points: np.ndarray
    trust: np.ndarray
    noise: np.ndarray
    degree: int


def smooth(times: np.ndarray, points: np.ndarray, weights: np.ndarray, at: np.ndarray) -> Smoothed:
    """Fit and evaluate.

    Args:
        times: ``[n]`` increasing, n >= 1.
        points: ``[n, P, 2]``, px.
        weights: ``[n]`` > 0, the confidence in each moment.
        at: ``[m]`` moments to evaluate the path at.
    """
    points = np.asarray(points, np.float64)
    if len(times) <= WINDOW:
        fits = [_robust(times, points, weights, degree) for degree in _degrees(len(times))]
        best = min(fits, key=lambda fit: _score(fit, fits[-1].scale))
        return Smoothed(_evaluate(best, at), best.trust, best.noise, best.degree)
    return _local(times, points, weights, at)


def _degrees(moments: int) -> range:
    """Those that leave something to average: up to 3 from six moments on. Two moments are joined by a line."""
    return range(1, 2) if moments == 2 else range(min(HIGHEST, moments // 2) + 1)


@dataclass(frozen=True)
class _Fit:
    centre: float
    span: float
    degree: int
    coefficients: np.ndarray  # [P, degree + 1, 2]
    trust: np.ndarray
    noise: np.ndarray
    squares: np.ndarray  # [n, P] squared distances from the path
    scale: np.ndarray  # [P] robust standard deviation
    left: int  # degrees of freedom


def _robust(times: np.ndarray, points: np.ndarray, weights: np.ndarray, degree: int) -> _Fit:
    centre, span = float(times.mean()), float(np.ptp(times)) / 2 or 1.0
    basis = _basis(times, centre, span, degree)
    trust = np.ones(points.shape[:2])
    for _ in range(ROUNDS):
        coefficients, leverage = _solve(basis, points, weights[:, None] * np.maximum(trust, LEAST))
        missed = points - np.einsum("nk,pkc->npc", basis, coefficients)
        free = np.sqrt(np.maximum(1 - leverage, 1e-9))
        studentised = np.where(leverage < 1 - 1e-6, np.linalg.norm(missed, axis=2) / free, 0.0)
        scale = np.maximum(np.median(studentised, axis=0) / RAYLEIGH_MEDIAN, NOISE_FLOOR)
        trust = np.square(np.clip(1 - np.square(studentised / (TUKEY * scale)), 0, None))
    left = max(len(times) - degree - 1, 0)
    squares = np.square(missed).sum(axis=2)
    share = (weights / weights.mean())[:, None]  # of a local fit the nearer moments tell the noise
    noise = np.sqrt((share * np.minimum(squares, np.square(TUKEY * scale))).sum(axis=0) / 2 / max(left, 1))
    return _Fit(centre, span, degree, coefficients, trust, noise, squares, scale, left)


def _score(fit: _Fit, scale: np.ndarray) -> float:
    """Generalised cross-validation, RSS / (n - k)^2, each point in units of its noise `scale` [P], the same for all
    fits; outliers are cut off."""
    squares = np.minimum(fit.squares / np.square(scale), TUKEY**2)
    return float(squares.sum(axis=0).mean()) / max(fit.left, 1e-9) ** 2


def _basis(times: np.ndarray, centre: float, span: float, degree: int) -> np.ndarray:
    return np.vander((np.asarray(times, np.float64) - centre) / span, degree + 1, increasing=True)


def _solve(basis: np.ndarray, points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least squares of every point: coefficients [P, k, 2] and leverages [n, P]."""
    normal = np.einsum("nk,np,nl->pkl", basis, weights, basis)
    inverse = np.linalg.inv(normal)
    coefficients = np.einsum("pkl,nl,np,npc->pkc", inverse, basis, weights, points, optimize=True)
    leverage = np.einsum("nk,pkl,nl,np->np", basis, inverse, basis, weights, optimize=True)
    return coefficients, leverage


def _evaluate(fit: _Fit, at: np.ndarray) -> np.ndarray:
    return np.einsum("mk,pkc->mpc", _basis(at, fit.centre, fit.span, fit.degree), fit.coefficients)


def _local(times: np.ndarray, points: np.ndarray, weights: np.ndarray, at: np.ndarray) -> Smoothed:
    """One polynomial of degree 2 for each moment, of its nearest moments."""
    made, trust, shares = [], np.zeros(points.shape[:2]), np.zeros(len(times))
    noise = []
    for moment in at:
        far = np.abs(times - moment)
        near = np.sort(np.argsort(far, kind="stable")[:WINDOW])
        reach = far[near].max() * (1 + 1e-6)
        kernel = (1 - (far[near] / reach) ** 3) ** 3
        fit = _robust(times[near], points[near], weights[near] * np.maximum(kernel, LEAST), 2)
        made.append(_evaluate(fit, np.array([moment]))[0])
        trust[near] += kernel[:, None] * fit.trust
        shares[near] += kernel
        noise.append(fit.noise)
    seen = shares > 0
    trust[seen] /= shares[seen, None]
    trust[~seen] = 1.0
    return Smoothed(np.stack(made), trust, np.sqrt(np.square(noise).mean(axis=0)), 2)
