"""The model card: Markdown made from the model file and its figures, nothing written by hand for one run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.provenance import FOOTAGE, GIT, MANIFEST
from components.redaction import shown as without_secrets
from components.register_model.gate import FIGURES, PSSIM, RegisterConfig
from hypercut_core.evaluation.protocol_names import protocol_of

KINDS = {"even_odd": "Even/odd model", "cascade": "Cascade of Jin et al. 2018",
         "recurrent": "Recurrent model of Purohit et al. 2019", "guided": "Motion-guided model of Zhong et al. 2022"}


def model_card(model: Path, figures: Mapping[str, Any], config: RegisterConfig,
               provenance: Mapping[str, Any]) -> str:
    """Markdown, under 5,000 characters (the registry's limit for a description).

    Raises:
        BadCheckpoint: the model file cannot be read, or describes no model.
    """
    from hypercut_core.training.checkpoint import read_info

    info = read_info(model)
    name = str(figures["default"])
    sections = [
        f"# {config.name}: one motion-blurred photo to {figures['frames']} sharp frames",
        f"{_kind(info)}; objective `{name}`; protocol {protocol_of(figures['models'][name])}; "
        f"{_count(figures['models'][name].get('parameters'))} parameters; {_gmac(info)}; "
        f"model file sha256 `{figures['models'][name]['model_sha256'][:16]}`.",
        _training(info.get("card", {}), info.get("config", {})),
        _figures(figures, name),
        _limits(figures, info.get("config", {}), soft=bool(_defocus(info.get("card", {})))),
        _use(config.name, int(figures["frames"])),
        _origin(figures, provenance),
        "## Licence\nApache-2.0 for code and weights. Footage that you train on keeps its own licence: see "
        "the footage manifest of the run before you publish weights made from it.",
    ]
    return "\n\n".join(sections) + "\n"


def _kind(info: Mapping[str, Any]) -> str:
    kind = str(info.get("model"))
    return f"{KINDS.get(kind, 'Model')} (`{_short(kind)}`)"


def _gmac(info: Mapping[str, Any]) -> str:
    from hypercut_core.deblurring.cost import KNOWN_SIZE, deblurrer_gmac
    from hypercut_core.deblurring.models import config_of
    from hypercut_core.errors import BadCheckpoint

    height, width = KNOWN_SIZE
    try:
        amount = deblurrer_gmac(config_of(info), int(info["frames"]), height, width)
    except (KeyError, TypeError, ValueError) as error:
        raise BadCheckpoint(f"the model file describes no deblurrer ({error})",
                            remedy="train the model again with this version") from error
    return f"{amount:,.1f} billion multiply-adds for {info['frames']} frames at {width}x{height}"


def _training(card: Mapping[str, Any], shape: Mapping[str, Any]) -> str:
    training = card.get("training", {}) if isinstance(card.get("training"), Mapping) else {}
    facts = [("objective", card.get("objective")),
             ("clip store (sha256)", str(card.get("data", ""))[:16] or None), ("seed", card.get("seed")),
             ("steps", training.get("steps")), ("batch", training.get("batch")),
             ("crop, px", training.get("crop")), ("width", shape.get("width")),
             ("blocks", shape.get("blocks")), ("response curve of the blur", shape.get("response"))]
    if soft := _defocus(card):
        facts.append(("clips out of focus, share", f"{soft[0]}, up to {soft[1]} px"))
    begun = card.get("start")
    if isinstance(begun, Mapping):
        facts.append(("begun with the weights of", f"{begun.get('name')} (sha256 {str(begun.get('sha256'))[:16]})"))
    rows = [f"- {title}: {_short(value)}" for title, value in facts if value is not None]
    return "\n".join(["## What it was trained on", *(rows or ["- not recorded in the model file"])])


def _defocus(card: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """Share of the training clips that were put out of focus and how far, px; None: none was."""
    training = card.get("training")
    augmentation = training.get("augmentation") if isinstance(training, Mapping) else None
    if not isinstance(augmentation, Mapping) or not augmentation.get("defocus"):
        return None
    return augmentation["defocus"], augmentation.get("defocus_px")


def _figures(figures: Mapping[str, Any], name: str) -> str:
    """This model, the trivial answer and the champion at the time, on the same clips."""
    columns = {"this model": figures["models"][name], "repeat the blurry image": figures["trivial"]}
    champion = figures.get("champion")
    if isinstance(champion, Mapping) and "ppsnr" in champion:
        columns["champion before"] = champion
    head = f"| blind, {figures['clips']} unseen clips | " + " | ".join(columns) + " |"
    rows = [f"| {figure.title}{',' if figure.unit else ''}{figure.unit} | "
            + " | ".join(_value(column.get(figure.key), 4 if figure is PSSIM else 2)
                         for column in columns.values()) + " |" for figure in FIGURES]
    return "\n".join(["## Figures", head, "|---" * (len(columns) + 1) + "|", *rows, "",
                      f"Split `{figures.get('split')}`, test set `{str(figures['test_set'])[:16]}`. pPSNR "
                      "and pSSIM take the better of the two directions of time, chosen once a clip."])


def _limits(figures: Mapping[str, Any], shape: Mapping[str, Any], soft: bool) -> str:
    worse = figures["models"][str(figures["default"])].get("worse_than_trivial")
    lines = ["- The direction of time cannot be told from blur: frames may run backwards (`--reverse`).",
             "- Motion longer than in the training clips and low light were not measured.",
             "- Out of focus it was trained on clips put there by a Gaussian only." if soft else
             "- It learned from clips as they were, none put out of focus: it may take a soft edge for a moving one.",
             "- It draws what is likely, not what was there: no evidence, no identification.",
             "- Parts that move independently may each run in their own direction."]
    if "predictor_width" in shape:
        lines.insert(1, "- Without guidance it assumes a direction of motion, and draws what that implies.")
    if shape.get("projection") == 1.0:
        lines.insert(2, f"- Its frames average back to the photo (response `{shape.get('response')}`); with "
                        "dead time between frames or a saturated photo that is not quite true.")
    if worse:
        lines.append(f"- On {worse} of {figures['clips']} test clips it was worse than repeating the photo.")
    return "\n".join(["## Limits", *lines])


def _use(name: str, frames: int) -> str:
    return f"""## How to use
```
hypercut restore PHOTO -o out.webp --model models:/{name}@champion
mlflow models serve -m models:/{name}@champion --env-manager local
```
```python
import mlflow
model = mlflow.pyfunc.load_model("models:/{name}@champion")
frames = model.predict(photos)  # uint8 (B, H, W, 3) sRGB, any size -> uint8 (B, {frames}, H, W, 3)
```"""


def _origin(figures: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    shown = {key: provenance[key] for key in (GIT, FOOTAGE, MANIFEST, "hypercut", "torch", "python", "seed")
             if provenance.get(key) not in (None, "")}
    rows = [f"- {key}: {_short(value)}" for key, value in shown.items()]
    order = figures.get("order") or {}
    if order:
        rows.append("- learned order: "
                    + ", ".join(f"{key} {float(value):.3f}" for key, value in order.items()))
    return "\n".join(["## Origin", *(rows or ["- not recorded"])])


def _value(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "-"


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "an unknown number of"


def _short(value: Any) -> str:
    return without_secrets(str(value)).replace("\n", " ").replace("|", "/")[:120]
