"""The straight pipe: everything `regraft train` does, in the order a reader meets it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from regraft.data.dataset import DataSet
from regraft.data.decode import PixelProgram
from regraft.data.open import open_data
from regraft.data.preprocess import Preprocessing, Style
from regraft.data.usual_size import usual_size
from regraft.errors import SettingsError
from regraft.models.build import build_model
from regraft.models.channels import choose_mix, mixed_preprocessing
from regraft.models.folder import load_model
from regraft.models.head import Head
from regraft.models.info import info_of
from regraft.models.numerics import Numerics, choose_numerics
from regraft.models.preview import surgery_plan
from regraft.models.surgery import adapt, default_preprocessing
from regraft.plan.make import make_plan
from regraft.plan.stages import Stage
from regraft.recipe import PreprocessSettings, Recipe, default_recipe, validate_recipe
from regraft.run.changes import Place, differences, is_of_network, require_allowed
from regraft.run.folder import RunFolder, open_run, require_new
from regraft.train.callbacks import Callback
from regraft.train.fastest import measured_numerics
from regraft.train.find_lr import RangeTest, find_lr
from regraft.train.fit import check_bands
from regraft.train.forecast import forecast
from regraft.train.forecast_text import render_plan
from regraft.train.loggers import require_loggers
from regraft.train.train import train
from regraft.weights.file import read_weights

__all__ = ["opened_recipe", "range_test", "rehearse", "resume", "run_recipe"]

_log = logging.getLogger("regraft")


def run_recipe(
    recipe: Recipe | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    data: DataSet | None = None,
    callbacks: Sequence[Callback] = (),
    show: bool = True,
) -> RunFolder:
    """Carry out a whole recipe: data, network, weights, surgery, plan, training. Returns the run's folder.

    Args:
        recipe: Checked settings, or plain data that is checked first.
        out: The run folder; None makes `runs/<data>-<n>`.
        data: The photos, where they were opened before; None opens `data.source`.
        callbacks: Who is told what happens (`rg.Callback`).
        show: Whether to write progress to stderr.

    Raises:
        RegraftError: Whatever the parts raise, each with its own exit code.
    """
    if out is not None:
        require_new(out)
    recipe, data = opened_recipe(recipe, data)
    _tell(recipe)
    require_loggers(recipe.log)
    numerics = _numerics(recipe)
    model = _adapted(recipe, data, weights=recipe.model.weights)
    numerics = _measured(recipe, model, numerics)
    plan = make_plan(model, _stages(recipe))
    return train(
        model,
        plan,
        data,
        out=out,
        seed=recipe.seed,
        batch_size=recipe.data.batch_size,
        monitor=recipe.monitor,
        mode=recipe.mode,
        numerics=numerics,
        save_steps=recipe.save_steps,
        cache=recipe.data.cache,
        feature_cache=_feature_cache(recipe),
        log=recipe.log,
        callbacks=callbacks,
        show=show,
    )


def rehearse(recipe: Recipe | Mapping[str, Any], *, data: DataSet | None = None) -> str:
    """What `run_recipe` would do to the network, and what would train in each stage, as plain text.

    Of weights, reads those of an earlier run alone, whose classes and head decide what is kept. Writes nothing, trains
    nothing but a copy on a few batches of noise, to see how long that takes.

    Args:
        recipe: Checked settings, or plain data that is checked first.
        data: The photos, where they were opened before; None opens `data.source`.

    Raises:
        RegraftError: Whatever `run_recipe` would raise before it reads weights.
    """
    recipe, data = opened_recipe(recipe, data)
    _tell(recipe)
    require_loggers(recipe.log)
    model = _unfilled(recipe)
    for step in recipe.model.channels_before:
        model = adapt(model, **step.model_dump())
    surgery = _surgery(recipe, model, data)
    stages = _stages(recipe)
    check_bands(surgery["preprocessing"], data.train.paths, stages)
    adapted = adapt(model, **surgery)
    plan = make_plan(adapted, stages)
    num_train, num_val = len(data.train), len(data.val)
    expected = forecast(
        adapted,
        plan,
        num_train=num_train,
        num_val=num_val,
        batch_size=recipe.data.batch_size,
        numerics=_numerics(recipe),
        paths=data.train.paths,
    )
    images = f"images: {num_train} to train on, {num_val} to validate, {len(data.class_names)} classes"
    warnings = [f"warning: {text}" for text in plan.warnings]
    return "\n".join([surgery_plan(model, **surgery).render(), images, *warnings, render_plan(adapted, plan, expected)])


def range_test(
    recipe: Recipe | Mapping[str, Any], *, stage: str | None = None, data: DataSet | None = None, **options: Any
) -> RangeTest:
    """The learning-rate range test of a recipe's stage, from the recipe's weights. Writes nothing.

    Args:
        recipe: Checked settings, or plain data that is checked first.
        stage: Its name; None takes the first stage that has a learning rate.
        data: The photos, where they were opened before; None opens `data.source`.
        options: `start`, `end` and `steps` of `find_lr`.

    Raises:
        SettingsError: The recipe has no such stage.
    """
    recipe, data = opened_recipe(recipe, data)
    model = _adapted(recipe, data, weights=recipe.model.weights)
    plan = make_plan(model, _stages(recipe))
    for chosen in plan:
        if chosen.name == stage or (stage is None and chosen.optimizer != "lbfgs"):
            size = recipe.data.batch_size
            return find_lr(
                model, chosen, data, batch_size=size, seed=recipe.seed, numerics=_numerics(recipe), **options
            )
    raise SettingsError(
        "No stage of this recipe has a learning rate." if stage is None else f"The recipe has no stage {stage!r}.",
        f"Its stages are: {', '.join(chosen.name for chosen in plan)}.",
        "Name one of them with `--stage`, or set `stages.0.optimizer=adamw`.",
    )


def resume(
    run: RunFolder | str | Path,
    *,
    recipe: Recipe | Mapping[str, Any] | None = None,
    allow_change: Sequence[str] = (),
    model: nn.Module | None = None,
    callbacks: Sequence[Callback] = (),
    show: bool = True,
) -> RunFolder:
    """Go on with a run that was stopped, to the same bits; a finished run is left as it is.

    Args:
        run: The run's folder.
        recipe: The settings to go on with, where they are to differ from the run's; whole, as `run.settings()` is.
            A finished run goes on with more epochs in its last stage, or with further stages.
        allow_change: The keys in which they may differ, such as `stages.1.epochs`.
        model: The module itself, for a run that trained a module of the user's own.
        callbacks: Who is told what happens; they are no part of what the run's folder holds.
        show: Whether to write progress to stderr.

    Raises:
        SettingsError: There is no run there; or settings differ that were not allowed to, or cannot.
        StorageError: Its records or checkpoints are damaged.
        DataError: The images have changed since.
    """
    run = run if isinstance(run, RunFolder) else open_run(run)
    if recipe is None and run.is_finished:
        with run.locked():
            run.sweep()
        _log.info("%s is finished; nothing to resume", run.path)
        return run
    stored = validate_recipe(run.settings())
    recipe = stored if recipe is None else recipe if isinstance(recipe, Recipe) else validate_recipe(recipe)
    _require_same_network(run, stored, recipe)
    data = _stored_data(run, recipe)
    if model is None and recipe.model.args.get("own_module"):
        raise SettingsError(
            f"{str(run.path)!r} trained a module of your own, which regraft cannot build.",
            "Expected that module as well.",
            f"Type `rg.resume({str(run.path)!r}, model=module)` in Python.",
        )
    if model is None:
        model = _adapted(recipe, data, weights="none")  # its weights are in the checkpoint
        info_of(model).origin["weights"] = recipe.model.weights
    else:
        model = _own_module(model, recipe, data)
    return train(
        model,
        make_plan(model, _stages(recipe)),
        data,
        out=run.path,
        seed=recipe.seed,
        batch_size=recipe.data.batch_size,
        monitor=recipe.monitor,
        mode=recipe.mode,
        numerics=_numerics(recipe),
        save_steps=recipe.save_steps,
        cache=recipe.data.cache,
        feature_cache=_feature_cache(recipe),
        log=recipe.log,
        callbacks=callbacks,
        show=show,
        resume=True,
        allow_change=allow_change,
    )


def _require_same_network(run: RunFolder, stored: Recipe, recipe: Recipe) -> None:
    """Refuse another network, head or image size, before a model is built that has it, or ignores it."""
    asked = differences(stored.model_dump(), recipe.model_dump())
    network = {key: pair for key, pair in asked.items() if is_of_network(key) and pair[1] is not None}
    require_allowed(run, network, (), Place(0, begun=False, ended=False), ())


def opened_recipe(recipe: Recipe | Mapping[str, Any], data: DataSet | None = None) -> tuple[Recipe, DataSet]:
    """A checked recipe and its photos; plain data without stages is filled up with what is usual for them.

    Args:
        recipe: Checked settings, which are taken as they are, or plain data.
        data: The photos, where they were opened before; None opens `data.source`.
    """
    if isinstance(recipe, Recipe):
        return recipe, data or _open(recipe)
    checked = validate_recipe(recipe)
    data = data or _open(checked)
    return validate_recipe(recipe, default_recipe(usual_size(data))), data


def _open(recipe: Recipe) -> DataSet:
    if recipe.data.source is None:
        raise SettingsError(
            "No photos were named.",
            "Expected a folder of classes (root/class/*, or root/{train,val,test}/class/*), a list or a table.",
            "Type `regraft train PHOTOS`, or set data.source in the recipe.",
        )
    return open_data(recipe.data.source, seed=recipe.seed, **recipe.data.choices())


def _adapted(recipe: Recipe, data: DataSet, *, weights: str) -> nn.Module:
    """The recipe's network for the data's classes: weights into their own architecture first, surgery second."""
    model = _earlier(recipe, Path(weights)) if weights != "none" else None
    if model is None:
        model = build_model(recipe.model.name, weights=weights, **_matching(recipe, weights), **_arguments(recipe))
    for step in recipe.model.channels_before:
        model = adapt(model, **step.model_dump())
    return adapt(model, **_surgery(recipe, model, data))


def _unfilled(recipe: Recipe) -> nn.Module:
    """The recipe's network before surgery: the model of an earlier run, else the network without its weights.

    Raises:
        RegraftError: The weights are a file that is not there or cannot be read.
    """
    weights = recipe.model.weights
    if weights not in ("none", "pretrained"):
        earlier = _earlier(recipe, Path(weights))
        if earlier is not None:
            return earlier
        read_weights(weights)
    return build_model(recipe.model.name, **_arguments(recipe))


def _earlier(recipe: Recipe, weights: Path) -> nn.Module | None:
    """The model of an earlier run, where the weights are that; it knows its classes and its head.

    Raises:
        SettingsError: It is another network than the recipe's.
    """
    if not any((folder / "config.json").is_file() for folder in (weights, weights / "model")):
        return None
    model = load_model(weights)
    name = info_of(model).architecture
    if name != recipe.model.name:
        raise SettingsError(
            f"The model in {str(weights)!r} is {name!r}, the recipe's network is {recipe.model.name!r}.",
            "Expected weights of the same network.",
            f"Type `--model {name}`.",
        )
    info_of(model).origin["weights"] = str(weights)
    return model


def _matching(recipe: Recipe, weights: str) -> dict[str, Any]:
    """How the weights are matched, where there are any."""
    if weights == "none":
        return {}
    match = recipe.model.match
    return {"skip": recipe.model.skip, "match": match.model_dump(exclude_defaults=True) if match else None}


def _surgery(recipe: Recipe, model: nn.Module, data: DataSet) -> dict[str, Any]:
    """The recipe's arguments of `adapt`."""
    usual = "segmentation" if data.segmentation else "multilabel" if data.multilabel else "softmax"
    output = recipe.head.output or usual
    return {
        "classes": data.class_names,
        "head": Head(**{**recipe.head.model_dump(), "output": output}),
        "in_channels": recipe.model.in_channels,
        "bands": recipe.model.bands,
        "preprocessing": _preprocessing(recipe, model),
        "seed": _seed(recipe),
    }


def _seed(recipe: Recipe) -> int:
    """What new layers are a function of."""
    return recipe.seed if recipe.model.seed is None else recipe.model.seed


def _arguments(recipe: Recipe) -> dict[str, Any]:
    """Those of `build_model`, beside name and weights."""
    arguments = {"seed": _seed(recipe), **recipe.model.args}
    if "in_chans" in arguments:
        arguments["in_channels"] = arguments.pop("in_chans")
    return arguments


def _preprocessing(recipe: Recipe, model: nn.Module) -> Preprocessing:
    chosen = recipe.data.preprocess
    stored = not isinstance(chosen, str) and chosen.pixels is not None
    preprocessing = _chosen_preprocessing(chosen, default_preprocessing(model))
    in_channels, bands = recipe.model.in_channels, recipe.model.bands
    if bands is not None or in_channels not in (None, preprocessing.num_channels):
        mix = choose_mix(preprocessing.channels, in_channels=in_channels, bands=bands)
        preprocessing = mixed_preprocessing(preprocessing, mix)
    pixels = preprocessing.pixels
    if not stored or "resize" in recipe.data.model_fields_set:
        pixels = replace(pixels, resize=recipe.data.resize)
    if (size := recipe.model.image_size) is not None:
        pixels = replace(pixels, size=(size, size) if isinstance(size, int) else size)
    return replace(preprocessing, pixels=pixels)


def _chosen_preprocessing(chosen: Style | Literal["model"] | PreprocessSettings, own: Preprocessing) -> Preprocessing:
    """What the recipe says about colours: the network's own program, that of a family of weights, or numbers."""
    if isinstance(chosen, str):
        return own if chosen == "model" else Preprocessing.styled(chosen, own.pixels)
    pixels = own.pixels if chosen.pixels is None else PixelProgram.from_dict(chosen.pixels)
    for name in ("interpolation", "background"):
        if getattr(chosen, name) is not None:
            pixels = replace(pixels, **{name: getattr(chosen, name)})
    return Preprocessing.from_numbers(
        pixels, mean=chosen.mean, std=chosen.std, channels=chosen.channels or own.channels, scale=chosen.scale
    )


def _stages(recipe: Recipe) -> list[Stage]:
    stages, mistakes = [], []
    for settings in recipe.stages:
        try:
            stages.append(Stage.from_dict(settings.model_dump()))
        except SettingsError as error:
            mistakes += [f"stage {settings.name!r}: {text}" for text in error.details or (str(error),)]
    if mistakes:
        raise SettingsError(
            "The stages cannot be carried out as described.",
            "Each setting has its own range.",
            "Correct these settings of the recipe.",
            details=mistakes,
        )
    return stages


def _tell(recipe: Recipe) -> None:
    for note in recipe.notes:
        _log.info("note: %s", note)


def _feature_cache(recipe: Recipe) -> str | int:
    return recipe.feature_cache if isinstance(recipe.feature_cache, str) else recipe.feature_cache.views


def _numerics(recipe: Recipe) -> Numerics:
    settings = recipe.numerics
    return choose_numerics(settings.device, settings.precision, settings.threads, channels_last=settings.channels_last)


def _measured(recipe: Recipe, model: nn.Module, numerics: Numerics) -> Numerics:
    """The numerics of a new run: those of the table, or what is measured where the recipe asks for that."""
    settings, preprocessing = recipe.numerics, info_of(model).preprocessing
    if settings.choose == "table" or preprocessing is None:
        return numerics
    height, width = preprocessing["pixels"]["size"]
    return measured_numerics(
        model,
        numerics,
        image_size=(height, width),
        batch_size=recipe.data.batch_size,
        precision=settings.precision,
        say=_log.info,
    )


def _own_module(model: nn.Module, recipe: Recipe, data: DataSet) -> nn.Module:
    if info_of(model).class_names is not None:
        return model
    return adapt(model, **_surgery(recipe, model, data))


def _stored_data(run: RunFolder, recipe: Recipe) -> DataSet:
    """The very rows that the run began with; a run that was killed before they were listed looks again."""
    stored = run.read(run.splits)
    if stored is None:
        return _open(recipe)
    return DataSet.from_dict(stored).moved_to(recipe.data.source)
