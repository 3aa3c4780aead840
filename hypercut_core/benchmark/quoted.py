"""Figures that the papers give for their own models on their own data, to be shown as quoted and never mixed in."""

from __future__ import annotations

from dataclasses import dataclass

NOTE = ("Quoted from the papers, on other data and other cameras: decibels of different clips must never be "
        "compared. They show what the authors found by their own measure.")


@dataclass(frozen=True)
class Quoted:
    """pPSNR of frames 1 to 7, dB, as the authors give it."""

    data: str
    model: str
    ppsnr: tuple[float, ...]
    source: str = "Pham et al. 2023"
    protocol: str = "oracle-middle"


QUOTED = (
    Quoted("REDS", "Jin", (20.65, 22.63, 24.20, 23.50, 24.20, 22.63, 20.65), protocol="blind"),
    Quoted("REDS", "Jin + HyperCUT", (22.87, 24.88, 26.29, 25.10, 26.29, 24.88, 22.86), protocol="blind"),
    Quoted("REDS", "Purohit", (22.78, 24.47, 26.14, 31.50, 26.12, 24.49, 22.83)),
    Quoted("REDS", "Purohit + HyperCUT", (26.75, 28.30, 29.42, 29.97, 29.41, 28.30, 26.76)),
    Quoted("RB2V, mean", "Purohit", (26.99, 27.99, 29.45, 32.08, 29.55, 28.06, 27.04)),
    Quoted("RB2V, mean", "Purohit + HyperCUT", (28.29, 29.20, 30.43, 32.08, 30.53, 29.22, 28.25)),
)
# (model, parameters in millions, GMAC for 7 frames at 320x240): what the released models have
QUOTED_COST = (("Jin et al. 2018", 18.21, 252.0), ("Purohit et al. 2019", 4.55, 105.0),
               ("Zhong et al. 2022", 129.3, 799.0))
