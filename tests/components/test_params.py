"""params.yaml, presets and --set: what is read, and what is refused with which words."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components import params, schema
from components.params import Parameters, explained, flat, load
from components.schema import LARGEST_FILE, build, leaves, load_text
from hypercut_core.errors import BadParameters, StorageError


def written(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(*overrides: str, file: Path | None = None, preset: str | None = None) -> str:
    with pytest.raises(BadParameters) as caught:
        load(file, preset, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_shipped_file_names_every_parameter_and_nothing_else(repository: Path) -> None:
    values = schema.load_file(repository / "params.yaml")
    named = set()

    def walk(value: object, prefix: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                walk(item, f"{prefix}.{key}" if prefix else key)
        else:
            named.add(prefix)

    walk(values, "")
    assert named == {name for name, _ in leaves(Parameters)}


PRESETS = sorted(path.stem for path in (params.SOURCE_TREE / "params/presets").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid(repository: Path, preset: str) -> None:
    assert load(repository / "params.yaml", preset) != load(repository / "params.yaml")


def test_every_parameter_says_what_it_means() -> None:
    text = explained(Parameters())
    bare = [line for line in text.splitlines() if not line.endswith(":") and "  # " not in line]
    assert bare == []


def test_what_is_printed_reads_back_as_the_same(tmp_path: Path) -> None:
    changed = load(None, None, ["seed=3", "encoder.training.rate=3e-4", "blur.exposure.response=none"])
    assert load(written(tmp_path, explained(changed))) == changed


def test_file_preset_and_settings_in_that_order(tmp_path: Path) -> None:
    file = written(tmp_path, "seed: 1\nencoder: {training: {steps: 10, batch: 3}}\n")
    preset = tmp_path / "mine.yaml"
    preset.write_text("encoder: {training: {steps: 20}}\n", encoding="utf-8")
    mixed = load(file, str(preset), ["encoder.training.steps=30", "encoder.training.steps=40"])
    assert (mixed.seed, mixed.encoder.training.steps, mixed.encoder.training.batch) == (1, 40, 3)
    assert load(file, str(preset)).encoder.training.steps == 20


def test_a_partly_given_group_keeps_that_groups_own_defaults(tmp_path: Path) -> None:
    given_one = load(written(tmp_path, "encoder: {training: {batch: 3}}\n")).encoder.training
    assert given_one == dataclasses.replace(Parameters().encoder.training, batch=3)


def test_a_preset_beside_the_file_is_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "params/presets").mkdir(parents=True)
    (tmp_path / "params/presets/mine.yaml").write_text("seed: 9\n", encoding="utf-8")
    assert load(written(tmp_path, ""), "mine").seed == 9


@pytest.mark.parametrize(("override", "words"), [
    ("encoder.training.rte=1", ["'encoder.training.rte'", "did you mean 'encoder.training.rate'"]),
    ("encodr.training.steps=1", ["did you mean 'encoder.training.steps'"]),
    ("sed=1", ["did you mean 'seed'"]),
    ("seed.deep=1", ["'seed.deep'"]),
    ("qqqq=1", ["the top level knows seed, frames"]),
    ("encoder.training.steps=many", ["'encoder.training.steps'", "a whole number", "'many' (a word)"]),
    ("encoder.training.steps=1.5", ["a whole number", "1.5"]),
    ("encoder.training.steps=true", ["a whole number"]),
    ("encoder.training.rate=fast", ["a number"]),
    ("encoder.training.rate=.inf", ["finite"]),
    ("encoder.training.steps=-3", ["0 or more", "-3"]),
    ("encoder.training.channels_last=1", ["true or false"]),
    ("encoder.training.precision=float16", ['one of "float32", "bf16"', "did you mean 'float32'"]),
    ("footage.categories=hand", ["a list of a word", "[hand]"]),
    ("blur.photos=3", ["a group", "blur.photos.size"]),
    ("frames=8", ["odd number from 3 to 15", "8"]),
    ("frames=17", ["odd number from 3 to 15"]),
    ("seed=-1", ["from 0 to"]),
    ("objectives=[naive]", ["deblurrer.objective", "objectives"]),
    ("seed", ["group.key=value"]),
])
def test_a_wrong_setting_is_named_with_what_is_right(override: str, words: list[str]) -> None:
    text = refusal(override)
    assert text.startswith(f"--set {override}: ")
    for word in words:
        assert word in text


@pytest.mark.parametrize(("content", "words"), [
    ("seed: 1\nseed: 2\n", ["line 2", "given twice"]),
    ("encoder: {modle: {width: 3}}\n", ["did you mean 'encoder.model'"]),
    ("- 1\n- 2\n", ["no 'key: value' pairs"]),
    ("seed: [1\n", ["not a valid parameter file"]),
    ("seed: &x 1\nframes: *x\n", ["alias"]),
    ("seed: !!python/object/apply:os.system ['true']\n", ["not a valid parameter file"]),
    ("1: 2\n", ["not a word"]),
    ("a: " + "[" * 40 + "]" * 40 + "\n", ["nested"]),
    ("# " + "x" * LARGEST_FILE, ["larger than"]),
])
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, content: str, words: list[str]) -> None:
    file = written(tmp_path, content)
    text = refusal(file=file)
    assert text.startswith(f"{file}: ")
    for word in words:
        assert word in text


def test_an_error_in_a_preset_names_the_preset(tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text("seeed: 1\n", encoding="utf-8")
    assert refusal(preset=str(preset)).startswith(f"{preset}: ")
    assert "did you mean 'smoke'" in refusal(preset="smok")


def test_a_file_that_is_not_text_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    with pytest.raises(StorageError, match="--params"):
        load(file)
    file.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in refusal(file=file)


def test_yaml_is_read_as_dvc_reads_it() -> None:
    """PyYAML alone takes 1e-3 for a word, 'off' for false and 010 for eight."""
    assert load_text("{a: 1e-3, b: off, c: 010, d: 1:30, e: 2020-01-01, f: .5, g: ~}", "x") == \
        {"a": 1e-3, "b": "off", "c": 10, "d": "1:30", "e": "2020-01-01", "f": 0.5, "g": None}


def test_words_that_look_like_numbers_stay_words_where_a_word_is_asked_for() -> None:
    assert load(None, None, ["footage.revision=123"]).footage.revision == "123"
    assert load(None, None, ["footage.source=/a=b"]).footage.source == "/a=b"


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_parameters_or_a_clear_error(text: str) -> None:
    with contextlib.suppress(BadParameters):
        values = load_text(text, "params.yaml")
        if isinstance(values, dict):
            build(Parameters, values, "params.yaml")


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(name for name, _ in leaves(Parameters))), st.integers(0, 30))
def test_a_typing_error_leads_back_to_the_name(name: str, place: int) -> None:
    head, _, last = name.rpartition(".")
    place %= len(last)
    typed = (head + "." if head else "") + last[:place] + "x" + last[place:]
    if typed in flat(Parameters()) or len(last) < 4:
        return
    assert f"did you mean '{name}'" in refusal(f"{typed}=1")


# clips to learn from, as the presets' comments count them; the papers train 100 epochs in batches of 8
TRAINING_CLIPS = {"reds": 17_040, "rb2v": 29_000}
PAPER_KINDS = {"jin": ("cascade", "adamax", 5e-4, "stairs"), "purohit": ("recurrent", "adamax", 5e-4, "stairs"),
               "zhong": ("guided", "adamw", 1e-4, "cosine"), "ours": ("even_odd", "adamw", 1e-3, "cosine")}


@pytest.mark.parametrize("data", TRAINING_CLIPS)
@pytest.mark.parametrize("who", PAPER_KINDS)
def test_the_papers_settings_are_what_they_say(repository: Path, who: str, data: str) -> None:
    from components.train_deblurrer.step import deblurrer_training

    p = load(repository / "params.yaml", f"{who}-{data}")
    settings = deblurrer_training(p.deblurrer)
    training = settings.training
    assert (p.deblurrer.kind, training.optimiser, training.rate, training.schedule) == PAPER_KINDS[who]
    assert (training.crop, training.batch, training.steps) == (256, 8, 100 * TRAINING_CLIPS[data] // 8)
    assert settings.model.response == {"reds": "srgb", "rb2v": "none"}[data]
    assert p.footage.source.endswith(data.upper())
    if who != "ours":
        encoder = p.encoder
        assert (encoder.model.kind, encoder.recolour, encoder.training.optimiser) == ("hyperplane", False, "adamax")


def test_the_benchmark_preset_is_the_long_one(repository: Path) -> None:
    p = load(repository / "params.yaml", "benchmark")
    assert p.benchmark.seeds == (0, 1, 2)
    assert {row.partition("/")[0] for row in p.benchmark.rows} \
        == {"repeat", "even_odd", "cascade", "recurrent", "guided", "event_integral"}
    assert "did you mean 'cascade/naive'" in refusal("benchmark.rows=[cascade/naif]")
    assert "the cascade has 7 frames" in refusal("deblurrer.kind=cascade", "frames=5")
    assert "did you mean 'deblurrer.peers.cascade.model.width'" in refusal("deblurrer.peers.cascade.model.widht=3")
