"""The `auth` section: an identity provider is described wholly, over a protected way, with algorithms that sign."""

from pathlib import Path

import pytest

from admin.config_file import ConfigError
from admin.oidc import Provider
from admin.settings import Settings, load

GOOD = """
auth:
  oidc:
    issuer: https://login.example.com/realm
    audience: [penstock]
    role_claim: groups
    roles: {gate-admins: platform_admin}
"""


def loaded(text: str, directory: Path) -> Settings:
    (directory / "penstock.yaml").write_text(text)
    return load({}, {}, directory).settings


def test_a_provider_is_read_from_the_file(tmp_path: Path) -> None:
    """Its fields are those of the value that logins are verified with."""
    oidc = loaded(GOOD, tmp_path).auth.oidc
    assert oidc is not None
    provider = Provider(**oidc.model_dump())
    assert (provider.issuer, provider.audience) == ("https://login.example.com/realm", ("penstock",))
    assert dict(provider.roles) == {"gate-admins": "platform_admin"}
    assert loaded("", tmp_path).auth.oidc is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("https://login", "http://login", "https"),
        ("https://login.example.com/realm", "http://localhost.evil.example", "https"),
        ("audience: [penstock]", "audience: []", "audience"),
        ("audience: [penstock]", "algorithms: [RS256]", "audience"),
        ("role_claim: groups", "algorithms: [HS256]", "RS256"),
        ("role_claim: groups", "algorithms: [none]", "RS256"),
        ("role_claim: groups", "", "role_claim"),
        ("platform_admin", "king", "platform_admin"),
        ("issuer:", "isuer:", "issuer"),
    ],
)
def test_what_would_let_in_the_wrong_people_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    """With words that say what to write instead."""
    with pytest.raises(ConfigError, match=message):
        loaded(GOOD.replace(old, new), tmp_path)
