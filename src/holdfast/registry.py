"""Which of a program's types may stand in stored data, and how each is taken apart and rebuilt.

Stored data names a type by a tag, 'module:qualname'. A tag is only ever looked up here, among the
types the program itself has registered; nothing is imported because stored data says so. Rebuilding
fills in fields and calls neither `__init__` nor `__post_init__` nor a validator, with one
exception: `msgspec.Struct` offers no way around a `__post_init__`, so that one runs.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any, Final, NamedTuple, TypeVar, cast, overload

import msgspec

from holdfast.errors import DecodingError, UsageError

Fields = dict[str, Any]
"""The values of an object by attribute name."""

_T = TypeVar("_T")

_Class = Any  # a class of a kind that has been found out, with the attributes of that kind
_Object = Any  # an instance of such a class

_BUILTIN_VALUES: Final = (str, int, float, complex, bytes, bytearray, list, dict, set, frozenset)


class Shape(NamedTuple):
    """How one kind of class is taken apart and rebuilt.

    `take` returns an object's fields and what else it carries; `build` makes an object of a class
    from the two. Neither runs code of the class, apart from default factories of fields that the
    stored data doesn't have.
    """

    take: Callable[[Any], tuple[Fields, Fields]]
    build: Callable[[type, Fields, Fields], object]


class Entry(NamedTuple):
    """A registered type: the tag it is stored under and its shape (None: enum or exception)."""

    cls: type[Any]
    tag: str
    shape: Shape | None


_by_class: Final[dict[type, Entry]] = {}
_by_tag: Final[dict[str, Entry]] = {}


@overload
def register_type(cls: type[_T], *, name: str | None = None) -> type[_T]: ...
@overload
def register_type(
    cls: None = None, *, name: str | None = None
) -> Callable[[type[_T]], type[_T]]: ...
def register_type(
    cls: type[_T] | None = None, *, name: str | None = None
) -> type[_T] | Callable[[type[_T]], type[_T]]:
    """Allow values of a class in stored data; usable as a decorator. Returns the class.

    Dataclasses, NamedTuples, enums, `msgspec.Struct`s, pydantic models and exceptions can be
    registered. The classes that the fields are annotated with are registered too, as far as the
    annotations can be resolved at this moment.

    Args:
        cls: the class. If another class was registered under its name, this one replaces it.
        name: the name to store it under; 'module:qualname' if not given. A class that was moved
            or renamed keeps reading and writing its old data with ``name="old.module:Old"``.

    Raises:
        UsageError: the class is of no kind that can be rebuilt from data.
    """
    if cls is None:
        return functools.partial(register_type, name=name)
    if not _add(cls, name):
        raise UsageError(
            f"{describe(cls)} can't be registered, because it can't be rebuilt from data alone. "
            "Make it a dataclass, a NamedTuple, an Enum, a msgspec.Struct or a pydantic model "
            "that extends no built-in type."
        )
    _register_all(_field_annotations(cls))
    return cls


def register_annotations(function: Callable[..., object]) -> None:
    """Allow the types in a function's annotations in stored data.

    Parameters and the result count, whatever unions, containers, aliases and generic types they
    stand in, and so do the fields of the classes found. An annotation that can't be resolved is
    passed over; so is a class that can't be rebuilt from data.

    Args:
        function: a function, sync or async, a method, or an object with `__call__`.
    """
    target: object = function
    while isinstance(target, functools.partial):
        target = cast("functools.partial[object]", target).func
    if not hasattr(target, "__annotations__"):
        target = type(target).__call__
    _register_all(_annotations(target))


def register_result(function: Callable[..., object]) -> None:
    """Allow the types in the annotation of what a function returns in stored data.

    Args:
        function: whose parameters hold what is never stored.
    """
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception:  # noqa: BLE001  as in `_annotations`; encoding will say what is missing
        return
    _register_all([hints["return"]] if "return" in hints else [])


def entry_of(cls: type[Any]) -> Entry | None:
    """Return the entry of a registered class, or None.

    A class that another one of the same name has replaced counts as not registered: its values
    would come back as values of the other.
    """
    entry = _by_class.get(cls)
    if entry is None or _by_tag[entry.tag].cls is not cls:
        return None
    return entry


def entry_for(tag: str) -> Entry | None:
    """Return the entry that was registered under a tag, or None."""
    return _by_tag.get(tag)


def can_register(cls: type[Any]) -> bool:
    """Say whether `register_type` accepts the class."""
    return _has_no_fields(cls) or _shape_of(cls) is not None


def describe(cls: type[Any]) -> str:
    """Return a class's name for messages, with its module."""
    return f"{cls.__module__}.{cls.__qualname__}"


def default_tag(cls: type[Any]) -> str:
    """Return the tag of a class that was given no name of its own.

    A class of a script has the tag it would have if the script were imported, so that a worker
    that imports the file reads what the script wrote.
    """
    module = cls.__module__
    if module == "__main__":
        module = _name_of_main() or module
    return f"{module}:{cls.__qualname__}"


def _name_of_main() -> str | None:
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return PurePath(file).stem if isinstance(file, str) else None


def _add(cls: type[Any], name: str | None = None) -> bool:
    """Register one class and say whether that was possible."""
    if not can_register(cls):
        return False
    entry = Entry(cls, name or default_tag(cls), _shape_of(cls))
    _by_class[cls] = entry
    for tag in (f"{cls.__module__}:{cls.__qualname__}", default_tag(cls), entry.tag):
        _by_tag[tag] = entry
    return True


# --- annotations -------------------------------------------------------------------------------


def _register_all(annotations: list[object]) -> None:
    """Register every class that the annotations lead to."""
    waiting = list(annotations)
    seen: set[int] = set()
    # The list keeps each annotation alive, so that no other gets its id while it counts as seen.
    kept: list[object] = []
    while waiting:
        annotation = waiting.pop()
        if id(annotation) in seen:
            continue
        seen.add(id(annotation))
        kept.append(annotation)
        if isinstance(annotation, type):
            waiting += _register_found(annotation)
        else:
            waiting += _parts(annotation)


def _register_found(cls: type[Any]) -> list[object]:
    """Register a class that an annotation names and return the annotations of its fields."""
    if typing.is_typeddict(cls):
        return _annotations(cls)
    if entry_of(cls) is None and (issubclass(cls, BaseException) or not _add(cls)):
        return []
    return _field_annotations(cls)


def _parts(annotation: object) -> list[object]:
    """Return what a union, a generic alias, a literal, a type alias and the like are made of."""
    if isinstance(annotation, typing.TypeVar):
        return [annotation.__bound__, *annotation.__constraints__]
    if isinstance(annotation, typing.NewType):
        return [annotation.__supertype__]
    if type(annotation).__name__ == "TypeAliasType":  # Python 3.12's, or that of a backport
        return _alias_value(annotation)
    parts: list[object] = [typing.get_origin(annotation)]
    for part in typing.get_args(annotation):
        # A Callable has its parameters as a list. An enum member in a Literal names its class.
        parts += cast("list[object]", part) if isinstance(part, list) else [part]
    return [type(part) if isinstance(part, enum.Enum) else part for part in parts]


def _alias_value(alias: _Object) -> list[object]:
    try:
        return [alias.__value__]
    except Exception:  # noqa: BLE001  reading it evaluates the alias, which may name anything
        return []


def _field_annotations(cls: type[Any]) -> list[object]:
    if _has_no_fields(cls):
        return []
    found = _annotations(cls)
    if _is_model(cls):
        # A parametrized generic model has its parameters filled in here, and only here.
        found += [field.annotation for field in cast("Any", cls).model_fields.values()]
    return found


def _annotations(target: object) -> list[object]:
    """Return the annotations of a function or class, each resolved if that is possible."""
    try:
        return list(typing.get_type_hints(target, include_extras=True).values())
    except Exception:  # noqa: BLE001  resolving an annotation runs any code; each gets its own try
        return _annotations_one_by_one(target)


def _annotations_one_by_one(target: object) -> list[object]:
    owners = target.__mro__ if isinstance(target, type) else (target,)
    found: list[object] = []
    for owner in owners:
        scope: dict[str, Any] = getattr(owner, "__globals__", None) or vars(
            sys.modules.get(getattr(owner, "__module__", ""), types)
        )
        for annotation in _raw_annotations(owner).values():
            holder = types.SimpleNamespace(__annotations__={"it": annotation})
            try:
                hints = typing.get_type_hints(holder, globalns=scope, include_extras=True)
            except Exception:  # noqa: BLE001, S112  passed over: encoding will say what is missing
                continue
            found.append(hints["it"])
    return found


def _raw_annotations(owner: object) -> Mapping[str, object]:
    """Return an owner's annotations as they were written: texts, or what they evaluate to."""
    if sys.version_info >= (3, 14):
        import annotationlib  # new in Python 3.14, which evaluates annotations when asked

        read = functools.partial(
            annotationlib.get_annotations, format=annotationlib.Format.FORWARDREF
        )
    else:
        read = inspect.get_annotations
    try:
        return read(cast("Any", owner))
    except Exception:  # noqa: BLE001  no annotations, or such as can't even be read
        return {}


# --- shapes ------------------------------------------------------------------------------------


def _shape_of(cls: type[Any]) -> Shape | None:
    """Return how the class is taken apart and rebuilt, or None if that can't be done."""
    if _has_no_fields(cls) or _extends(cls, *_BUILTIN_VALUES):
        return None
    if _extends(cls, tuple):
        return _NAMED_TUPLE if hasattr(cls, "_fields") else None
    if _extends(cls, msgspec.Struct):
        return _STRUCT
    if _is_model(cls):
        return _MODEL
    return _DATACLASS if dataclasses.is_dataclass(cls) else None


def _has_no_fields(cls: type[Any]) -> bool:
    """Say whether the class is stored by name: enums by member, exceptions by the codec."""
    return _extends(cls, enum.Enum, BaseException)


def _extends(cls: type[Any], *bases: type[Any]) -> bool:
    return issubclass(cls, bases)


def _take_dataclass(value: _Object) -> tuple[Fields, Fields]:
    names = [field.name for field in dataclasses.fields(value)]
    return {name: getattr(value, name) for name in names}, _more_attributes(value, names)


def _build_dataclass(cls: _Class, stored: Fields, more: Fields) -> object:
    built: object = object.__new__(cls)
    for field in dataclasses.fields(cls):
        if field.name in stored:
            value = stored[field.name]
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            raise _missing(cls, field.name)
        object.__setattr__(built, field.name, value)
    _set_more_attributes(built, more)
    return built


def _take_named_tuple(value: _Object) -> tuple[Fields, Fields]:
    names: tuple[str, ...] = value._fields
    return dict(zip(names, tuple(value), strict=True)), _more_attributes(value, names)


def _build_named_tuple(cls: _Class, stored: Fields, more: Fields) -> object:
    fields: Fields = cls._field_defaults | stored
    absent = [name for name in cls._fields if name not in fields]
    if absent:
        raise _missing(cls, absent[0])
    built: object = cast("_Class", tuple).__new__(cls, [fields[name] for name in cls._fields])
    _set_more_attributes(built, more)
    return built


def _take_struct(value: msgspec.Struct) -> tuple[Fields, Fields]:
    defaults = _struct_defaults(type(value))
    taken = {name: getattr(value, name) for name in defaults}
    # UNSET is no data; where it is the default, it comes back as such.
    left_out = {name for name, item in taken.items() if item is defaults[name] is msgspec.UNSET}
    given = {name: item for name, item in taken.items() if name not in left_out}
    return given, _more_attributes(value, defaults)


def _build_struct(cls: _Class, stored: Fields, more: Fields) -> object:
    defaults = _struct_defaults(cls)
    known = {name: stored[name] for name in defaults if name in stored}
    for name, default in defaults.items():
        if name not in known and default is msgspec.NODEFAULT:
            raise _missing(cls, name)
    built: Any = cls(**known)
    for name, value in known.items():
        # A __post_init__ may have changed what was stored after the first one had run.
        msgspec.structs.force_setattr(built, name, value)
    _set_more_attributes(built, more)
    return built


def _struct_defaults(cls: _Class) -> Fields:
    """Return each field's default, a factory as such, or NODEFAULT."""
    names: tuple[str, ...] = cls.__struct_fields__
    defaults: tuple[Any, ...] = cls.__struct_defaults__
    without = (msgspec.NODEFAULT,) * (len(names) - len(defaults))
    return dict(zip(names, without + defaults, strict=True))


def _take_model(value: _Object) -> tuple[Fields, Fields]:
    state: dict[str, Any] = _model_class().__getstate__(value)
    names: Mapping[str, object] = cast("_Class", type(value)).model_fields
    # What else is in `__dict__` are cached properties, which come back by themselves.
    fields = {name: item for name, item in state["__dict__"].items() if name in names}
    more = {
        "set": set(state["__pydantic_fields_set__"]),
        "extra": state["__pydantic_extra__"],
        "private": state["__pydantic_private__"],
    }
    return fields, {name: item for name, item in more.items() if item is not None}


def _build_model(cls: _Class, stored: Fields, more: Fields) -> object:
    fields: Fields = {}
    for name, field in cls.model_fields.items():
        if name in stored:
            fields[name] = stored[name]
        elif field.is_required():
            raise _missing(cls, name)
        else:
            fields[name] = field.get_default(call_default_factory=True, validated_data=fields)
    extra: Fields | None = more.get("extra")
    built: object = object.__new__(cls)
    _model_class().__setstate__(
        built,
        {
            "__dict__": fields,
            "__pydantic_extra__": extra,
            "__pydantic_fields_set__": set(more.get("set", stored)) & {*fields, *(extra or ())},
            "__pydantic_private__": more.get("private"),
        },
    )
    return built


def _more_attributes(value: object, fields: Iterable[str]) -> Fields:
    """Return what an object carries besides its fields, without what it can compute again."""
    attributes: Fields = getattr(value, "__dict__", {})
    if not attributes:
        return {}
    cls, known = type(value), {*fields, "__orig_class__"}  # typing adds the latter to generics
    return {
        name: item
        for name, item in attributes.items()
        if name not in known and not isinstance(getattr(cls, name, None), functools.cached_property)
    }


def _set_more_attributes(built: object, more: Fields) -> None:
    if more:
        # Through the dict: setting an attribute by a stored name could run a property's code.
        vars(built).update(more)


def _missing(cls: type[Any], field: str) -> DecodingError:
    return DecodingError(
        f"Stored data of {describe(cls)} has no value for its field {field!r}. It was stored "
        "before the field existed: give the field a default."
    )


def _model_class() -> _Class:
    """Return pydantic's base class if the program uses pydantic; it is never imported here."""
    return getattr(sys.modules.get("pydantic"), "BaseModel", None)


def _is_model(cls: type[Any]) -> bool:
    model = _model_class()
    return model is not None and _extends(cls, model)


_DATACLASS: Final = Shape(_take_dataclass, _build_dataclass)
_NAMED_TUPLE: Final = Shape(_take_named_tuple, _build_named_tuple)
_STRUCT: Final = Shape(_take_struct, _build_struct)
_MODEL: Final = Shape(_take_model, _build_model)
