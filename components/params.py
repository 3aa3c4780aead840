"""params.yaml → one validated object. Each group's class is defined beside the code that it configures;
this module only gathers them.

    defaults of the classes  <  params.yaml  <  a preset (params/presets/NAME.yaml)  <  --set group.key=value
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import inspect
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from components.assign_order.step import OrderConfig
from components.collect_footage.step import CollectConfig
from components.evaluate.step import EvaluateConfig
from components.evaluate_trajectories.step import TrajectoriesConfig
from components.register_model.gate import RegisterConfig
from components.schema import build, hints_of, leaves, load_file, load_text, shown, unknown
from components.synthesize_blur.step import SynthesisConfig
from components.train_deblurrer.step import TrainDeblurrerConfig
from components.train_encoder.step import TrainEncoderConfig
from components.validate_clips.step import ValidateClipsConfig
from components.validate_footage.step import ValidateFootageConfig
from hypercut_core.benchmark.config import BenchmarkConfig
from hypercut_core.benchmark.rows import parse_row
from hypercut_core.deblurring.cascade import FRAMES as CASCADE_FRAMES
from hypercut_core.deblurring.objectives import Objective
from hypercut_core.errors import BadParameters

SOURCE_TREE = Path(__file__).resolve().parents[1]  # where presets lie when the package runs from a checkout
OBJECTIVES: tuple[Objective, ...] = ("sequence_min", "order_invariant", "hypercut_targets")


@dataclass(frozen=True)
class Parameters:
    """Everything that can be set, for all steps."""

    seed: int = 0  # every random choice follows from it
    frames: int = 7  # T, sharp frames that one photo becomes: odd, 3 to 15
    objectives: tuple[Objective, ...] = OBJECTIVES  # trained and compared; deblurrer.objective is shipped
    footage: CollectConfig = field(default_factory=CollectConfig)
    validate_footage: ValidateFootageConfig = field(default_factory=ValidateFootageConfig)
    blur: SynthesisConfig = field(default_factory=SynthesisConfig)
    validate_clips: ValidateClipsConfig = field(default_factory=ValidateClipsConfig)
    encoder: TrainEncoderConfig = field(default_factory=TrainEncoderConfig)
    order: OrderConfig = field(default_factory=OrderConfig)
    deblurrer: TrainDeblurrerConfig = field(default_factory=TrainDeblurrerConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    trajectories: TrajectoriesConfig = field(default_factory=TrajectoriesConfig)
    register: RegisterConfig = field(default_factory=RegisterConfig)
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)


def load(file: Path | None = None, preset: str | None = None, overrides: Sequence[str] = ()) -> Parameters:
    """Read parameters.

    Args:
        file: params.yaml; None: the classes' own defaults.
        preset: name of a file in params/presets, beside `file` or in the source tree, or a path to one.
        overrides: "group.key=value" each; the last one wins.

    Raises:
        BadParameters: unknown, mistyped or out of range; says where, what is expected and the closest name.
        StorageError: `file` cannot be read.
    """
    values: dict[str, Any] = {}
    where: str | Path = "defaults"
    if file is not None:
        values, where = load_file(file), file
        check(build(Parameters, values, file), file)
    if preset is not None:
        path = find_preset(preset, file)
        overlay = load_file(path)
        build(Parameters, overlay, path)  # so that an error names the preset and not params.yaml
        values, where = merged(values, overlay), path
    for item in overrides:
        values, where = merged(values, _override(item)), f"--set {item}"
    parameters = build(Parameters, values, where)
    check(parameters, where)
    return parameters


def check(parameters: Parameters, where: str | Path) -> None:
    """Rules that span groups, and ranges that all numbers share.

    Raises:
        BadParameters
    """
    if parameters.frames % 2 == 0 or not 3 <= parameters.frames <= 15:
        raise BadParameters(f"'frames' must be an odd number from 3 to 15, got {parameters.frames}",
                            where=where, remedy="set frames to 7")
    if not 0 <= parameters.seed < 2**31:
        raise BadParameters(f"'seed' must be from 0 to {2**31 - 1}, got {parameters.seed}", where=where)
    if parameters.deblurrer.objective not in parameters.objectives:
        raise BadParameters(f"'deblurrer.objective' is '{parameters.deblurrer.objective}', which is not "
                            f"trained", where=where, remedy="add it to the list 'objectives'")
    if parameters.deblurrer.kind == "cascade" and parameters.frames != CASCADE_FRAMES:
        raise BadParameters(f"the cascade has {CASCADE_FRAMES} frames, and 'frames' is {parameters.frames}",
                            where=where, remedy=f"set frames to {CASCADE_FRAMES}, or choose another deblurrer.kind")
    if len(set(parameters.objectives)) < len(parameters.objectives):
        raise BadParameters("'objectives' names one twice", where=where, remedy="remove the copy")
    for row in parameters.benchmark.rows:
        parse_row(row)
    for name, value in flat(parameters).items():
        negative = isinstance(value, int | float) and value < 0
        if negative and not name.startswith("register."):
            raise BadParameters(f"'{name}' must be 0 or more, got {shown(value)}", where=where)


def merged(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `overlay`; groups are joined, lists and scalars replaced."""
    result = copy.copy(base)
    for key, value in overlay.items():
        both_groups = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both_groups else value
    return result


def find_preset(name: str, file: Path | None = None) -> Path:
    """The preset's file.

    Raises:
        BadParameters: there is none; lists those that there are.
    """
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    roots = [file.resolve().parent, SOURCE_TREE] if file else [SOURCE_TREE]
    folders = [root / "params/presets" for root in roots]
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        remedy = f"did you mean '{close[0]}'" if close else f"choose one of {', '.join(known) or 'none'}"
        raise BadParameters(f"there is no preset '{name}'", where="--preset", remedy=remedy)
    return next(folder / f"{name}.yaml" for folder in folders if (folder / f"{name}.yaml").is_file())


def flat(parameters: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name → value of every parameter."""
    result: dict[str, Any] = {}
    for item in dataclasses.fields(parameters):
        value = getattr(parameters, item.name)
        if dataclasses.is_dataclass(value):
            result |= flat(value, f"{prefix}{item.name}.")
        else:
            result[prefix + item.name] = value
    return result


def explained(parameters: Any, indent: str = "") -> str:
    """The parameters as YAML, each with its meaning and unit: the text of params.yaml."""
    meanings = _comments(type(parameters))
    lines = []
    for item in dataclasses.fields(parameters):
        value = getattr(parameters, item.name)
        if dataclasses.is_dataclass(value):
            lines += [f"{indent}{item.name}:", explained(value, indent + "  ").rstrip("\n")]
        else:
            plain = json.loads(json.dumps(value))
            text = yaml.safe_dump(plain, default_flow_style=True, width=1000, allow_unicode=True)
            text = text.removesuffix("\n").removesuffix("\n...")
            comment = f"  # {meanings[item.name]}" if item.name in meanings else ""
            lines.append(f"{indent}{item.name}: {text}{comment}")
    return "\n".join(lines) + "\n"


def _comments(kind: type) -> dict[str, str]:
    """Field name → the comment behind it in the class's source."""
    try:
        source = inspect.getsource(kind)
    except OSError:  # no source at hand, such as in a frozen application
        return {}
    return {found[1]: found[2].strip() for line in source.splitlines()
            if (found := re.match(r"    (\w+):.*?\s#\s(.*)$", line))}


def _override(item: str) -> dict[str, Any]:
    """'a.b=3' → {'a': {'b': 3}}, typed as the parameter is."""
    name, equals, text = item.partition("=")
    name = name.strip()
    where = f"--set {item}"
    if not equals:
        raise BadParameters("a setting has the form group.key=value", where=where,
                            remedy="for instance --set seed=1")
    hint: Any = Parameters
    for place, part in enumerate(name.split(".")):
        known = hints_of(hint) if dataclasses.is_dataclass(hint) else {}
        if part not in known:
            raise _unknown(name, ".".join(name.split(".")[:place]), part, known, where)
        hint = known[part]
    value: Any = text if hint is str else load_text(text, where)
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def _unknown(name: str, group: str, part: str, known: dict[str, Any], where: str) -> BadParameters:
    """The error for `name`, of which `group` exists and `part` does not."""
    prefix = group + "." if group else ""
    near = difflib.get_close_matches(part, known, n=1, cutoff=0.5)
    below = [leaf for leaf, _ in leaves(Parameters)
             if leaf == prefix + near[0] or leaf.startswith(f"{prefix}{near[0]}.")] if near else []
    return unknown(name, below or [prefix + item for item in known], where)
