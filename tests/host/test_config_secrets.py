"""What is masked when a configuration is shown."""

from __future__ import annotations

import pytest

from manybridge.host.config_secrets import MASK, is_secret_key, mask_text, mask_tree


@pytest.mark.parametrize(
    "name", ["api_key", "apiKey", "HF_TOKEN", "client-secret", "db_password", "credentials", "KEYS"]
)
def test_names_of_secrets_are_recognised(name: str) -> None:
    """The usual spellings of secrets are all caught."""
    assert is_secret_key(name)


def test_a_secret_key_masks_everything_below_it_but_counts_are_shown() -> None:
    """Nested values under a secret key are secret; a number of tokens is not."""
    shown = mask_tree({"api_key": "x", "credentials": {"user": "u", "pin": [1, "two"]}, "max_tokens": 5, "model": "m"})

    assert shown == {"api_key": MASK, "credentials": {"user": MASK, "pin": [MASK, MASK]}, "max_tokens": 5, "model": "m"}


def test_passwords_in_urls_are_masked() -> None:
    """The user, host and rest of a URL stay readable."""
    assert f"postgresql://ada:{MASK}@db/x" == mask_text("postgresql://ada:p@ss/w@db/x")
    assert mask_text("http://db:8080/a") == "http://db:8080/a"


def test_values_of_required_variables_are_masked_wherever_they_occur() -> None:
    """A secret pasted into another option is recognised by its value; short values are no secrets."""
    assert {"header": f"Bearer {MASK}", "n": "1"} == mask_tree({"header": "Bearer abcdef", "n": "1"}, ["abcdef", "1"])
