"""The effective configuration: precedence, origins, and complaints that name place, path and the way out."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from admin.config_check import NOT_IN_FORCE, known_keys, not_in_force
from admin.config_file import ConfigError
from admin.settings import Loaded, Settings, load

Flags = Mapping[str, str | int | None]
Complaints = Callable[..., list[str]]
Load = Callable[..., Loaded]

DESIGN_SAMPLE = """\
models:
  - name: chat                      # what clients ask for
    strategy: latency               # weighted | order | least_busy | latency | cost | usage | prefix
    deployments:
      - id: chat-a
        provider: openai            # openai (any compatible URL) | azure | anthropic | gemini | bedrock | vllm | … | litellm
        base_url: http://127.0.0.1:8000/v1
        model: meta-llama/Llama-3.1-8B-Instruct
        api_key: ${VLLM_KEY:-none}
        weight: 3
        order: 1                    # lower first; same order: by strategy
        price: {input: 0.20, output: 0.60, cached_input: 0.05}   # USD per million tokens; default: the bundled price map
        limits: {rpm: 600, tpm: 200000, parallel: 64}
    fallbacks: [chat-small]         # also: context_fallbacks, content_fallbacks
    retries: {attempts: 2, base_s: 0.25, max_s: 8}
    timeouts: {connect_s: 2, first_token_s: 20, stall_s: 15, total_s: 300}
    shadow: {model: chat-next, share: 0.05}
cache: {exact: {ttl_s: 3600}, semantic: {threshold: 0.95, ttl_s: 3600}}     # off unless named
"""

EXAMPLE = Path(__file__).parents[2] / "examples" / "penstock.yaml"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def complaints(folder: Path) -> Complaints:
    def of(text: str, flags: Flags | None = None, **environ: str) -> list[str]:
        (folder / "penstock.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            load(flags or {}, environ)
        return [problem.text() for problem in caught.value.problems]

    return of


@pytest.fixture
def loaded(folder: Path) -> Load:
    def of(text: str = "", flags: Flags | None = None, **environ: str) -> Loaded:
        (folder / "penstock.yaml").write_text(text)
        return load(flags or {}, environ)

    return of


def test_nothing_configured_gives_the_defaults_of_the_contract(folder: Path) -> None:
    """Port 4000 on loopback, data in ./.penstock, SQLite in there, no models."""
    settings = load({}, {}).settings
    assert (settings.server.host, settings.server.port, settings.server.workers) == ("127.0.0.1", 4000, 1)
    assert settings.data_dir == Path(".penstock")
    assert settings.database == f"sqlite:///{folder}/.penstock/penstock.db"
    assert settings.models == ()


def test_the_sample_of_the_design_loads_as_it_is(loaded: Load) -> None:
    """All of it is in force."""
    result = loaded(DESIGN_SAMPLE)
    (model,) = result.settings.models
    assert model.deployments[0].api_key == "${VLLM_KEY:-none}"
    assert model.timeouts.stall_s == 15
    assert result.settings.cache is not None
    assert (result.settings.cache.exact, result.settings.cache.semantic) != (None, None)
    assert not [warning for warning in result.warnings if "not in force" in warning]


def test_the_example_loads() -> None:
    """The file under examples/ is a working configuration, whose fallbacks exist."""
    result = load({"--config": str(EXAMPLE)}, {})
    assert [model.name for model in result.settings.models] == ["chat", "chat-small", "chat-next"]
    assert not [warning for warning in result.warnings if "not in force" not in warning]


@pytest.mark.parametrize(
    ("flags", "environ", "expected", "origin"),
    [
        ({"--data-dir": "a"}, {"PENSTOCK_DATA_DIR": "b"}, "a", "flag --data-dir"),
        ({}, {"PENSTOCK_DATA_DIR": "b"}, "b", "environment PENSTOCK_DATA_DIR"),
        ({}, {"PENSTOCK_DATA_DIR": ""}, "c", "penstock.yaml:2"),
    ],
)
def test_command_line_beats_environment_beats_file(
    loaded: Load, flags: Flags, environ: dict[str, str], expected: str, origin: str
) -> None:
    """And each value knows who decided it; a variable that is set but empty decides nothing."""
    result = loaded("server: {port: 1}\ndata_dir: c\n", flags, **environ)
    assert str(result.settings.data_dir) == expected
    assert result.origin("data_dir") == origin
    assert result.origin("server", "host") == "default"


def test_a_flag_changes_one_value_of_a_section(loaded: Load) -> None:
    """The rest of the section stays as the file has it."""
    result = loaded("server:\n  host: 0.0.0.0\n  port: 1\n", {"--port": 5, "--workers": None})
    assert (result.settings.server.host, result.settings.server.port) == ("0.0.0.0", 5)
    assert result.origin("server", "port") == "flag --port"
    assert result.origin("server", "host") == "penstock.yaml:2"


def test_the_file_is_found_by_flag_then_environment_then_in_the_folder(folder: Path) -> None:
    """`--config`, `PENSTOCK_CONFIG`, ./penstock.yaml."""
    for name, port in (("penstock.yaml", 1), ("other.yaml", 2), ("third.yaml", 3)):
        (folder / name).write_text(f"server: {{port: {port}}}\n")
    assert load({}, {}).settings.server.port == 1
    assert load({}, {"PENSTOCK_CONFIG": "other.yaml"}).settings.server.port == 2
    assert load({"--config": "third.yaml"}, {"PENSTOCK_CONFIG": "other.yaml"}).settings.server.port == 3


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """Only the usual file may be missing."""
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load({"--config": str(tmp_path / "none.yaml")}, {})


def test_every_mistake_is_reported_at_once_with_line_path_and_way_out(complaints: Complaints) -> None:
    """Sixteen mistakes in one file are sixteen lines, in the order of the file."""
    found = complaints(
        "models:\n"
        "  - name: chat\n"
        "    strategy: wieghted\n"
        "    deployments:\n"
        "      - id: a\n"
        "        wieght: 3\n"
        "        provider: opnai\n"
        "        weight: abc\n"
        "        base_url: nope\n"
        "        api_key: 5\n"
        "      - provider: azure\n"
        "        id: a\n"
        "    fallbacks: [chat]\n"
        "    timeouts: 5\n"
        "  - name: chat\n"
        "server: {port: 70000, limits: {body_mb: .inf}}\n"
        "prot: 4000\n"
        "log: {level: '${LEVEL}'}\n"
        "models: []\n",
        PENSTOCK_REDIS_URL="http://x",
    )
    assert found == [
        "environment PENSTOCK_REDIS_URL: redis_url: expected redis://host:6379/0, rediss://… or unix://…",
        (
            "penstock.yaml:3: models[0].strategy: expected one of weighted, order, least_busy, latency, cost, usage, prefix, "
            'found "wieghted"; did you mean "weighted"?'
        ),
        'penstock.yaml:6: models[0].deployments[0]: unknown key "wieght"; did you mean "weight"?',
        'penstock.yaml:7: models[0].deployments[0].provider: unknown provider "opnai"; did you mean "openai"?',
        'penstock.yaml:8: models[0].deployments[0].weight: expected a number, found "abc"',
        (
            "penstock.yaml:9: models[0].deployments[0].base_url: expected a URL such as http://127.0.0.1:8000/v1, "
            'found "nope"'
        ),
        "penstock.yaml:10: models[0].deployments[0].api_key: expected text, found the number 5; put it in quotes",
        'penstock.yaml:11: models[0].deployments[1]: provider "azure" has no address of its own; add base_url',
        'penstock.yaml:12: models[0].deployments[1].id: "a" is already taken by models[0].deployments[0]',
        'penstock.yaml:13: models[0].fallbacks[0]: "chat" cannot fall back on itself',
        "penstock.yaml:14: models[0].timeouts: expected a mapping (lines of `key: value`), found the number 5",
        'penstock.yaml:15: models[1].name: "chat" is already taken by models[0]',
        "penstock.yaml:16: server.port: should be less than or equal to 65535, found the number 70000",
        'penstock.yaml:16: server.limits.body_mb: expected a number, found ".inf"',
        (
            'penstock.yaml:17: unknown key "prot"; known here: admin_key, alerts, auth, batches, cache, data_dir, database_url, '
            "embedding, engine_programs, engines, features, files, guards, limits, log, mcp, models, passthrough, predictions, "
            "pricing, realtime, records, redis_url, registry, responses, retrieval, secret_key, server, telemetry, upstream"
        ),
        "penstock.yaml:18: log.level: environment variable LEVEL is not set; set it or give a default: ${LEVEL:-…}",
        'penstock.yaml:19: models: duplicate key "models", first seen on line 1',
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server: 5\n", "server: expected a mapping"),
        ("models: {}\n", "models: expected a list"),
        ("models: [5]\n", "models[0]: expected a mapping"),
        ("models: [{name: a b}]\n", 'models[0].name: expected a name without spaces, found "a b"'),
        ("models: [{deployments: []}]\n", 'models[0]: missing key "name"'),
        ("models: [{name: x, deployments: [{}]}]\n", 'models[0].deployments[0]: missing key "id"'),
        ("models: [{name: 'a*b'}]\n", 'models[0].name: "a*b": the wildcard * stands at the end'),
        ("server: {tls_cert: a.pem}\n", "tls_cert and tls_key belong together"),
        ("data_dir: [1]\n", "data_dir: expected a path, found a list"),
        ("records: {enabled: perhaps}\n", 'records.enabled: expected true or false, found "perhaps"'),
        ("upstream: {user_agent: 'a\tb'}\n", "upstream.user_agent: expected"),
    ],
)
def test_each_kind_of_mistake_has_its_words(complaints: Complaints, text: str, message: str) -> None:
    """Found and expected, never a library's own phrase."""
    (found,) = complaints(text)
    assert message in found


def test_no_secret_is_shown_in_a_complaint(complaints: Complaints) -> None:
    """A wrong value of a secret is described, not quoted; the same for what came from the environment."""
    found = complaints(
        "database_url: mysql://u:hunter2@h/d\nadmin_key: [hunter2]\nserver: {port: '${P}'}\n"
        "models: [{name: x, deployments: [{id: a, headers: hunter2, weight: '${P}'}]}]\n",
        P="hunter2",
    )
    assert len(found) == 5
    assert "hunter2" not in "\n".join(found)
    assert "penstock.yaml:3: server.port: expected a whole number, found the value of ${P}" in found


def test_a_flag_over_a_broken_section_reports_the_section(complaints: Complaints) -> None:
    """The file's mistake is not hidden by a flag."""
    assert complaints("server: 5\n", {"--port": 1}) == [
        "penstock.yaml:1: server: expected a mapping (lines of `key: value`), found the number 5"
    ]


def test_a_wrong_flag_is_named_as_flag(complaints: Complaints) -> None:
    """Where a value comes from is where its complaint points."""
    assert complaints("", {"--port": 70000}) == [
        "flag --port: server.port: should be less than or equal to 65535, found the number 70000"
    ]


def test_numbers_from_the_environment_become_numbers(loaded: Load) -> None:
    """A reference gives text; the field decides what it wants."""
    settings = loaded("server:\n  port: ${P}\nrecords:\n  enabled: ${R:-false}\n", P="4001").settings
    assert settings.server.port == 4001
    assert settings.records.enabled is False


def test_a_router_that_leads_nowhere_is_a_mistake(complaints: Complaints, loaded: Load) -> None:
    """Also one that leads to a router, or has what its models should have. Engines and adapters are models, too."""
    assert complaints(
        "models:\n"
        "  - name: auto\n"
        "    strategy: cost\n"
        "    router:\n"
        "      classifier: c\n"
        "      labels: {a: auto, b: smal, c: gpt-9}\n"
        "      otherwise: other\n"
        "  - {name: gpt-*, deployments: [{id: d}], fallbacks: [auto]}\n"
        "  - {name: more, aliases: [other], router: {classifier: c, labels: {a: gpt-5}, otherwise: gpt-5}}\n"
        "  - {name: less, router: {labels: [5], otherwise: 7}}\n"
    ) == [
        "penstock.yaml:4: models[0].router: a router has no strategy: that is for the models that it leads to",
        'penstock.yaml:6: models[0].router.labels.a: "auto" is a router: a router leads to models that answer',
        'penstock.yaml:6: models[0].router.labels.b: there is no model "smal"',
        'penstock.yaml:7: models[0].router.otherwise: "other" is a router: a router leads to models that answer',
        'penstock.yaml:8: models[1].fallbacks[0]: "auto" is a router, which cannot stand in for a model: name one of its models',
        'penstock.yaml:10: models[3].router: missing key "classifier"',
        "penstock.yaml:10: models[3].router.labels: expected a mapping (lines of `key: value`), found a list",
        "penstock.yaml:10: models[3].router.otherwise: expected text, found the number 7; put it in quotes",
    ]
    result = loaded(
        "models: [{name: auto, router: {classifier: c, labels: {a: tuned}, otherwise: local}}]\n"
        "engines: [{name: vllm, kind: vllm, model: m, serves: local, lora: [{name: tuned, path: /x}]}]\n"
    )
    assert [warning for warning in result.warnings if "models[" in warning] == []


def test_doubtful_values_are_warned_of(loaded: Load) -> None:
    """A key variable that nobody set, a model without deployments, a fallback that is not there, a short admin key."""
    result = loaded(
        "models:\n  - name: a\n    fallbacks: [bb]\n  - name: bbc\n    deployments: [{id: d, api_key: '${NO_KEY}'}]\n",
        PENSTOCK_ADMIN_KEY="short",
    )
    assert [w for w in result.warnings if "not in force" not in w] == [
        "penstock.yaml:2: models[0] has no deployments, so that every call of it fails",
        'penstock.yaml:3: models[0].fallbacks[0]: no model "bb" in this file; did you mean "bbc"?',
        "penstock.yaml:5: models[1].deployments[0].api_key: NO_KEY is not set; calls that need it fail until it is",
        "environment PENSTOCK_ADMIN_KEY: admin_key: shorter than 16 characters, which can be guessed",
    ]


def test_names_that_lead_somewhere_are_not_doubted(loaded: Load) -> None:
    """An alias, a wildcard and what an engine serves may be fallen back on; a shadow of nothing is one more typing error."""
    result = loaded(
        "models:\n"
        "  - name: a\n"
        "    deployments: [{id: a}]\n"
        "    fallbacks: [other, gpt-5, local]\n"
        "    shadow: {model: bx, share: 0.1}\n"
        "  - {name: b, aliases: [other], deployments: [{id: b}]}\n"
        "  - {name: gpt-*, deployments: [{id: c}]}\n"
        "engines: [{name: vllm, kind: vllm, model: m, serves: local}]\n"
    )
    assert [warning for warning in result.warnings if "models[" in warning] == [
        'penstock.yaml:5: models[0].shadow.model: no model "bx" in this file; did you mean "b"?'
    ]


def test_what_is_not_in_force_is_named_where_it_was_set(loaded: Load) -> None:
    """A contract of a later version is not a typing error, and not a promise either."""
    waiting = (("models[].later", None), ("mode", frozenset({"new"})))
    data: dict[str, object] = {"models": [{"later": None}, {"later": {"a": 1}}, {"later": {"a": 2}}], "mode": "new"}
    paths: list[tuple[str | int, ...]] = [
        ("models", 0, "later"),
        ("models", 1, "later"),
        ("models", 2, "later"),
        ("mode",),
    ]
    assert list(not_in_force(data, paths, waiting)) == [
        (("models", 1, "later"), "accepted, not in force in this version: models[1].later and 1 more"),
        (("mode",), "accepted, not in force in this version: mode (new)"),
    ]
    assert loaded("cache: {exact: {ttl_s: 60}}\nmodels: [{name: a, deployments: [{id: x}]}]\n").warnings == ()


def test_a_cache_in_redis_needs_one(loaded: Load) -> None:
    """`auto` takes what there is."""
    text = "models: [{name: a, deployments: [{id: x}]}]\ncache: {exact: {}, store: redis}\n"
    with pytest.raises(ConfigError, match="needs a redis_url"):
        loaded(text)
    assert loaded(text + "redis_url: redis://127.0.0.1:6379/0\n").settings.cache is not None


def test_a_fallback_may_be_found_by_a_wildcard(loaded: Load) -> None:
    """`gpt-*` answers for gpt-4o."""
    result = loaded(
        "models:\n  - {name: a, fallbacks: [gpt-4o], deployments: [{id: x}]}\n"
        "  - {name: 'gpt-*', deployments: [{id: y}]}\n"
    )
    assert result.warnings == ()


def test_settings_do_not_show_secrets_when_printed(loaded: Load) -> None:
    """They end up in logs and tracebacks."""
    result = loaded(
        "database_url: postgresql://u:hunter2@h/d\nredis_url: redis://:hunter2@h\nadmin_key: hunter2hunter2hunter2\n"
        "models: [{name: x, deployments: [{id: a, api_key: hunter2, headers: {a: hunter2}}]}]\n",
        PENSTOCK_SECRET_KEY="hunter2",
    )
    assert "hunter2" not in repr(result)


def test_each_row_of_what_is_not_in_force_names_a_real_key() -> None:
    """A row that a rename left behind would warn of nothing."""
    for pattern, _ in NOT_IN_FORCE:
        *sections, key = pattern.replace("[]", ".0").split(".")
        assert key in known_keys(Settings, tuple(int(s) if s == "0" else s for s in sections))


keys = st.sampled_from(["models", "name", "deployments", "id", "server", "port", "fallbacks", "cache", "x", "provider"])
leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("${A}") | st.just("chat")
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(keys, trees, max_size=4), st.sampled_from([{}, {"--port": "x"}, {"--port": 1}]))
def test_any_tree_loads_or_is_refused_with_reasons(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object], flags: Flags
) -> None:
    """Whatever stands where, the answer is Settings or a ConfigError with at least one problem."""
    file = tmp_path_factory.mktemp("config") / "c.yaml"
    file.write_text(yaml.safe_dump(tree))
    with contextlib.suppress(ConfigError):
        assert load({"--config": str(file), **flags}, {}).settings.server.port < 65_536
