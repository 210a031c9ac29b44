"""The regressors that are compared, and how one is named: as JSON, or as a file of one's own."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from pydantic import TypeAdapter

from layerpick.calibration.predictors.regressors import (
    BLENDED,
    Blend,
    DepthRegressor,
    GradientAndGains,
    PairwiseRanker,
    RandomForest,
    Regressor,
    RidgeRegressor,
    UnitWeights,
)
from layerpick.training.errors import LayerpickError
from layerpick.training.own_code import find_class

CANDIDATES: tuple[Regressor, ...] = (
    DepthRegressor(alpha=3.0),
    RidgeRegressor(alpha=30.0, keep=1),
    RidgeRegressor(alpha=30.0, keep=4),
    *(UnitWeights(keep) for keep in (4, 8, 16)),
    PairwiseRanker(inverse_penalty=0.01, keep=4),
    *BLENDED,
    RandomForest(trees=60, leaf=4, keep=48),
    Blend(),
)
"""What is compared, simplest first: of equals, the first is chosen."""

LARGEST_SETTING = 10_000
FAMILIES: dict[str, type[Regressor]] = {
    type(each).name: type(each) for each in (*CANDIDATES, GradientAndGains())
}


def with_own(name: str | None) -> tuple[Regressor, ...] | None:
    """What is compared, and a regressor of one's own, as `file.py:Class`, with its defaults.

    None, which stands for `CANDIDATES`, where no name is given. Raises LayerpickError if there is
    no such class, or some of its settings have no default.
    """
    if name is None:
        return None
    kind = find_class(name, FAMILIES, Regressor, "regressor")  # type: ignore[type-abstract]
    try:
        return (*CANDIDATES, kind())
    except TypeError as error:
        raise LayerpickError(f"The regressor {name} cannot be made: {error}.") from error


def settings_of(regressor: Regressor) -> dict[str, Any]:
    """The regressor as JSON: its name, or where its file lies, and its settings."""
    kind = type(regressor)
    built_in = FAMILIES.get(regressor.name) is kind
    name = regressor.name if built_in else f"{inspect.getfile(kind)}:{kind.__name__}"
    return {"name": name, **asdict(regressor)}


def from_settings(settings: Mapping[str, Any]) -> Regressor:
    """The regressor that `settings_of` describes. Raises LayerpickError if it describes none."""
    own = {key: value for key, value in settings.items() if key != "name"}
    try:
        if not all(0 < value <= LARGEST_SETTING for value in own.values()):
            raise ValueError("a setting is out of range")
        kind = find_class(settings["name"], FAMILIES, Regressor, "regressor")  # type: ignore[type-abstract]
        if own.keys() - {field.name for field in fields(kind)}:
            raise ValueError("a setting is unknown")
        return TypeAdapter(kind).validate_json(json.dumps(own), strict=True)
    except (KeyError, TypeError, ValueError, LayerpickError) as error:
        raise LayerpickError(
            f"The settings {dict(settings)} name no regressor of this version of layerpick: run "
            f"`layerpick calibrate` again."
        ) from error
