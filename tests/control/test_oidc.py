"""Logins of people against a real server of keys: who is let in, as what, and every known way of forging a token."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from fastapi import FastAPI
from sqlalchemy import Engine

from admin.app import create_app
from admin.oidc import REFETCH_AFTER_S, Oidc, Provider
from admin.rest.gate import PREFIX
from gateway import keys, org_store
from gateway.database import changing
from gateway.errors import AccessDenied, Overloaded, Unauthenticated
from gateway.org_store import NewOrg, NewTeam, NewUser, OwnerChange
from gateway.refresh import Refresher
from gateway.secret_box import SecretBox
from tests.fixtures.control import ADMIN_KEY

AUDIENCE = "penstock"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ALGORITHMS: dict[str, tuple[str, PrivateKeyTypes]] = {
    "rsa": ("RS256", RSA_KEY),
    "ec": ("ES256", EC_KEY),
    "ed": ("EdDSA", ED_KEY),
}


def public(kid: str, algorithm: str, key: PrivateKeyTypes) -> dict[str, Any]:
    found = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**found, "kid": kid, "use": "sig"}


class KeyServer:
    """An identity provider's published documents over real TCP. `down` answers 503, `slow` never answers."""

    def __init__(self) -> None:
        self.keys = [public(kid, *pair) for kid, pair in ALGORITHMS.items()]
        self.asked: list[str] = []
        self.down = False
        self.issuer = ""
        self.claimed_issuer: str | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.issuer = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        self.asked.append(path)
        document: object = {"keys": self.keys}
        if path == "/.well-known/openid-configuration":
            document = {"issuer": self.claimed_issuer or self.issuer, "jwks_uri": f"{self.issuer}/keys"}
        body = json.dumps(document).encode()
        status = b"503 Away" if self.down else b"200 OK"
        writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()
        writer.close()


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    server = KeyServer()
    await server.start()
    yield server
    await server.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def oidc(server: KeyServer, clock: Clock) -> Oidc:
    return Oidc(Provider(server.issuer, (AUDIENCE, "second")), clock)


def claims(server: KeyServer, **changes: object) -> dict[str, Any]:
    now = int(time.time())
    every = {
        "iss": server.issuer,
        "aud": AUDIENCE,
        "sub": "ada",
        "iat": now,
        "exp": now + 300,
        "email": "ada@example.com",
        "email_verified": True,
        **changes,
    }
    return {name: value for name, value in every.items() if value is not None}


def signed(claims: dict[str, Any], kid: str = "rsa", header: dict[str, Any] | None = None) -> str:
    algorithm, key = ALGORITHMS[kid]
    return jwt.encode(claims, key, algorithm, headers={"kid": kid, **(header or {})})  # type: ignore[arg-type]


def raw(header: object, body: object, signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(body).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize("kid", ALGORITHMS)
async def test_a_token_signed_by_the_provider_is_taken(server: KeyServer, oidc: Oidc, kid: str) -> None:
    """With each kind of key; the keys are found by discovery and fetched once."""
    await oidc.login(signed(claims(server), kid))
    login = await oidc.login(signed(claims(server), kid))
    assert (login.subject, login.email, login.role) == ("ada", "ada@example.com", None)
    assert server.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_a_forged_token_is_refused(server: KeyServer, oidc: Oidc) -> None:
    """Each is a published attack or a mistake of somebody else's; all get the same answer."""
    good = claims(server)
    head, body, signature = signed(good).split(".")
    pem = RSA_KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    modulus = base64.urlsafe_b64decode(server.keys[0]["n"] + "==")
    confused = []
    for secret in (pem, pem.strip(), modulus, b""):
        unsigned = raw({"alg": "HS256", "kid": "rsa", "typ": "JWT"}, good).rpartition(".")[0]
        mac = hmac.new(secret, unsigned.encode(), hashlib.sha256).digest()
        confused.append(f"{unsigned}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}")
    own = public("own", "RS256", STRANGER)
    forged = {
        "no signature": raw({"alg": "none"}, good),
        "none in capitals": raw({"alg": "nOnE", "kid": "rsa"}, good),
        "no algorithm": raw({"kid": "rsa"}, good, b"x"),
        "signature cut off": f"{head}.{body}.",
        "signature changed": f"{head}.{body}.{'A' * len(signature)}",
        "body changed": f"{head}.{raw({}, {**good, 'sub': 'eve'}).split('.')[1]}.{signature}",
        "another's key": jwt.encode(good, STRANGER, "RS256", headers={"kid": "rsa"}),
        "key in the header": jwt.encode(good, STRANGER, "RS256", headers={"kid": "own", "jwk": own}),
        "address of a key in the header": jwt.encode(
            good, STRANGER, "RS256", headers={"kid": "own", "jku": f"{server.issuer}/mine", "x5u": f"{server.issuer}/x"}
        ),
        "kind of key confused": signed(good, "rsa", {"kid": "ec"}),
        "algorithm not named": jwt.encode(good, RSA_KEY, "RS512", headers={"kid": "rsa"}),
        "algorithm of the family": jwt.encode(good, RSA_KEY, "PS256", headers={"kid": "rsa"}),
        "unknown key": signed(good, "rsa", {"kid": "nobody"}),
        "path for a key": signed(good, "rsa", {"kid": "../../dev/null"}),
        "sql for a key": signed(good, "rsa", {"kid": "x' UNION SELECT 'k"}),
        "number for a key": raw({"alg": "RS256", "kid": 1}, good, b"x"),
        "list for an algorithm": raw({"alg": ["RS256"], "kid": "rsa"}, good, b"x"),
        "critical extension": signed(good, "rsa", {"crit": ["exp"], "exp": 1}),
        "another's audience": signed({**good, "aud": "other"}),
        "no audience": signed(claims(server, aud=None)),
        "audience of lists": signed({**good, "aud": [["penstock"]]}),
        "another issuer": signed({**good, "iss": "https://evil.example"}),
        "issuer with a slash": signed({**good, "iss": server.issuer + "/"}),
        "no issuer": signed(claims(server, iss=None)),
        "expired": signed({**good, "exp": int(time.time()) - 31}),
        "no expiry": signed(claims(server, exp=None)),
        "expiry as text": signed({**good, "exp": "never"}),
        "not yet valid": signed({**good, "nbf": int(time.time()) + 120}),
        "issued in the future": signed({**good, "iat": int(time.time()) + 120}),
        "no subject": signed(claims(server, sub=None)),
        "not json": "eyJ.eyJ.eyJ",
        "nothing": "..",
        "text": "a.b.c",
        "header is a list": raw([], good, b"x"),
        "nested": raw({"alg": "RS256", "kid": "rsa", "x": json.loads("[" * 900 + "]" * 900)}, good, b"x"),
        "huge": signed({**good, "x": "x" * 20_000}),
        **{f"public key as secret {number}": token for number, token in enumerate(confused)},
    }
    for name, token in forged.items():
        with pytest.raises(Unauthenticated) as refused:
            await oidc.login(token)
        assert refused.value.code == ("expired_login" if name == "expired" else "invalid_login"), name
    assert "/mine" not in server.asked
    await oidc.login(signed(good))


async def test_clocks_may_differ_by_the_leeway(server: KeyServer, oidc: Oidc) -> None:
    """30 s in both directions."""
    now = int(time.time())
    for changes in ({"exp": now - 20}, {"nbf": now + 20}, {"iat": now + 20}):
        await oidc.login(signed(claims(server, **changes)))


async def test_a_new_key_of_the_provider_is_found(server: KeyServer, oidc: Oidc, clock: Clock) -> None:
    """Keys are rotated without a word: an unknown id asks again. The old key is gone with the answer."""
    await oidc.login(signed(claims(server)))
    server.keys = [public("new", "RS256", STRANGER)]
    token = jwt.encode(claims(server), STRANGER, "RS256", headers={"kid": "new"})
    clock.now += REFETCH_AFTER_S
    await oidc.login(token)
    with pytest.raises(Unauthenticated):
        await oidc.login(signed(claims(server)))


async def test_made_up_key_ids_do_not_flood_the_provider(server: KeyServer, oidc: Oidc, clock: Clock) -> None:
    """At most one question in ten seconds, however many tokens come, also at the same moment."""
    clock.now += 100
    tokens = [signed(claims(server), "rsa", {"kid": f"made-up-{number}"}) for number in range(20)]
    results = await asyncio.gather(*(oidc.login(token) for token in tokens), return_exceptions=True)
    assert all(isinstance(result, Unauthenticated) for result in results)
    assert server.asked.count("/keys") == 1
    clock.now += REFETCH_AFTER_S
    await asyncio.gather(*(oidc.login(token) for token in tokens), return_exceptions=True)
    assert server.asked.count("/keys") == 2


async def test_a_provider_that_is_away_leaves_the_known_keys(server: KeyServer, oidc: Oidc, clock: Clock) -> None:
    """Whoever could log in still can; without any keys it is a 503 that says whose fault it is."""
    server.down = True
    with pytest.raises(Overloaded) as refused:
        await oidc.login(signed(claims(server)))
    assert refused.value.code == "identity_provider_unavailable"
    server.down = False
    clock.now += REFETCH_AFTER_S
    await oidc.login(signed(claims(server)))
    server.down = True
    clock.now += 10_000
    await oidc.login(signed(claims(server)))


async def test_a_discovery_document_of_another_issuer_is_not_believed(server: KeyServer, oidc: Oidc) -> None:
    """OpenID Connect Discovery 4.3: the two must be equal."""
    server.claimed_issuer = "https://evil.example"
    with pytest.raises(Overloaded):
        await oidc.login(signed(claims(server)))


async def test_broken_and_foreign_keys_are_left_out(server: KeyServer) -> None:
    """A shared secret, a key for encryption, nonsense: the good ones beside them work, and the others do not count."""
    secret = {"kty": "oct", "k": base64.urlsafe_b64encode(b"s" * 32).decode(), "kid": "oct", "alg": "HS256"}
    foreign = {**public("enc", "RS256", STRANGER), "use": "enc"}
    strange: list[Any] = [1, None, {"kty": "RSA", "kid": "rsa"}, {"kty": "EC", "crv": "P-521"}, secret, foreign]
    server.keys = strange + server.keys
    oidc = Oidc(Provider(server.issuer, (AUDIENCE,), jwks_url=f"{server.issuer}/keys"))
    await oidc.login(signed(claims(server)))
    assert server.asked == ["/keys"]
    for token in (
        jwt.encode(claims(server), b"s" * 32, "HS256", headers={"kid": "oct"}),
        jwt.encode(claims(server), STRANGER, "RS256", headers={"kid": "enc"}),
    ):
        with pytest.raises(Unauthenticated):
            await oidc.login(token)


async def test_a_token_without_a_key_id_is_for_the_only_key(server: KeyServer) -> None:
    """With two of its kind it says too little."""
    oidc = Oidc(Provider(server.issuer, (AUDIENCE,)))
    token = jwt.encode(claims(server), RSA_KEY, "RS256")
    await oidc.login(token)
    server.keys.append(public("second", "RS256", STRANGER))
    with pytest.raises(Unauthenticated):
        await Oidc(Provider(server.issuer, (AUDIENCE,))).login(token)


async def test_the_provider_may_assign_roles(server: KeyServer) -> None:
    """By the values of one claim, however deep; the order of the configuration decides, and no value is no role."""
    roles: dict[str, Any] = {"gate-admins": "platform_admin", "gate-teams": "team_admin"}
    oidc = Oidc(Provider(server.issuer, (AUDIENCE,), role_claim="realm_access.roles", roles=roles))

    async def login(held: object) -> str | None:
        return (await oidc.login(signed(claims(server, realm_access=held, org_id="org_1", team_id="team_1")))).role

    assert await login({"roles": ["x", "gate-teams", "gate-admins"]}) == "platform_admin"
    assert await login({"roles": "gate-teams"}) == "team_admin"
    nobody: list[object] = [{"roles": ["x"]}, {"roles": []}, {"roles": {"gate-admins": 1}}, {"roles": 1}, "gate-admins"]
    for held in nobody:
        with pytest.raises(AccessDenied):
            await login(held)


async def test_an_email_counts_only_if_the_provider_vouches_for_it(server: KeyServer, oidc: Oidc) -> None:
    """Anyone can type in somebody else's; a claim that was chosen on purpose needs no such word."""
    for verified in (False, None, "true", 1):
        assert (await oidc.login(signed(claims(server, email_verified=verified)))).email is None
    chosen = Oidc(Provider(server.issuer, (AUDIENCE,), email_claim="upn"))
    assert (await chosen.login(signed(claims(server, upn="ada@corp", email_verified=None)))).email == "ada@corp"


@pytest.fixture
def gate(engine: Engine, box: SecretBox, refresher: Refresher, oidc: Oidc) -> FastAPI:
    digest = keys.digest(ADMIN_KEY.encode())
    return create_app(
        engine=engine, box=box, refresher=refresher, admin_key_digest=digest, version="0", oidc=oidc, enforcing=True
    )


async def me(gate: FastAPI, token: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=gate)
    async with httpx.AsyncClient(transport=transport, base_url="http://penstock") as client:
        return await client.get(f"{PREFIX}/me", headers={"authorization": f"Bearer {token}"})


async def test_a_person_is_what_the_table_of_users_says(gate: FastAPI, engine: Engine, server: KeyServer) -> None:
    """By email, in any case; strangers, members and the blocked are told 403, forgers 401; the audit names the person."""
    with changing(engine) as tx:
        org = org_store.create_org(tx, NewOrg("o")).id
        team = org_store.create_team(tx, NewTeam(org, "t")).id
        user = org_store.create_user(tx, NewUser(org, "Ada@example.com", "team_admin", team)).id
        org_store.create_user(tx, NewUser(org, "member@example.com"))
    answer = await me(gate, signed(claims(server, email="ADA@example.com")))
    assert answer.json() == {"actor": "user ADA@example.com", "role": "team_admin", "org_id": org, "team_id": team}
    for email in ("member@example.com", "stranger@example.com", None):
        assert (await me(gate, signed(claims(server, email=email)))).status_code == 403
    forged = await me(gate, jwt.encode(claims(server), STRANGER, "RS256", headers={"kid": "rsa"}))
    assert (forged.status_code, forged.json()["error"]["code"]) == (401, "invalid_login")
    with changing(engine) as tx:
        org_store.change_user(tx, user, OwnerChange(blocked=True))
    assert (await me(gate, signed(claims(server)))).status_code == 403


async def test_a_role_of_the_provider_needs_its_organisation(
    engine: Engine, box: SecretBox, refresher: Refresher, server: KeyServer
) -> None:
    """An org admin of no organisation is nobody; a blocked user stays blocked whatever the provider says."""
    roles: dict[str, Any] = {"o": "org_admin", "p": "platform_admin"}
    oidc = Oidc(Provider(server.issuer, (AUDIENCE,), role_claim="role", roles=roles))
    digest = keys.digest(ADMIN_KEY.encode())
    gate = create_app(engine=engine, box=box, refresher=refresher, admin_key_digest=digest, version="0", oidc=oidc)
    assert (await me(gate, signed(claims(server, role="o")))).status_code == 403
    assert (await me(gate, signed(claims(server, role="o", org_id="org_1")))).json()["org_id"] == "org_1"
    assert (await me(gate, signed(claims(server, role="p", org_id="org_1")))).json()["org_id"] is None
    with changing(engine) as tx:
        org = org_store.create_org(tx, NewOrg("o")).id
        user = org_store.create_user(tx, NewUser(org, "ada@example.com")).id
        org_store.change_user(tx, user, OwnerChange(blocked=True))
    assert (await me(gate, signed(claims(server, role="p")))).status_code == 403


async def test_without_a_provider_no_token_is_a_login(app: FastAPI, server: KeyServer) -> None:
    """Nothing is fetched on a stranger's word."""
    assert (await me(app, signed(claims(server)))).status_code == 401
    assert server.asked == []
