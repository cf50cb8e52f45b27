"""Claims are checked at the door, keep one subject per thing, and combine into one outcome."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import EvidenceInputError, EvidencePathError, UsageError
from holdfast.evidence import (
    Evidence,
    EvidencePack,
    PackVerdict,
    Verdict,
    VerdictStatus,
    WorkspaceRef,
    combine,
)

SHA = "ab" * 32
EVERY_KIND = [
    Evidence.file("notes.md"),
    Evidence.file_hash("notes.md", SHA),
    Evidence.command(["pytest", "-q"], cwd="sub", env={"A": "1"}),
    Evidence.db_row("sqlite:///a.db", "t", {"id": 1, "key": b"\x00"}, {"x": None, "y": 1.5}),
    Evidence.git_commit("HEAD"),
    Evidence.http("http://localhost:8080/health"),
    Evidence.custom("ticket", "T-1", state="closed", tags=("a", "b")),
]


def pack_of(count: int, min_verified: int | None = None) -> EvidencePack:
    items = tuple(Evidence.file(f"f{n}") for n in range(count))
    return EvidencePack(items, min_verified=min_verified)


def outcome(statuses: str, min_verified: int | None = None) -> str:
    """Combine verdicts given by their first letters."""
    by_letter = {status.value[0]: status for status in VerdictStatus}
    verdicts = [Verdict(by_letter[letter]) for letter in statuses]
    return combine(pack_of(len(verdicts), min_verified), verdicts).value


@pytest.mark.parametrize("evidence", EVERY_KIND, ids=lambda e: e.kind)
def test_every_claim_reads_back_from_its_stored_bytes_as_the_same_value(evidence):
    stored = msgspec.msgpack.encode(evidence)
    assert msgspec.msgpack.decode(stored, type=Evidence) == evidence


def test_packs_and_verdicts_read_back_as_the_same_values():
    pack = EvidencePack.of(EVERY_KIND)
    verdict = Verdict(VerdictStatus.HISTORIC, "ran", {"exit_code": 0}, 12.5, 0.25)
    whole = PackVerdict((verdict,), VerdictStatus.VERIFIED, ("command:x",))
    for value in (pack, whole):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=type(value)) == value


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a/..", "", ".", "a\0b"])
def test_a_path_that_is_not_plainly_below_the_workspace_is_refused(path):
    with pytest.raises(EvidencePathError) as caught:
        Evidence.file(path)
    assert caught.value.path == path


@given(st.lists(st.sampled_from(["a", "b.txt", ".", "..", "", "/", "~", "c d"]), max_size=6))
def test_a_path_is_either_refused_or_has_one_canonical_spelling(parts):
    try:
        path = Evidence.file("/".join(parts)).params["path"]
    except EvidencePathError:
        return
    assert not path.startswith("/")
    assert not {"", ".", ".."} & set(path.split("/"))
    assert Evidence.file(path).params["path"] == path


@pytest.mark.parametrize("sha", ["", "ab", "g" * 64, SHA + "0", SHA + "\n"])
def test_a_hash_that_is_no_sha256_is_refused(sha):
    with pytest.raises(EvidenceInputError, match="64 hexadecimal"):
        Evidence.file_hash("a", sha)


@pytest.mark.parametrize("argv", [[], "pytest -q", [""], ["a\0"], ["a", 1], b"ls"])
def test_a_command_that_is_no_list_of_strings_is_refused(argv):
    with pytest.raises(EvidenceInputError, match="argv"):
        Evidence.command(argv)


@pytest.mark.parametrize(
    "options",
    [
        {"cwd": "/"},
        {"cwd": ".."},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"output_cap": -1},
        {"exit_code": True},
        {"env": {"A=B": "c"}},
        {"env": {"A": 1}},
    ],
    ids=str,
)
def test_a_command_with_limits_that_make_no_sense_is_refused(options):
    with pytest.raises(EvidenceInputError):
        Evidence.command(["true"], **options)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://host/",
        "http://",
        "http://user:secret@host/",
        "http://host:99999/",
        "http://host/a b",
        "http://host/\r\nX: y",
        "http://höst/",
    ],
)
def test_an_address_that_is_not_plain_http_is_refused(url):
    with pytest.raises(EvidenceInputError) as caught:
        Evidence.http(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("rev", ["", "-h", "--output=x", "a\nb"])
def test_a_revision_that_git_would_read_as_an_option_is_refused(rev):
    with pytest.raises(EvidenceInputError):
        Evidence.git_commit(rev)


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("mysql://host/db", {"id": 1}),
        ("sqlite:///../other.db", {"id": 1}),
        ("sqlite:///", {"id": 1}),
        ("sqlite:///a.db", {}),
        ("sqlite:///a.db", {"id": [1]}),
        ("sqlite:///a.db", {"id": object()}),
        ("sqlite:///a.db", {"id": 2**63}),
    ],
)
def test_a_row_that_cannot_be_named_safely_is_refused(url, where):
    with pytest.raises(EvidenceInputError):
        Evidence.db_row(url, "t", where, {})


def test_a_custom_parameter_that_is_no_plain_data_is_refused():
    with pytest.raises(EvidenceInputError, match="plain data"):
        Evidence.custom("n", "s", value={1, 2})


def test_claims_on_one_thing_have_one_subject():
    assert Evidence.file("./a//b.txt").subject == "file:a/b.txt"
    assert Evidence.file_hash("a/b.txt", SHA).subject == Evidence.file("a/b.txt").subject
    one = Evidence.db_row("sqlite:///a.db", "t", {"b": 2, "a": "x&y"}, {"v": 1})
    two = Evidence.db_row("sqlite:///./a.db", "t", {"a": "x&y", "b": 2}, {"v": 2})
    assert one.subject == two.subject
    assert Evidence.http("HTTP://Host/#part").subject == "http:http://host/"
    assert Evidence.command(["a", "b"]).subject == 'command:["a","b"]@.'


def test_claims_on_different_things_have_different_subjects():
    rows = [
        Evidence.db_row("sqlite:///a.db", "t", where, {})
        for where in ({"a": 1}, {"a": "1"}, {"a": "1&b=2"}, {"a": 1, "b": 2}, {"a": None})
    ]
    assert len({row.subject for row in rows}) == len(rows)


def test_a_database_password_shows_neither_in_the_subject_nor_in_the_repr():
    url = "postgresql://me:hunter2@Host:5432/db?password=hunter2&sslmode=require"
    row = Evidence.db_row(url, "t", {"id": 1}, {})
    assert row.subject == "row:postgresql://host:5432/db#t?id=1"
    assert "hunter2" not in repr(row)
    assert "hunter2" not in repr(EvidencePack.of(row))


def test_binding_names_the_workspace_of_claims_that_need_one_and_of_no_others():
    bound = EvidencePack.of(EVERY_KIND).bound_to(WorkspaceRef("ws-1", "/w"))
    local = {item.kind for item in bound.items if item.workspace == "ws-1"}
    assert local == {"file", "file_hash", "command", "git_commit", "db_row"}
    absolute = Evidence.db_row("sqlite:////srv/a.db", "t", {"id": 1}, {})
    assert absolute.bound_to(WorkspaceRef("ws-1", "/w")).workspace is None


def test_a_pack_is_made_of_one_claim_several_a_pack_or_nothing():
    one = Evidence.file("a")
    assert EvidencePack.of(one).items == (one,)
    assert EvidencePack.of([one, one]).items == (one, one)
    assert EvidencePack.of(EvidencePack((one,))).items == (one,)
    assert EvidencePack.of(None).items == ()


def test_a_rule_that_cannot_be_met_is_refused():
    for wrong in ({"min_verified": 0}, {"min_verified": 3}, {"require_all": False}):
        with pytest.raises(EvidenceInputError):
            EvidencePack(pack_of(2).items, **wrong)


def test_choosing_a_number_replaces_the_rule_that_all_must_hold():
    assert pack_of(2, min_verified=1).require_all is False


def test_an_empty_pack_proves_nothing():
    assert combine(EvidencePack(), []) is VerdictStatus.FAILED
    assert combine(EvidencePack(min_verified=1), []) is VerdictStatus.FAILED


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ("vv", "verified"),
        ("vh", "verified"),
        ("vu", "unavailable"),
        ("ue", "error"),
        ("uf", "failed"),
        ("ef", "failed"),
    ],
)
def test_a_pack_that_needs_all_is_as_good_as_its_worst_claim(statuses, expected):
    assert outcome(statuses) == expected


@pytest.mark.parametrize(
    ("statuses", "needed", "expected"),
    [
        ("vff", 1, "verified"),
        ("hvf", 2, "verified"),
        ("vuf", 2, "unavailable"),
        ("vef", 2, "error"),
        ("vfu", 3, "failed"),
        ("fff", 1, "failed"),
    ],
)
def test_a_pack_that_needs_some_is_decided_by_how_many_hold(statuses, needed, expected):
    assert outcome(statuses, needed) == expected


@given(
    st.lists(st.sampled_from([*VerdictStatus]), min_size=1, max_size=6),
    st.integers(min_value=1, max_value=6),
)
def test_a_pack_is_verified_only_if_enough_claims_hold(statuses, needed):
    verdicts = [Verdict(status) for status in statuses]
    holding = sum(verdict.holds for verdict in verdicts)
    whole = combine(pack_of(len(statuses)), verdicts)
    assert (whole is VerdictStatus.VERIFIED) == (holding == len(statuses))
    if needed <= len(statuses):
        some = combine(pack_of(len(statuses), needed), verdicts)
        assert (some is VerdictStatus.VERIFIED) == (holding >= needed)


def test_verdicts_that_do_not_match_the_claims_are_refused():
    with pytest.raises(UsageError):
        combine(pack_of(2), [Verdict(VerdictStatus.VERIFIED)])


def test_the_explanation_has_one_line_for_each_claim():
    verdicts = (Verdict(VerdictStatus.VERIFIED, "ok"), Verdict(VerdictStatus.FAILED, "gone"))
    whole = PackVerdict(verdicts, VerdictStatus.FAILED, ("file:a", "file:b"))
    assert whole.explain().splitlines() == [
        "verified    file:a: ok",
        "failed      file:b: gone",
    ]
    assert whole.failures() == verdicts[1:]
    assert not whole.verified
