"""All models on the same clips: their scores, the pictures for the report, and what is written of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hypercut_core.errors import BadCheckpoint, HypercutError, MissingExtra
from hypercut_core.evaluation.protocol_names import BLIND, labelled
from hypercut_core.files import file_sha256

if TYPE_CHECKING:
    from components.evaluate.step import EvaluateConfig
    from hypercut_core.clips.store import ClipStore
    from hypercut_core.evaluation.protocol import ClipScores
    from hypercut_core.evaluation.protocols import Way
    from hypercut_core.evaluation.report import Example
    from hypercut_core.ordering.labels import OrderTable

CHAMPION = "current champion"
TRAINED_ON = {"learned": "hypercut_targets", "rule": "rule_targets"}  # order -> objective that predicts it


class Bench:
    """The clips, and what the models made of them."""

    def __init__(self, clips: ClipStore, indices: np.ndarray, config: EvaluateConfig,
                 orders: OrderTable | None, device: str):
        from hypercut_core.evaluation.protocol import evaluate_clips, repeat_blurry

        self.clips, self.indices, self.config, self.device = clips, indices, config, device
        self.notes: list[str] = []
        self.on_request: dict[str, Any] = {"motion": config.motion_error, "lpips": self._lpips()}
        self.orders, self.directions = orders, _directions(clips, indices, orders)
        self.trivial = evaluate_clips(repeat_blurry(clips.frames), clips, indices, directions=self.directions,
                                      batch=config.batch, name="repeat the blurry image", device=device,
                                      **self.on_request)
        self.scores: dict[str, ClipScores] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        self.protocols: dict[str, str] = {}  # of `scores`
        self.given: dict[str, tuple[str, ClipScores]] = {}  # protocol and scores, also of models that can do blind
        self.examples: list[Example] = []
        self.worst: list[Example] = []
        self.champion_problem = ""

    def _lpips(self) -> Any:
        """The network of LPIPS where it is asked for and there; a note of why it is left out otherwise."""
        from hypercut_core.evaluation.lpips import INSTALL, SMALLEST, load_lpips

        if not self.config.lpips:
            return None
        records = [self.clips.records[int(i)] for i in self.indices]
        small = sum(min(one.height, one.width) < SMALLEST[self.config.lpips] for one in records)
        if small:
            self.notes.append(f"pLPIPS leaves out {small:,} of {len(records):,} clips: they are smaller than the "
                              f"{SMALLEST[self.config.lpips]} px that its network needs")
        try:
            return load_lpips(self.config.lpips).to(self.device)
        except MissingExtra:
            self.notes.append(f"pLPIPS was not measured: its weights are not installed ({INSTALL})")
            return None

    def run(self, name: str, path: Path) -> None:
        from hypercut_core.deblurring.models import load_deblurrer
        from hypercut_core.evaluation.protocols import ways

        model = load_deblurrer(path).to(self.device).eval()
        if model.frames != self.clips.frames:
            raise BadCheckpoint(f"the model gives {model.frames} frames, the clips have {self.clips.frames}",
                                where=path, remedy="train it on this clip store")
        usual, *others = ways(model)
        self.scores[name], self.protocols[name] = self._score(name, usual), usual.protocol
        for way in others if name != CHAMPION else []:
            self.given[labelled(name, way.protocol)] = (way.protocol, self._score(name, way))
        self.facts[name] = {"parameters": sum(weight.numel() for weight in model.parameters()),
                            "model_sha256": file_sha256(path)}
        if usual.protocol != BLIND:
            self.facts[name]["protocol"] = usual.protocol
        self._picture(name, usual)

    def _score(self, name: str, way: Way) -> ClipScores:
        from hypercut_core.evaluation.protocol import evaluate_clips

        return evaluate_clips(None, self.clips, self.indices, directions=self.directions, batch=self.config.batch,
                              name=labelled(name, way.protocol), device=self.device, given=way.predict,
                              **self.on_request)

    def run_champion(self, path: Path) -> None:
        """The champion may be of another kind: the report then says so, and the rest is measured."""
        try:
            self.run(CHAMPION, path)
        except HypercutError as error:
            self.champion_problem = error.what

    def _picture(self, name: str, way: Way) -> None:
        """Keep what the report shows: the default model on all examples, the others on two of them."""
        from hypercut_core.evaluation.report import Example

        if len(self.scores) == 1:
            for kept, places in ((self.examples, self._ranks()), (self.worst, self._lowest())):
                kept += [Example(place, self._shrunk(self.clips.read(int(self.indices[place]))), {})
                         for place in places]
            pictured = [*self.examples, *self.worst]
        else:
            pictured = self.compared()
        for example in pictured:
            example.recovered[name] = self._recover(name, way, example.place)

    def compared(self) -> list[Example]:
        """The examples that all models are shown on: one among the better and one among the worse."""
        chosen = sorted({len(self.examples) // 4, len(self.examples) * 3 // 4})
        return [self.examples[k] for k in chosen] if self.examples else []

    def _ranks(self) -> list[int]:
        """Places of an even choice of clips by gain, best first."""
        ranked = np.argsort(-self._gain(), kind="stable")
        count = min(max(0, self.config.films), len(ranked))
        chosen = np.linspace(0, len(ranked) - 1, count).round().astype(int)
        return [int(place) for place in ranked[chosen]]

    def _lowest(self) -> list[int]:
        return [int(place) for place in np.argsort(self._gain(), kind="stable")[:max(0, self.config.worst)]]

    def _gain(self) -> np.ndarray:
        """[N] dB of the first model above the trivial answer."""
        return next(iter(self.scores.values())).ppsnr.mean(1) - self.trivial.ppsnr.mean(1)

    def _recover(self, name: str, way: Way, place: int) -> np.ndarray:
        """uint8 frames of one clip, turned the way that scored."""
        import torch

        clip = self.clips.read(int(self.indices[place]))
        with torch.inference_mode():
            images = torch.from_numpy(clip).permute(0, 3, 1, 2)[None].float().to(self.device) / 255
            frames = way.predict(images[:, 0], images[:, 1:])[0].nan_to_num(0).clamp(0, 1)
            frames = frames.mul(255).round().byte().permute(0, 2, 3, 1)
        turned = frames.flip(0) if self.scores[name].reversed[place] else frames
        return self._shrunk(turned.cpu().numpy())

    @staticmethod
    def _shrunk(frames: np.ndarray) -> np.ndarray:
        from hypercut_core.evaluation.films import shrink

        return shrink(frames)

    def figures(self, default: str, order: dict[str, float]) -> dict[str, Any]:
        """All that goes into the metrics file."""
        from hypercut_core.evaluation.protocol import summarise

        summaries = {name: {**summarise(scores, self.trivial), **self.facts[name]}
                     for name, scores in self.scores.items()}
        champion = summaries.pop(CHAMPION, None)
        given = {label: {**summarise(scores, self.trivial), "protocol": protocol}
                 for label, (protocol, scores) in self.given.items()}
        return {
            **({"given_more": given} if given else {}),
            "test_set": self._test_set(), "split": self.config.split, "clips": len(self.indices),
            "frames": self.clips.frames, "default": default, "models": summaries,
            "trivial": summarise(self.trivial), "order": order, "predictability": self._predictability(),
            "categories": self._categories(default),
            "champion": champion or ({"problem": self.champion_problem} if self.champion_problem else None),
            **({"notes": self.notes} if self.notes else {}),
        }

    def _predictability(self) -> dict[str, float]:
        """How often each order is told right from blur alone, by the model that was trained on it."""
        measured = {order: self.scores.get(objective) for order, objective in TRAINED_ON.items()}
        return {order: scores.order_agreement(order) for order, scores in measured.items()
                if scores is not None and order in self.directions}

    def _label_films(self, labels: dict[str, str]) -> None:
        for example in [*self.examples, *self.worst]:
            for name in list(example.recovered):
                example.recovered[labels[name]] = example.recovered.pop(name)

    def _test_set(self) -> str:
        """What the scores were measured on: hash of the sorted hashes of the clips."""
        hashes = sorted(self.clips.records[int(i)].sha256 for i in self.indices)
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()

    def _categories(self, default: str) -> dict[str, dict[str, Any]]:
        category = np.array([self.clips.records[int(i)].category for i in self.indices])
        mean = self.scores[default].ppsnr.mean(1)
        gain = mean - self.trivial.ppsnr.mean(1)
        masks = {str(one): category == one for one in np.unique(category)}
        return {one: {"clips": int(mask.sum()), "ppsnr": float(mean[mask].mean()),
                      "gain": float(gain[mask].mean())} for one, mask in masks.items()}

    def write(self, folder: Path, figures: dict[str, Any], default: str, provenance: dict[str, Any]) -> None:
        """The tables and the report."""
        from components.evaluate.per_clip import TRIVIAL, write_per_clip, write_per_frame
        from hypercut_core.evaluation.report import ClipLabel, ReportData, write_report

        records = [self.clips.records[int(i)] for i in self.indices]
        margins = None if self.orders is None else _margins(self.clips, self.indices, self.orders)
        summaries = dict(figures["models"])
        if CHAMPION in self.scores:
            summaries[CHAMPION] = figures["champion"]
        labels = {name: labelled(name, self.protocols[name]) for name in self.scores}
        summaries = {labels[name]: summaries[name] for name in self.scores}  # the default first
        scores = {labels[name]: one for name, one in self.scores.items()}
        self._label_films(labels)
        if self.champion_problem:
            provenance["current champion"] = f"not measured: {self.champion_problem}"
        write_per_frame(folder / "per_frame.csv", {TRIVIAL: figures["trivial"], **summaries})
        write_per_clip(folder / "per_clip.csv", records, self.trivial, scores, margins)
        files = {f"model {name} (sha256)": facts["model_sha256"] for name, facts in self.facts.items()}
        write_report(folder / "report.html", ReportData(
            default=labels[default], scores=scores, summaries=summaries, trivial=self.trivial,
            given_more=figures.get("given_more", {}), trivial_summary=figures["trivial"], margins=margins,
            order_figures=figures["order"],
            predictability=figures["predictability"],
            clips=[ClipLabel(one.clip_id, one.source, one.category, one.motion) for one in records],
            examples=self.examples, worst=self.worst, categories=figures["categories"], notes=self.notes,
            provenance={"test set (sha256)": figures["test_set"], "clip store (sha256)": self.clips.sha256,
                        **files, **provenance}))


def _directions(clips: ClipStore, indices: np.ndarray, orders: OrderTable | None) -> dict[str, np.ndarray]:
    """The learned order where there is one, and the control: mean motion to the right."""
    import torch

    from hypercut_core.evaluation.protocol import same_size_batches
    from hypercut_core.ordering.rule import rule_direction

    rule = np.zeros(len(indices), np.int8)
    for places in same_size_batches(clips, indices, 32):
        sharp = torch.from_numpy(np.stack([clips.read(int(i))[1:] for i in indices[places]]))
        rule[places] = rule_direction(sharp.permute(0, 1, 4, 2, 3).float() / 255).numpy()
    if orders is None:
        return {"rule": rule}
    return {"learned": orders.for_clips(clips, indices)[:, 0], "rule": rule}


def _margins(clips: ClipStore, indices: np.ndarray, orders: OrderTable) -> np.ndarray:
    """[N] |u| of each clip."""
    rows = {clip: float(margin) for clip, margin in zip(orders.clip_ids, orders.margin, strict=True)}
    return np.array([rows[clips.records[int(i)].clip_id] for i in indices])
