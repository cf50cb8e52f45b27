from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import os
import subprocess
import sys
import textwrap
import typing
import uuid
import zoneinfo
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from holdfast import errors
from holdfast.codec import (
    MOST_LEVELS,
    canonical,
    decode,
    digest,
    encode,
    encode_with_digest,
    register_annotations,
    register_type,
)
from holdfast.error_codec import as_recorded, decode_error, encode_error, is_rebuildable
from holdfast.packing import pack, unpack
from holdfast.secret import Secret, release_key, use_key

UTC = dt.UTC


def same(left: object, right: object) -> bool:
    """Compare by type and by what a repr shows: NaN equals NaN, 1 doesn't equal True."""
    return type(left) is type(right) and repr(left) == repr(right)


def there_and_back(value: object) -> object:
    return decode(encode(value))


@register_type
class Color(enum.Enum):
    RED = 1
    GREEN = "g"
    ALSO_RED = 1  # noqa: PIE796  an alias


@register_type
class Size(enum.StrEnum):
    SMALL = "s"


@register_type
class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


@register_type
@dataclasses.dataclass
class Note:
    text: str
    tags: list[str] = dataclasses.field(default_factory=list)


@register_type
@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: float
    y: float = 0.0

    def __post_init__(self) -> None:
        if self.x < 0:
            raise AssertionError


@register_type
class Pair(typing.NamedTuple):
    left: int
    right: object = None


@register_type
class Packet(msgspec.Struct, frozen=True):
    size: int
    body: list[int] = []
    comment: str | msgspec.UnsetType = msgspec.UNSET


@register_type
class Person(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    name: str
    born: dt.datetime | None = None
    _seen: int = pydantic.PrivateAttr(default=0)

    @cached_property
    def loud(self) -> str:
        return self.name.upper()


@dataclasses.dataclass
class Unknown:
    x: int = 1


class Loud(str):
    __slots__ = ()


# --- the same value comes back ------------------------------------------------------------------

VALUES = [
    None,
    True,
    0,
    -1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63) - 1,
    10**60,
    -(10**60),
    1.5,
    -0.0,
    math.inf,
    -math.inf,
    math.nan,
    "",
    "grüße",
    "a\ud800b",
    b"",
    b"\xff",
    bytearray(b"ab"),
    [],
    [1, [2]],
    (),
    (1, (2, [3])),
    {},
    {"b": 1, "a": 2},
    {1: "int", "1": "text", (1, 2): None, None: 0, 2.5: b""},
    {"\udcff": 1},
    set(),
    {1},
    frozenset({(1, "a")}),
    1 + 2j,
    complex(-0.0, math.inf),
    range(1, 10, 3),
    range(10**30),
    decimal.Decimal("1.10"),
    decimal.Decimal("-NaN12"),
    decimal.Decimal("1E-5000"),
    uuid.UUID(int=7),
    dt.date(1, 1, 1),
    dt.datetime(2024, 5, 6, 7, 8, 9, 10),  # noqa: DTZ001  naive on purpose
    dt.datetime(2024, 5, 6, tzinfo=UTC),
    dt.datetime(2024, 5, 6, tzinfo=dt.timezone(dt.timedelta(hours=-3, microseconds=1))),
    dt.datetime(2024, 5, 6, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")),
    dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    dt.time(1, 2, 3, 4),
    dt.time(1, 2, tzinfo=UTC),
    dt.timedelta(days=-1, seconds=3, microseconds=5),
    Path("a/b c"),
    Path("a\udcff"),
    PurePosixPath("/x"),
    PureWindowsPath("C:\\x"),
    Color.RED,
    Size.SMALL,
    Access.READ,
    Access.READ | Access.WRITE,
    Access(0),
    Note("a", ["b"]),
    Point(1.0, 2.0),
    Pair(1, Pair(2)),
    Packet(3, [1]),
    Packet(3, comment="x"),
    Person(name="Ada", born=dt.datetime(1815, 12, 10, tzinfo=UTC)),
    {"all": [Note("a"), {Point(1.0)}, (Color.GREEN, {Pair(1, 2): Packet(1)})]},
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:40])
def test_what_was_encoded_comes_back_with_its_type(value):
    assert same(there_and_back(value), value)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:40])
def test_encoding_what_came_back_gives_the_same_bytes(value):
    assert encode(there_and_back(value)) == encode(value)


hashable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters())  # lone surrogates included
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.dates()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.timedeltas()
    | st.sampled_from([Color.RED, Size.SMALL, Access.WRITE]),
    lambda inner: (
        st.tuples(inner, inner)
        | st.frozensets(inner, max_size=3)
        | st.builds(Pair, st.integers(), inner)
    ),
    max_leaves=5,
)
anything = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.builds(Note, st.text(), st.lists(st.text(), max_size=2))
        | st.builds(lambda x: Packet(1, [x]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(anything)
def test_any_data_comes_back_equal_and_typed(value):
    again = there_and_back(value)
    assert again == value
    assert canonical(again) == canonical(value)
    assert type(again) is type(value)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_arbitrary_bytes_decode_to_a_value_or_to_a_decoding_error(data):
    with contextlib.suppress(errors.DecodingError):
        decode(data)


@settings(max_examples=200, deadline=None)
@given(st.integers(-128, 127), anything)
def test_arbitrary_extensions_decode_to_a_value_or_to_a_decoding_error(code, content):
    inner = encode(content)
    with contextlib.suppress(errors.DecodingError):
        decode(msgspec.msgpack.encode(Ext(code, inner)))


def test_a_dict_keeps_its_order():
    assert list(there_and_back({"z": 1, "a": (2,), "m": 3})) == ["z", "a", "m"]
    assert list(there_and_back({3: 1, 1: 2, 2: 3})) == [3, 1, 2]


def test_a_zone_comes_back_as_the_very_zone():
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    assert there_and_back(dt.datetime(2024, 1, 1, tzinfo=berlin)).tzinfo is berlin
    assert there_and_back(dt.datetime(2024, 1, 1, tzinfo=UTC)).tzinfo is UTC


def test_a_fold_is_kept():
    assert there_and_back(dt.time(2, 30, fold=1)).fold == 1


def test_a_pydantic_model_keeps_what_was_set_its_extras_and_its_private_attributes():
    person = Person.model_validate({"name": "Ada", "title": "Countess"})
    person._seen = 7  # noqa: SLF001  it is what this is about
    assert person.loud == "ADA"
    again = there_and_back(person)
    assert again == person
    assert again.model_fields_set == {"name", "title"}
    assert again.title == "Countess"
    assert again._seen == 7  # noqa: SLF001
    assert again.loud == "ADA"


def test_a_datetime_that_pydantic_parsed_keeps_its_zone_type():
    person = Person.model_validate_json('{"name": "a", "born": "2024-01-01T00:00:00+02:00"}')
    again = there_and_back(person)
    assert type(again.born.tzinfo) is type(person.born.tzinfo)
    assert again == person


def test_attributes_beside_the_fields_come_back_but_cached_properties_do_not():
    @register_type
    @dataclasses.dataclass
    class Box:
        x: int

        def __post_init__(self):
            self.doubled = self.x * 2

        @cached_property
        def lock(self):
            return object()

    box = Box(4)
    assert box.lock
    again = there_and_back(box)
    assert again.doubled == 8
    assert "lock" not in vars(again)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"items": [1, 2, 3, {"when": Unknown()}]}, "$.items[3].when"),
        (Unknown(), "$"),
        ({"a b": object()}, "$['a b']"),
        ((1, Loud("x")), "$[1]"),
        ({Loud("x"): 1}, "$[Loud]"),
        (Note("a", [Unknown()]), "$.tags[0]"),
    ],
)
def test_a_refusal_says_where_in_the_value_it_stands(value, path):
    with pytest.raises(errors.EncodingError) as caught:
        encode(value)
    assert caught.value.path == path
    assert path in str(caught.value)


def test_a_refusal_of_an_unregistered_class_says_what_to_do():
    with pytest.raises(errors.EncodingError, match=r"holdfast\.register_type\(Unknown\)"):
        encode(Unknown())


@pytest.mark.parametrize(
    "value",
    [
        Loud("x"),
        type("I", (int,), {})(1),
        type("D", (dict,), {})(),
        type("L", (list,), {})(),
        type("T", (tuple,), {})(),
        __import__("collections").OrderedDict(a=1),
        dt.datetime(2024, 1, 1, tzinfo=type("Z", (dt.tzinfo,), {})()),
        object(),
        len,
        int,
        memoryview(b"x"),
        ValueError("x"),
        errors.NoEffect("x"),
        msgspec.UNSET,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_lose_its_type_is_refused(value):
    for encoder in (encode, canonical):
        with pytest.raises(errors.EncodingError):
            encoder([value])


def test_an_instance_of_an_unregistered_subclass_is_refused():
    @dataclasses.dataclass
    class More(Note):
        extra: int = 0

    with pytest.raises(errors.EncodingError, match="More"):
        encode(More("x"))


def test_a_field_that_was_never_set_is_refused():
    @register_type
    @dataclasses.dataclass
    class Late:
        x: int = dataclasses.field(init=False)

    with pytest.raises(errors.EncodingError, match="never set"):
        encode(Late())


def test_a_flag_with_unnamed_bits_is_refused():
    @register_type
    class Bits(enum.IntFlag):
        ONE = 1

    assert there_and_back(Bits.ONE) is Bits.ONE
    with pytest.raises(errors.EncodingError, match="bits"):
        encode(Bits(9))


def test_a_time_zone_that_this_machine_lacks_is_a_decoding_error_that_names_it():
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    data = encode(dt.datetime(2024, 1, 1, tzinfo=zone)).replace(b"Berlin", b"Nimmer")
    with pytest.raises(errors.DecodingError, match="Europe/Nimmer"):
        decode(data)


def test_a_value_that_contains_itself_is_refused():
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(errors.EncodingError, match="contains itself"):
        encode(loop)


@pytest.mark.parametrize(
    "wrap", [lambda v: [v], lambda v: {"a": v}, lambda v: (v,), lambda v: Pair(1, v)]
)
def test_the_deepest_allowed_value_comes_back_and_a_deeper_one_is_refused(wrap):
    value: object = 1
    for _ in range(MOST_LEVELS):
        value = wrap(value)
    assert encode(there_and_back(value)) == encode(value)
    with pytest.raises(errors.EncodingError, match="deeper"):
        encode(wrap(value))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x01\x01",
        b"\xa5ab",
        b"\xa1\xff",
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x03",
        b"\xdc\xff\xff" * 30_000,
        b"\x81\x80\x01",
        encode({"a": (1, 2)})[:-1],
        msgspec.msgpack.encode(Ext(99, b"\x01")),
        msgspec.msgpack.encode(Ext(12, encode([1, 2]))),
        msgspec.msgpack.encode(Ext(5, encode([[1]]))),
        msgspec.msgpack.encode(Ext(18, encode(["x:Y", {}]))),
        msgspec.msgpack.encode(Ext(18, encode([f"{__name__}:Color", {}]))),
        msgspec.msgpack.encode(Ext(17, encode([f"{__name__}:Note", "x"]))),
        msgspec.msgpack.encode(Ext(19, encode(b"short"))),
    ],
)
def test_damaged_or_hostile_bytes_are_a_decoding_error(data):
    with pytest.raises(errors.DecodingError):
        decode(data)


def test_deeply_nested_extensions_are_a_decoding_error():
    data = encode(1)
    for _ in range(3_000):
        data = msgspec.msgpack.encode(Ext(3, b"\x91" + data))
    with pytest.raises(errors.DecodingError):
        decode(data)


# --- classes ------------------------------------------------------------------------------------


def test_stored_names_select_no_code_outside_the_registered_types():
    for tag in ("os:system", "builtins:eval", "subprocess:Popen", f"{__name__}:Unknown"):
        with pytest.raises(errors.DecodingError, match="hasn't registered"):
            decode(msgspec.msgpack.encode(Ext(18, encode([tag, {}]))))


def test_no_constructor_runs_when_a_value_comes_back():
    calls = []

    @register_type
    @dataclasses.dataclass
    class Traced:
        x: int

        def __post_init__(self):
            calls.append("dataclass")

    @register_type
    class Model(pydantic.BaseModel):
        x: int

        def model_post_init(self, context, /):
            calls.append(context)

    data = encode([Traced(1), Model(x=1)])
    calls.clear()
    assert decode(data)[0].x == 1
    assert calls == []


def versions(old: type, new: type) -> tuple[bytes, type]:
    """Encode an old class's value, then let the new class take its place."""
    new.__qualname__, new.__name__ = old.__qualname__, old.__name__
    register_type(old)
    return encode(old(1)) if not issubclass(old, pydantic.BaseModel) else encode(old(x=1)), new


def test_a_new_field_gets_its_default_and_a_removed_one_is_passed_over():
    @dataclasses.dataclass
    class OldData:
        x: int
        gone: int = 5

    @dataclasses.dataclass
    class NewData:
        x: int
        more: list[int] = dataclasses.field(default_factory=list)

    class OldTuple(typing.NamedTuple):
        x: int
        gone: int = 5

    class NewTuple(typing.NamedTuple):
        x: int
        more: tuple[int, ...] = ()

    class OldStruct(msgspec.Struct):
        x: int
        gone: int = 5

    class NewStruct(msgspec.Struct):
        x: int
        more: list[int] = []

    class OldModel(pydantic.BaseModel):
        x: int
        gone: int = 5

    class NewModel(pydantic.BaseModel):
        x: int
        more: list[int] = []

    for old, new in (
        (OldData, NewData),
        (OldTuple, NewTuple),
        (OldStruct, NewStruct),
        (OldModel, NewModel),
    ):
        data, cls = versions(old, new)
        register_type(cls)
        again = decode(data)
        assert type(again) is new
        assert (again.x, len(again.more)) == (1, 0)
        assert not hasattr(again, "gone")


def test_a_new_field_without_default_is_a_decoding_error_that_names_it():
    @dataclasses.dataclass
    class Old:
        x: int

    @dataclasses.dataclass
    class New:
        x: int
        needed: int

    data, cls = versions(Old, New)
    register_type(cls)
    with pytest.raises(errors.DecodingError, match="needed"):
        decode(data)
    with pytest.raises(errors.EncodingError):
        encode(Old(1))  # it would come back as the other class


def test_a_moved_class_reads_its_old_data_under_its_old_name():
    @dataclasses.dataclass
    class Before:
        x: int

    @dataclasses.dataclass
    class After:
        x: int

    register_type(Before, name="old.place:Before")
    data = encode(Before(3))
    register_type(name="old.place:Before")(After)
    assert decode(data) == After(3)
    assert encode(After(3)) == data


def test_an_enum_member_is_stored_by_name():
    class Level(enum.Enum):
        LOW = 1

    register_type(Level)
    data = encode(Level.LOW)

    class NewLevel(enum.Enum):
        HIGH = 1
        LOW = 7

    NewLevel.__qualname__ = Level.__qualname__
    register_type(NewLevel)
    assert decode(data) is NewLevel.LOW


def test_an_enum_member_that_is_gone_is_a_decoding_error_that_names_it():
    class Stage(enum.Enum):
        DRAFT = 1

    class NewStage(enum.Enum):
        FINAL = 1

    data = encode(register_type(Stage).DRAFT)
    NewStage.__qualname__ = Stage.__qualname__
    register_type(NewStage)
    with pytest.raises(errors.DecodingError, match="DRAFT"):
        decode(data)


def test_a_class_that_data_alone_cannot_rebuild_is_not_registered():
    class Plain:
        pass

    for cls in (Plain, int, Loud):
        with pytest.raises(errors.UsageError, match="can't be registered"):
            register_type(cls)


@dataclasses.dataclass
class Leaf:
    n: int


@dataclasses.dataclass
class Tree:
    leaves: dict[str, list[Leaf]]
    parent: Tree | None = None


class Choice(enum.Enum):
    A = 1


class Mood(enum.Enum):
    GOOD = 1


class Reply(msgspec.Struct):
    choice: Choice


class Options(typing.TypedDict):
    reply: Reply


T = typing.TypeVar("T")


class Wrapped(pydantic.BaseModel, typing.Generic[T]):
    inner: T


class Innermost(pydantic.BaseModel):
    n: int


def test_the_types_a_function_is_annotated_with_are_registered_with_their_fields():
    def work(
        tree: typing.Annotated[Tree | None, "doc"],
        options: Options,
        mood: typing.Literal[Mood.GOOD],
        broken: DoesNotExist,  # noqa: F821  passed over
    ) -> Wrapped[Innermost]:
        raise NotImplementedError

    register_annotations(work)
    value = [
        Tree({"a": [Leaf(1)]}),
        Reply(Choice.A),
        Mood.GOOD,
        Wrapped[Innermost](inner=Innermost(n=1)),
    ]
    assert there_and_back(value) == value


class Deep(enum.Enum):
    A = 1


class Bound(msgspec.Struct):
    x: int
    wait: int = 0

    def __post_init__(self) -> None:
        self.wait += 1


DeepId = typing.NewType("DeepId", Deep)
B = typing.TypeVar("B", bound=Bound)


def test_the_types_behind_new_types_and_type_variables_are_registered():
    def work(deep: list[DeepId], bound: B) -> B:
        raise NotImplementedError

    register_annotations(work)
    assert there_and_back(Deep.A) is Deep.A
    assert there_and_back(Bound(1)) == Bound(1)  # changed once, not once more


def test_methods_partials_and_callable_objects_can_be_walked():
    import functools

    class Worker:
        async def __call__(self, leaf: Leaf) -> None: ...

    register_annotations(Worker())
    register_annotations(functools.partial(Worker().__call__))
    register_annotations(print)
    assert there_and_back(Leaf(1)) == Leaf(1)


SCRIPT = """
import sys
from dataclasses import dataclass
from holdfast.codec import encode, register_type

@register_type
@dataclass
class Mine:
    x: int

if __name__ == "__main__":
    sys.stdout.write(encode(Mine(5)).hex())
"""


def run(code: list[str], **environment: str) -> str:
    source = str(Path(errors.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, **environment}
    return subprocess.run(  # noqa: S603  this interpreter, on text that stands here
        [sys.executable, *code], env=environment, check=True, capture_output=True, text=True
    ).stdout


def test_a_worker_that_imports_a_script_reads_what_the_script_wrote(tmp_path, monkeypatch):
    script = tmp_path / "my_script_of_test.py"
    script.write_text(SCRIPT)
    data = bytes.fromhex(run([str(script)]))
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("my_script_of_test")
    assert decode(data) == module.Mine(5)


def test_importing_the_codec_imports_neither_pydantic_nor_a_compressor():
    code = "import holdfast.codec, sys; print(*sys.modules)"
    loaded = run(["-c", code]).split()
    assert "holdfast.codec" in loaded
    assert not [name for name in loaded if "zstd" in name or name.startswith("pydantic")]


# --- canonical bytes ----------------------------------------------------------------------------

DISTINCT = [
    None,
    math.nan,
    0,
    0.0,
    -0.0,
    False,
    1,
    1.0,
    True,
    "1",
    b"1",
    bytearray(b"1"),
    "MQ==",
    [1],
    (1,),
    {1},
    frozenset({1}),
    {1: 2},
    {"1": 2},
    {True: 2},
    [],
    (),
    {},
    set(),
    "",
    b"",
    dt.datetime(2024, 1, 1),  # noqa: DTZ001
    dt.datetime(2024, 1, 1, tzinfo=UTC),
    dt.date(2024, 1, 1),
    "2024-01-01",
    decimal.Decimal(1),
    decimal.Decimal("1.0"),
    Color.RED,
    Point(1.0),
    Pair(1),
    (1, None),
    {"left": 1, "right": None},
    Path("a"),
    PurePosixPath("a"),
]


def test_no_two_different_values_have_the_same_canonical_bytes():
    assert len({canonical(value) for value in DISTINCT}) == len(DISTINCT)


def test_the_order_of_dicts_and_sets_does_not_count():
    assert digest({"a": 1, "b": {"c": 1, "d": 2}}) == digest({"b": {"d": 2, "c": 1}, "a": 1})
    assert digest({1: 1, (2, 3): 2, "x": 3}) == digest({"x": 3, (2, 3): 2, 1: 1})
    assert digest({"b", "a", 1}) == digest({1, "a", "b"})


def test_every_nan_is_the_same_key():
    negative = math.copysign(math.nan, -1)
    assert digest([math.nan, complex(math.nan)]) == digest([negative, complex(negative)])


@register_type(name="golden:Color")
class GoldenColor(enum.Enum):
    RED = 1


@register_type(name="golden:Note")
@dataclasses.dataclass
class GoldenNote:
    text: str
    tags: tuple[str, ...] = ()


GOLDEN: list[tuple[object, str]] = [
    (None, "2a65c41cb05fe86c7d3de6b04269917790086fc78e190bc403c289146526bbc9"),
    (True, "719a5012342e13617ea975cd3058e01876f4724df4c9900b5057be01228ef78f"),
    (1, "c4130fe88c620aa1f8e3974eaab723c72d7c503f2f0377c04f66b0db7d9796fe"),
    (2**70, "42cddbabe1559e9c82bdb334b4d5976039adca8527ed6a4e51fe5a7a2a84021d"),
    (1.0, "963588d211f4f48e878fa68d732f4eb1379dc776774f5b863f8ec3e8b39f35ab"),
    (math.nan, "9e6533e6ea78c23e0362b826af0c066591ebe3fc8ebc7083fd98a57f93db36e1"),
    ("grüße", "d0bd978b3f6d2a6832dbe0ea046d247e389371b94c0923f19c80ad98cac856c9"),
    ("\ud800", "b8cb0770749f708b0047844188d11a4eba50a31464229b6aa770c41d2de53b1b"),
    (b"\x00\xff", "d228a4ccaf4ca63bb6f43ccd097ad4fac107d06fe626db50a4971694cadccd6a"),
    ([1, "1", None], "b7ca2e32be0d608cc12f6e1c02c97bfe3eb86fb9d2f15cba3aa3c33986dca712"),
    ((1, ("a",)), "8a31b8a983c7869f9e81c5437e07c95dbbb3b7e3462947d53244654aaa94e22a"),
    ({"b": 1, "a": [1.5]}, "a12bc9a35469aa90a3e949272640799038c6c3917950ea7a28e6fadbcfff9251"),
    ({1: "a", (2,): "b"}, "cbcea3bc5b3cb47fce4194d31540fe16ff89c305e5e4ba7203c9b9bc68ed88a8"),
    ({3, 1, 2}, "b0a644ca3a44962a5d37bd195012b24e2efc27b575715879cbd0180d81c4b928"),
    (
        dt.datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=UTC),
        "6bd8ecac57e0120725c8e5b1dabd2ee1bef31fa0711ee2f3856b29abb3079c47",
    ),
    (
        dt.timedelta(days=-1, microseconds=1),
        "e8116cbbcada1dfb7619a74a983e1c6e92e9724cdd1871e513c1c047145d9a14",
    ),
    (decimal.Decimal("1.10"), "0c351d66319a5e38c03b0809cfe1a024bd178b6e30fd8dc7b9ce9ed20623cae1"),
    (uuid.UUID(int=1), "f750e506dcdb73f21a9449125fa94c2bb2948adf93d4c890ae2ffe9ae94cabb0"),
    (PurePosixPath("a/b"), "95696fa2c44eaf38618aa4e854aa9d5fa97c4eaea71d019b99223575e5a5242e"),
    (GoldenColor.RED, "4cdec675ad2616b343822967b0a1f8a25726900372eb5e057367dfd94d059911"),
    (GoldenNote("x", ("y",)), "a9e925ea18b5197c2bfea5591bab41ea43b771f3332b16fed559d7160bcdd3e1"),
]


@pytest.mark.parametrize(("value", "expected"), GOLDEN, ids=[repr(v)[:30] for v, _ in GOLDEN])
def test_digests_stay_what_they_are_in_every_release(value, expected):
    assert digest(value).hex() == expected


ARGUMENTS = [
    {},
    {"number": 1},
    {"a": 1, "b": "two", "c": None},
    {"to": "x", "body": b"y"},  # not in the order of its keys
    {"number": 2**70},
    {"text": "\ud800"},
    {"\ud800": 1},
    {"ratio": math.nan},
    {"nested": {"b": 1, "a": [1.5]}},
    {1: 2},
]


@pytest.mark.parametrize("value", [*ARGUMENTS, *(value for value, _ in GOLDEN)], ids=repr)
def test_what_is_encoded_and_digested_together_comes_out_as_apart(value):
    assert encode_with_digest(value) == (encode(value), digest(value))


def test_digests_do_not_depend_on_the_hash_seed():
    code = textwrap.dedent("""
        from holdfast.codec import digest
        names = [f"name{n}" for n in range(50)]
        value = {"s": set(names), "f": frozenset(names), "d": {(n,): {n} for n in set(names)}}
        print(digest(value).hex())
    """)
    assert len({run(["-c", code], PYTHONHASHSEED=seed) for seed in ("0", "1", "2")}) == 1


# --- failures -----------------------------------------------------------------------------------


class ForeignError(Exception):
    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"code {code}")
        self.detail = detail


@register_type
class KnownError(Exception):
    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"code {code}")
        self.detail = detail


class AppError(errors.HoldfastError):
    pass


def replayed(exc: BaseException) -> BaseException:
    return decode_error(encode_error(exc))


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("bad", 3),
        ValueError(),
        KeyError("k"),
        FileNotFoundError(2, "No such file", "x.txt"),
        OSError("plain"),
        ConnectionResetError(104, "reset"),
        TimeoutError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
        StopIteration(3),
        SystemExit(4),
        KeyboardInterrupt(),
        ZeroDivisionError("x"),
        KnownError(3, detail="d"),
        AppError("no", step=3),
        errors.EncodingError("x", path="$.a"),
        errors.CallFailedError("x", error_type="a.B"),
        errors.NoEffect("nothing"),
    ],
    ids=repr,
)
def test_a_recorded_failure_replays_as_the_same_failure(exc):
    again = replayed(exc)
    assert type(again) is type(exc)
    assert (str(again), again.args) == (str(exc), exc.args)
    assert vars(again) == vars(exc)
    assert as_recorded(exc) is exc


def test_the_file_name_of_an_os_error_is_kept():
    assert replayed(FileNotFoundError(2, "No such file", "x.txt")).filename == "x.txt"


def test_notes_are_kept():
    exc = ValueError("x")
    exc.add_note("while reading")
    assert replayed(exc).__notes__ == ["while reading"]


def test_a_foreign_failure_looks_alike_the_first_time_and_on_replay():
    exc = ForeignError(3, detail="d")
    first, again = as_recorded(exc), replayed(exc)
    assert type(first) is type(again) is errors.CallFailedError
    assert str(first) == str(again) == "code 3"
    assert first.error_type == again.error_type
    assert first.error_type.endswith(".ForeignError")
    assert first.__cause__ is exc


def test_a_failure_whose_arguments_are_no_data_becomes_a_call_failure():
    exc = ValueError(object())
    assert type(as_recorded(exc)) is type(replayed(exc)) is errors.CallFailedError


def test_a_failure_that_cannot_even_be_printed_is_recorded():
    class BrokenError(Exception):
        def __str__(self):
            raise RuntimeError

    assert str(replayed(BrokenError())) == "BrokenError"


def test_facts_that_are_no_data_are_left_out_and_the_rest_stays():
    exc = errors.EvidenceRejectedError("no", verdicts=[object()], count=1)
    again = replayed(exc)
    assert type(again) is errors.EvidenceRejectedError
    assert (again.count, again.facts) == (1, {"count": 1})


def test_an_exception_group_replays_member_by_member():
    group = ExceptionGroup("two", [ValueError("a"), ForeignError(1, detail="d")])
    first, again = as_recorded(group), replayed(group)
    for shown in (first, again):
        assert type(shown) is ExceptionGroup
        assert [type(e) for e in shown.exceptions] == [ValueError, errors.CallFailedError]
        assert str(shown) == str(group)
    plain = ExceptionGroup("one", [ValueError("a")])
    assert as_recorded(plain) is plain


def test_no_constructor_of_the_program_runs_when_a_failure_is_rebuilt():
    @register_type
    class CarefulError(OSError):
        armed = False

        def __init__(self, *args):
            assert not self.armed
            super().__init__(*args)

    data = encode_error(CarefulError(5, "io"))
    CarefulError.armed = True
    again = decode_error(data)
    assert type(again) is CarefulError
    assert (again.errno, again.strerror) == (5, "io")


def test_only_known_exception_types_are_rebuildable():
    assert is_rebuildable(ValueError)
    assert is_rebuildable(errors.LeaseLostError)
    assert is_rebuildable(AppError)
    assert is_rebuildable(KnownError)
    assert not is_rebuildable(ForeignError)
    assert not is_rebuildable(asyncio.CancelledError)
    assert not is_rebuildable(json.JSONDecodeError)


@pytest.mark.parametrize("tag", ["os:system", "builtins:eval", "builtins:int", "x:Y", ""])
def test_a_stored_failure_cannot_select_other_code(tag):
    record = {"type": tag, "message": "m", "args": ("echo",), "attributes": {}}
    assert type(decode_error(encode(record))) is errors.CallFailedError


@pytest.mark.parametrize("record", [None, [], {}, {"type": 1, "message": 2}, {"type": "x"}])
def test_bytes_that_hold_no_failure_are_a_decoding_error(record):
    with pytest.raises(errors.DecodingError):
        decode_error(encode(record))


# --- secrets ------------------------------------------------------------------------------------


@pytest.fixture
def key():
    use_key(b"k" * 32)
    yield
    release_key(b"k" * 32)


@pytest.mark.usefixtures("key")
def test_only_the_digest_of_a_secret_is_stored():
    secret = Secret("correct horse battery")
    data = encode({"password": secret})
    assert b"horse" not in data
    assert secret.digest in data
    assert decode(data)["password"].reveal() == "correct horse battery"
    assert canonical([Secret("correct horse battery")]) == canonical([secret])


# --- packing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"a" * 511, b"a" * 512, b"ab" * 50_000, os.urandom(2_000)])
def test_what_was_packed_comes_back(data):
    assert unpack(pack(data), len(data)) == data
    assert len(pack(data)) <= len(data) + 1


def test_only_what_gets_smaller_is_compressed():
    assert len(pack(b"a" * 511)) == 512
    assert len(pack(b"a" * 512)) < 100


@pytest.mark.parametrize("size", [600, 100_000])
def test_more_than_the_limit_is_not_unpacked(size):
    data = pack(b"a" * size)
    assert unpack(data, size) == b"a" * size
    for limit in (size - 1, 10, 0):
        with pytest.raises(errors.DecodingError, match="larger than"):
            unpack(data, limit)
    with pytest.raises(errors.DecodingError, match="larger than"):
        unpack(pack(b"abc"), 2)


@pytest.mark.parametrize(
    "data", [b"", b"\x07abc", b"\x01", b"\x01junk", pack(b"a" * 999)[:-2], pack(b"a" * 999) + b"x"]
)
def test_a_damaged_payload_is_a_decoding_error(data):
    with pytest.raises(errors.DecodingError):
        unpack(data, 10_000)
