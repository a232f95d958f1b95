"""What all settings have in common: unknown keys are errors that name the nearest valid one, values never change."""

import ast
import difflib
import inspect
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from selftrain.names import writable

Problem = tuple[tuple[str | int, ...], str]
"""Where, as a path of keys below the model that tells, and what is wrong there."""


Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
"""Some of it, or all."""
Part = Annotated[float, Field(gt=0, lt=1)]
"""Some of it, and not all."""
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


def graph_path(path: str) -> str:
    """A path as it is, if Snakemake can have it: what stands in braces would be a wildcard to it.

    Raises:
        ValueError: it cannot, or it is empty.
    """
    if not path.strip():
        raise ValueError("should be a path, not empty")
    if not writable(path) or set(path) & set("{}"):
        raise ValueError(f"{path!r} has braces or control characters, which Snakemake takes in no path; rename it")
    return path


def _folder_of_its_own(path: str) -> str:
    """As Snakemake compares paths, by their text: without `./`, `//` and the last `/`."""
    if str(Path(path)) in (".", "/"):
        raise ValueError(f"should be a folder of its own, such as results, not {path!r}")
    return str(Path(path))


GraphPath = Annotated[str, AfterValidator(graph_path)]
"""Of a file that jobs read."""
GraphFolder = Annotated[GraphPath, AfterValidator(_folder_of_its_own)]
"""Of what jobs make."""


class Settings(BaseModel):
    """Base of every settings model."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_nearest_key(cls, value: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Unknown keys are told at their own paths, beside what is wrong with the known ones."""
        valid = list(cls.model_fields)
        unknown = [key for key in value if key not in valid] if isinstance(value, dict) else []
        if not unknown:
            return validate(value)
        problems: list[Problem] = [((str(key),), nearest(str(key), valid, "key")) for key in unknown]
        found = []
        try:
            validate({key: value[key] for key in value if key in valid})
        except ValidationError as error:
            found = [_again(problem) for problem in error.errors()]
        raise ValidationError.from_exception_data(cls.__name__, [_details(*one) for one in problems] + found)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """With what stands below each key. pydantic would look for that, too, but at every start of every job."""
        schema = handler(core_schema)
        keys = handler.resolve_ref_schema(schema)["properties"]
        for model in reversed(cls.mro()):
            if issubclass(model, Settings):
                for key, text in _docstrings(model).items():
                    keys[key]["description"] = text
        return schema


def _docstrings(model: type) -> dict[str, str]:
    """What stands below the keys of a model's own."""
    (definition,) = ast.parse(dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        key.target.id: inspect.cleandoc(text.value.value)
        for key, text in pairwise(definition.body)
        if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def refuse(problems: Iterable[Problem]) -> None:
    """Raise one error for all `problems` that a validator has found, if any, each told at its own path."""
    details = [_details(*problem) for problem in problems]
    if details:
        raise ValidationError.from_exception_data("settings", details)


def range_problems(ranges: dict[str, tuple[float, float]]) -> Iterator[Problem]:
    """Ranges that end below their start, by key."""
    for key, (low, high) in ranges.items():
        if low > high:
            yield (key,), f"the range [{low}, {high}] ends below its start"


def _details(location: tuple[str | int, ...], reason: str) -> InitErrorDetails:
    told = PydanticCustomError("refused", "{reason}", {"reason": reason})
    return InitErrorDetails(type=told, loc=location, input=None)


def _again(problem: Any) -> InitErrorDetails:
    """A problem that pydantic found, to be raised once more beside others."""
    told = PydanticCustomError(problem["type"], "{msg}", {"msg": problem["msg"], **problem.get("ctx", {})})
    return InitErrorDetails(type=told, loc=problem["loc"], input=problem["input"])


def by_name(value: Any) -> Any:
    """Let `policy: dars` stand for `policy: {name: dars}`, as for every choice that has settings of its own."""
    return {"name": value} if isinstance(value, str) else value


def shortest(value: float) -> str:
    """The shortest text that is this number and no other, for names of folders: 1, 0.75."""
    return repr(value).removesuffix(".0")


class _Switch:
    """Lets `true` stand for the defaults of settings, and `false` for none."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        told = core_schema.union_schema([schema, core_schema.bool_schema()])
        return core_schema.no_info_before_validator_function(self._meant, schema, json_schema_input_schema=told)

    @staticmethod
    def _meant(value: Any) -> Any:
        return ({} if value else None) if isinstance(value, bool) else value


Switched = TypeVar("Switched", bound=Settings)
OnOrOff = Annotated[Switched | None, _Switch()]
"""Settings of something that may be left out."""


def one_or_many(value: Any) -> Any:
    """Let a single text stand for a list of one."""
    return (value,) if isinstance(value, str) else value


def nearest(name: str, valid: list[str], what: str) -> str:
    """Say that `name` is no known `what`, with the nearest valid name."""
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"valid: {', '.join(valid) or 'none'}"
    return f"unknown {what} '{name}'; {hint}"


INSTEAD = {"steps": "epochs", "epochs": "steps"}
"""Keys that stand for one another: to give one is to leave out the inherited other."""


WHOLE = ("class_weights",)
"""Keys whose mappings are one value, which replaces another."""


def deep_merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` in their places; mappings merge, everything else is replaced.

    A mapping that chooses another `name` replaces too: the settings of one choice say nothing about another's.
    """
    replaced = [INSTEAD.get(key) for key, value in over.items() if value is not None]
    merged = {key: value for key, value in base.items() if key not in replaced}
    for key, value in over.items():
        old = by_name(merged.get(key))
        same = isinstance(old, dict) and isinstance(value, dict) and not _other_choice(old, value)
        same = same and key not in WHOLE
        merged[key] = deep_merge(old, value) if same else value
    return merged


def _other_choice(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return "name" in one and "name" in other and one["name"] != other["name"]
