from __future__ import annotations

import copy
import pickle

import pytest

from holdfast import errors
from holdfast.secret import (
    KEY_VARIABLE,
    Secret,
    known_secret_count,
    known_secrets,
    release_key,
    use_key,
)

KEY = b"a" * 32
OTHER_KEY = b"b" * 32


@pytest.fixture(autouse=True)
def no_key_from_outside(monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.fixture
def key():
    use_key(KEY)
    yield
    release_key(KEY)


def test_only_reveal_shows_the_value():
    secret = Secret("hunter2-plain")
    assert secret.reveal() == "hunter2-plain"
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>20}",
        f"{secret}",
        str([secret]),
    ]
    assert not any("hunter2" in text for text in shown)
    assert repr(secret) == "Secret(…)"


def test_a_secret_works_without_any_key_until_it_is_stored():
    secret = Secret(b"bytes too")
    assert secret.reveal() == b"bytes too"
    with pytest.raises(errors.UsageError, match="no store is open"):
        _ = secret.digest


def test_a_secret_can_be_made_before_the_key_is_known():
    secret = Secret("made early")
    use_key(KEY)
    try:
        assert Secret.from_digest(secret.digest).reveal() == "made early"
    finally:
        release_key(KEY)


def test_equal_secrets_are_equal_and_others_are_not():
    assert Secret("a value") == Secret("a value")
    assert hash(Secret("a value")) == hash(Secret("a value"))
    assert Secret("a value") != Secret("another")
    assert Secret("a value") != Secret(b"a value")
    assert Secret("a value") != "a value"
    assert len({Secret("a value"), Secret("a value"), Secret("b")}) == 2


@pytest.mark.usefixtures("key")
def test_the_digest_depends_on_value_type_and_key_only():
    digest = Secret("dependable").digest
    assert len(digest) == 32
    assert Secret("dependable").digest == digest
    assert Secret(b"dependable").digest != digest
    release_key(KEY)
    use_key(OTHER_KEY)
    assert Secret("dependable").digest != digest
    release_key(OTHER_KEY)
    use_key(KEY)


@pytest.mark.usefixtures("key")
def test_digests_stay_what_they_are_in_every_release():
    assert (
        Secret("golden").digest.hex()
        == "bf844c95886a9da6b7a872f38403a02f3d11f94aeda2a907524d89ccb9c6e5e3"
    )


@pytest.mark.usefixtures("key")
def test_a_stored_secret_is_revealed_once_this_process_has_it():
    stored = Secret.from_digest(bytes(32))
    with pytest.raises(errors.SecretUnavailableError, match="Create it here"):
        stored.reveal()
    made = Secret("known by now")
    again = Secret.from_digest(made.digest)
    assert again == made
    assert again.reveal() == "known by now"
    assert again.digest == made.digest
    assert stored != made
    assert stored == Secret.from_digest(bytes(32))
    assert repr(stored) == "Secret(…)"


def test_a_stored_secret_stays_revealable_after_its_store_was_closed():
    use_key(KEY)
    digest = Secret("long lived").digest
    release_key(KEY)
    assert Secret.from_digest(digest).reveal() == "long lived"


def test_with_two_different_keys_in_use_nothing_is_stored_under_a_guess():
    use_key(KEY)
    use_key(OTHER_KEY)
    try:
        with pytest.raises(errors.UsageError, match=KEY_VARIABLE):
            _ = Secret("ambiguous").digest
    finally:
        release_key(KEY)
        release_key(OTHER_KEY)


def test_a_key_that_two_stores_use_stays_until_both_released_it():
    use_key(KEY)
    use_key(KEY)
    release_key(KEY)
    assert Secret("still").digest
    release_key(KEY)
    release_key(KEY)  # once too often does nothing
    with pytest.raises(errors.UsageError):
        _ = Secret("still").digest


@pytest.mark.usefixtures("key")
def test_the_environment_takes_precedence(monkeypatch):
    before = Secret("from the environment").digest
    monkeypatch.setenv(KEY_VARIABLE, "x" * 32)
    secret = Secret("from the environment")
    assert secret.digest != before
    assert Secret.from_digest(secret.digest).reveal() == "from the environment"
    assert Secret.from_digest(before).reveal() == "from the environment"


def test_a_guessable_key_is_refused(monkeypatch):
    with pytest.raises(errors.InputError, match="32 bytes"):
        use_key(b"short")
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with pytest.raises(errors.UsageError, match="32"):
        _ = Secret("x").digest


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_not_pickled(protocol):
    with pytest.raises(errors.UsageError, match="pickled"):
        pickle.dumps(Secret("never"), protocol)


def test_a_copy_is_the_secret_itself():
    secret = Secret("copied")
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


@pytest.mark.parametrize("value", [1, None, ["a"], Secret("x"), type("S", (str,), {})("x")])
def test_only_text_and_bytes_can_be_secret(value):
    with pytest.raises(errors.InputError, match="str or bytes"):
        Secret(value)


def test_a_digest_of_another_length_is_refused():
    with pytest.raises(ValueError, match="32 bytes"):
        Secret.from_digest(b"short")


def test_the_known_secrets_are_listed_as_text():
    Secret("listed text")
    Secret(b"listed bytes")
    count = known_secret_count()
    Secret("listed text")
    assert known_secret_count() == count
    Secret(b"\xff\xfe no text")
    assert {"listed text", "listed bytes"} <= set(known_secrets())
    assert known_secret_count() == count + 1
