"""A lock says what it must and nothing else, and names the same environment wherever it says the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from manybridge.environments.locks import Lock, canonical_requirements, lock_text, parse_lock, read_lock
from manybridge.errors import BridgeEnvironmentError

HASH = "sha256:" + "ab" * 32
OTHER_HASH = "sha256:" + "cd" * 32
BODY = f"""\
alpha==1.0 \\
    --hash={HASH}
    # via required_packages
beta==2.0 --hash={HASH} --hash={OTHER_HASH}
    # via alpha
"""


def lock_of(
    body: str, *, python: str = "cpython-3.11", platform: str = "linux-x86_64-gnu", bridge: str = "mine"
) -> Lock:
    """Read a lock with this body."""
    return parse_lock(lock_text(bridge, python, platform, ["alpha>=1"], body), Path("mine.txt"))


def test_a_lock_says_packages_hashes_and_who_asked_for_them() -> None:
    """All of it is read back."""
    lock = lock_of(BODY)

    assert (lock.bridge, lock.python, lock.platform, lock.requires) == (
        "mine",
        "cpython-3.11",
        "linux-x86_64-gnu",
        ("alpha>=1",),
    )
    alpha, beta = lock.pins
    assert (str(alpha.release), alpha.hashes, alpha.demanded_by) == ("alpha==1.0", (HASH,), ("required-packages",))
    assert (str(beta.release), beta.hashes, beta.demanded_by) == ("beta==2.0", (HASH, OTHER_HASH), ("alpha",))


@pytest.mark.parametrize(
    "body",
    [
        f"# another comment\nbeta==2.0 --hash={OTHER_HASH} --hash={HASH}\nAlpha==1.0 --hash={HASH}\n",
        BODY.replace("\n", "\r\n"),
        BODY.replace("    # via alpha\n", ""),
    ],
)
def test_comments_order_and_spelling_do_not_change_the_environment(body: str) -> None:
    """The name is made from what is installed."""
    assert lock_of(body).environment == lock_of(BODY, bridge="other").environment


@pytest.mark.parametrize(
    "lock",
    [
        lock_of(BODY.replace("2.0", "2.1")),
        lock_of(BODY.replace(OTHER_HASH, "sha256:" + "ef" * 32)),
        lock_of(BODY.replace("alpha==1.0", 'alpha==1.0 ; python_version > "3"')),
        lock_of(BODY, python="cpython-3.12"),
        lock_of(BODY, platform="linux-aarch64-gnu"),
    ],
)
def test_version_hash_marker_python_and_platform_each_change_the_environment(lock: Lock) -> None:
    """An environment is for exactly one of each."""
    assert lock.environment != lock_of(BODY).environment


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("--index-url http://example.invalid/simple\n" + BODY, "mine.txt:7"),
        ("-e ./here\n" + BODY, "expected"),
        ("-r other.txt\n" + BODY, "expected"),
        ("alpha @ http://example.invalid/alpha.whl\n", "expected"),
        ("./alpha-1.0-py3-none-any.whl\n", "expected"),
        (f"alpha>=1.0 --hash={HASH}\n", "expected"),
        ("alpha==1.0 --hash=md5:abc\n", "--hash=sha256"),
        (f"alpha==1.0 ; what is this --hash={HASH}\n", "marker"),
        (f"alpha==1.0 --hash={HASH}\nalpha==2.0 --hash={HASH}\n", "locked twice"),
        ("", "locks no package"),
        ("<<<<<<< ours\n" + BODY, "expected"),
    ],
)
def test_anything_but_exact_versions_with_hashes_cannot_be_read(body: str, said: str) -> None:
    """No option, address, folder or half of a merge is accepted in a lock."""
    with pytest.raises(BridgeEnvironmentError, match=said) as caught:
        lock_of(body)

    assert caught.value.details["reason"] == "lock_unreadable"
    assert "manybridge env lock" in caught.value.message


def test_a_package_without_a_hash_is_named_with_its_line() -> None:
    """Everything else in the lock would be compared, and this not."""
    with pytest.raises(BridgeEnvironmentError, match=r"mine\.txt:8: beta==2\.0 has no hash") as caught:
        lock_of(f"alpha==1.0 --hash={HASH}\nbeta==2.0\n")

    assert caught.value.details["reason"] == "lock_incomplete"


def test_a_lock_without_its_head_cannot_be_read() -> None:
    """What it is for is part of what it says."""
    with pytest.raises(BridgeEnvironmentError, match="# bridge"):
        parse_lock(BODY, Path("mine.txt"))


def test_a_lock_that_is_not_there_or_no_text_is_told(tmp_path: Path) -> None:
    """Both with the command that makes one."""
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")

    for name, reason in (("absent.txt", "lock_missing"), ("binary.txt", "lock_unreadable")):
        with pytest.raises(BridgeEnvironmentError, match="manybridge env lock") as caught:
            read_lock(tmp_path / name)
        assert caught.value.details["reason"] == reason


def test_requirements_are_compared_in_one_spelling() -> None:
    """Spaces, case and order are not a change."""
    first = canonical_requirements("k", ["Typing_Extensions >= 4, <5", "dspy[extra]>=3"])

    assert first == canonical_requirements("k", ["dspy[extra] >=3", "typing-extensions<5,>=4"])


@pytest.mark.parametrize("text", ["dspy=>3", "alpha @ file:///tmp/alpha.whl", ""])
def test_a_requirement_that_cannot_be_locked_is_refused_by_its_key(text: str) -> None:
    """One that can't be read, and one with an address."""
    with pytest.raises(BridgeEnvironmentError, match=r" bridges\.mine\.required_packages: expected") as caught:
        canonical_requirements("bridges.mine.required_packages", [text])

    assert caught.value.details["reason"] == "requirement"
