"""What is exported is what is locked, the same bytes each time."""

from __future__ import annotations

import json
from pathlib import Path

from manybridge.environments import bom
from manybridge.environments.locks import lock_text, parse_lock
from tests.environments.conftest import World

HASH = "sha256:" + "ab" * 32


def test_every_package_is_a_component_with_its_address_and_hashes(world: World) -> None:
    """And who depends on what."""
    lock = world.lock("alpha").lock

    document = bom.cyclonedx(lock, "1.2.3")

    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert [each["purl"] for each in document["components"]] == ["pkg:pypi/alpha@1.0", "pkg:pypi/beta@1.0"]
    assert all(each["hashes"][0]["alg"] == "SHA-256" for each in document["components"])
    depends = {each["ref"]: each["dependsOn"] for each in document["dependencies"]}
    assert depends["pkg:pypi/alpha@1.0"] == ["pkg:pypi/beta@1.0"]
    assert depends[document["metadata"]["component"]["bom-ref"]] == ["pkg:pypi/alpha@1.0"]


def test_the_same_lock_gives_the_same_bytes(world: World) -> None:
    """No time, no random number."""
    lock = world.lock("alpha").lock

    assert json.dumps(bom.cyclonedx(lock, "1")) == json.dumps(bom.cyclonedx(parse_lock(lock.text, Path("x")), "1"))


def test_a_local_version_is_escaped_in_the_address() -> None:
    """A plus sign is none in a package URL."""
    body = f"torch==2.13.0+cpu --hash={HASH}\n    # via required_packages\n    # via accelerate\n"
    lock = parse_lock(lock_text("m", "cpython-3.11", "linux", ["torch"], body), Path("m.txt"))

    (component,) = bom.cyclonedx(lock, "1")["components"]

    assert component["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"


def test_requirements_are_the_lock_without_its_comments() -> None:
    """Pip takes them, markers and hashes included."""
    body = f'beta==1.0 ; python_version > "3" --hash={HASH}\nalpha==1.0 --hash={HASH}\n'
    lock = parse_lock(lock_text("m", "cpython-3.11", "linux", ["beta"], body), Path("m.txt"))

    assert bom.requirements(lock) == (
        f'alpha==1.0 \\\n    --hash={HASH}\nbeta==1.0 ; python_version > "3" \\\n    --hash={HASH}\n'
    )
