"""A LiteLLM `config.yaml` as a `penstock.yaml`, with an account of every field: taken over, changed on the way, left to a person, or lost.
What no rule speaks of is reported as unsupported. Values of secrets never appear in the account."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from admin import litellm_fields as fields
from admin.config_file import Document, KeyPath, parse
from admin.litellm_account import DOLLAR, ENVIRON, Account, Finding, escaped, listed, mapping, numeric, reference, truth
from admin.litellm_fields import Status
from admin.yaml_text import yaml_text
from gateway.providers import PROVIDERS


@dataclass(frozen=True, slots=True)
class Imported:
    """`configuration` is the text of a penstock.yaml."""

    configuration: str
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class _Deployment:
    path: KeyPath
    spec: dict[str, Any]
    provider: str


@dataclass(slots=True)
class _Model:
    spec: dict[str, Any]
    deployments: list[_Deployment] = field(default_factory=list)
    timeouts: dict[str, float] = field(default_factory=dict)
    retries: dict[str, float] = field(default_factory=dict)


def import_litellm(content: bytes, file: str) -> Imported:
    """Raises ConfigError where there is no YAML mapping at all."""
    document = parse(content.replace(b"$", DOLLAR.encode()), file, {})
    return _Import(document).run()


class _Import:
    """One pass over the document. Each rule takes a path, writes its part of the result and notes what it did."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._account = Account(document)
        self._models: dict[str, _Model] = {}
        self._root: dict[str, Any] = {}
        self._ids: set[str] = set()
        self._credentials: dict[str, Mapping[str, Any]] = {}

    def run(self) -> Imported:
        data = self._document.data
        for problem in self._document.problems:
            self._account.note(problem.path, "manual", problem.message)
        self._read_credentials(data.get("credential_list"))
        for index, entry in enumerate(listed(data.get("model_list"))):
            self._model(("model_list", index), mapping(entry))
        self._general(("general_settings",), mapping(data.get("general_settings")))
        # router_settings comes first: what it says of retries and timeouts stays.
        for section in ("router_settings", "litellm_settings"):
            self._settings((section,), mapping(data.get(section)))
        self._aliases()
        self._account.rest()
        text = yaml_text(escaped(self._result()))
        return Imported(text, self._account.findings)

    # --- model_list ---

    def _model(self, path: KeyPath, entry: Mapping[str, Any]) -> None:
        name, params = entry.get("model_name"), dict(mapping(entry.get("litellm_params")))
        if not isinstance(name, str) or not params.get("model"):
            self._account.note(path, "manual", "an entry needs model_name and litellm_params.model")
            return
        public = re.sub(r"\s+", "-", name.strip())
        place = (*path, "litellm_params")
        credential = params.pop("litellm_credential_name", None)
        if credential is not None:
            known = credential in self._credentials
            self._account.note(
                (*place, "litellm_credential_name"),
                "converted" if known else "manual",
                "its values are written here" if known else f'no credential "{credential}" in this file',
            )
            params = {**self._credentials.get(credential, {}), **params}
        if "*" in public[:-1]:
            self._account.note((*path, "model_name"), "unsupported", "a wildcard stands at the end of a name")
            self._left_out(path, entry)
            return
        target = self._target((*place, "model"), params)
        if target is None:
            self._left_out(path, entry)
            return
        provider, model = target
        found = self._models.setdefault(public, _Model({"name": public}))
        renamed = public != name
        self._account.note(
            (*path, "model_name"),
            "converted" if renamed else "exact",
            "names have no spaces" if renamed else f"models[].name: {public}",
        )
        info = mapping(entry.get("model_info"))
        spec: dict[str, Any] = {"id": self._id(public, info.get("id")), "provider": provider}
        if provider == "openai" and params.get("custom_llm_provider"):
            self._account.note((*place, "custom_llm_provider"), "exact", "deployments[].provider")
        if model != "*":
            spec["model"] = model
        deployment = _Deployment(path, spec, provider)
        self._params(place, params, found, deployment)
        self._info((*path, "model_info"), info, deployment)
        wanted = params.get("api_base") or params.get("base_url")
        if "base_url" not in spec and (wanted or not PROVIDERS[provider].placed):
            # Without its address it would call, and pay, somebody else.
            self._account.note((*place, "model"), "manual", f"{provider} needs an address in api_base; left out")
            if not found.deployments:
                del self._models[public]
            return
        if spec.get("price") and "input" not in spec["price"] and "output" in spec["price"]:
            del spec["price"]
            self._account.note((*place, "output_cost_per_token"), "manual", "a price needs its input, too")
        found.deployments.append(deployment)

    def _left_out(self, path: KeyPath, entry: Mapping[str, Any]) -> None:
        """Each field of an entry that cannot be taken over."""
        places = [(*path, key) for key in entry if key not in {"litellm_params", "model_info"}]
        places += [(*path, part, key) for part in ("litellm_params", "model_info") for key in mapping(entry.get(part))]
        for place in places:
            if self._account.status(place) is None:
                self._account.note(place, "unsupported", "left out with its deployment")

    def _target(self, path: KeyPath, params: Mapping[str, Any]) -> tuple[str, str] | None:
        """Our provider and its name for the model."""
        written = str(params["model"])
        prefix, slash, rest = written.partition("/")
        named = params.get("custom_llm_provider")
        if isinstance(named, str):
            prefix, rest = named, written.removeprefix(f"{named}/")
        elif not slash or (prefix not in fields.PROVIDERS and prefix not in fields.OTHER_PROVIDERS):
            prefix, rest = self._bare(written, params), written
        provider = fields.PROVIDERS.get(prefix)
        if prefix in fields.OTHER_PROVIDERS:
            provider, rest = "litellm", f"{prefix}/{rest}"
        elif provider is None:
            self._account.note(path, "unsupported", f'no adapter for "{prefix}"; this deployment is left out')
            return None
        if "*" in rest and rest.index("*") < len(rest) - 1:
            self._account.note(
                path, "unsupported", "a wildcard stands at the end of a name; this deployment is left out"
            )
            return None
        if rest == "*" and prefix == written:
            self._account.note(
                path, "manual", "every name goes to one provider here: openai; add a model for each other provider"
            )
        else:
            status: fields.Status = "exact" if provider == prefix else "converted"
            self._account.note(path, status, f"provider: {provider}, model: {rest}")
        return provider, rest

    def _bare(self, name: str, params: Mapping[str, Any]) -> str:
        if params.get("api_base") or name == "*":
            return "openai"
        return next((provider for start, provider in fields.BARE_NAMES if name.startswith(start)), name)

    def _params(self, path: KeyPath, params: Mapping[str, Any], model: _Model, deployment: _Deployment) -> None:
        spec = deployment.spec
        for key, value in params.items():
            place = (*path, key)
            match key:
                case "model" | "custom_llm_provider":
                    continue
                case "api_key":
                    self._account.text(place, spec, "api_key", value)
                case "api_base" | "base_url":
                    self._address(place, spec, value, deployment.provider)
                case "api_version" if deployment.provider == "azure":
                    self._account.note(place, "converted", "Azure's v1 address needs no version")
                case _ if fields.is_header(key, through=PROVIDERS[deployment.provider].litellm is not None):
                    self._headers(place, spec.setdefault("headers", {}), value)
                case "weight":
                    self._account.number(place, spec, "weight", value)
                case "order":
                    self._account.number(place, spec, "order", value, least=1, whole=True)
                case "timeout" | "stream_timeout":
                    self._timeout(place, model.timeouts, key, value)
                case "num_retries" | "max_retries":
                    self._account.number(
                        place, model.retries, "attempts", value, whole=True, most=10, status="converted"
                    )
                case "silent_model" if isinstance(value, str) and re.fullmatch(r"\S+", value):
                    model.spec["shadow"] = {"model": value, "share": 1}
                    self._account.note(place, "converted", "models[].shadow with a share of 1")
                case _:
                    self._amount(place, key, value, spec)

    def _headers(self, path: KeyPath, headers: dict[str, str], value: Any) -> None:
        if isinstance(value, Mapping):
            headers |= {str(name): str(reference(text)) for name, text in value.items()}
            self._account.note(path, "exact", "deployments[].headers")
        elif name := fields.header(str(path[-1]), value):
            headers[name] = str(reference(value))
            self._account.note(path, "converted", f"deployments[].headers.{name}")
        else:
            self._account.note(path, "manual", "expected names with values")

    def _info(self, path: KeyPath, info: Mapping[str, Any], deployment: _Deployment) -> None:
        for key, value in info.items():
            place = (*path, key)
            if key == "id":
                same = deployment.spec["id"] == value
                self._account.note(
                    place, "exact" if same else "converted", f"deployments[].id: {deployment.spec['id']}"
                )
            elif key.startswith("supports_"):
                self._account.note(place, "unsupported", "what a model can do is known from the bundled map")
            else:
                self._amount(place, key, value, deployment.spec)

    def _amount(self, path: KeyPath, key: str, value: Any, spec: dict[str, Any]) -> None:
        """Limits, sizes and prices, which stand in litellm_params as well as in model_info."""
        if key in fields.LIMITS:
            self._account.number(path, spec.setdefault("limits", {}), fields.LIMITS[key], value, least=1, whole=True)
        elif key in fields.SIZES:
            self._account.number(path, spec, fields.SIZES[key], value, least=1, whole=True)
        elif key in fields.TOKEN_PRICES:
            price, ours = spec.setdefault("price", {}), fields.TOKEN_PRICES[key]
            number = numeric(value)
            if self._account.number(path, price, ours, value, status="converted", most=1) and number is not None:
                price[ours] = float(f"{number * 1_000_000:.12g}")
        elif key in fields.UNIT_PRICES:
            self._account.number(
                path, spec.setdefault("price", {}), fields.UNIT_PRICES[key], value, status="converted", most=1_000_000
            )
        else:
            self._account.known(path, key, value)

    def _address(self, path: KeyPath, spec: dict[str, Any], value: Any, provider: str) -> None:
        if not isinstance(value, str):
            self._account.note(path, "manual", "expected an address")
            return
        later = value.startswith(ENVIRON)
        address = str(reference(value)).rstrip("/")
        if not later and not re.match(r"https?://[^/\s]", address):
            self._account.note(path, "manual", "expected an address that starts with http:// or https://")
            return
        added = "/openai/v1" if provider == "azure" and not address.endswith("/openai/v1") else ""
        added = "/v1" if provider == "ollama" and not address.endswith("/v1") else added
        spec["base_url"] = address + added
        message = f"deployments[].base_url{f', with {added}' if added else ''}"
        if later:
            message += f"; {value.removeprefix(ENVIRON)} must be set when the file is read"
        self._account.note(path, "converted" if added or later else "exact", message)

    # --- settings ---

    def _general(self, path: KeyPath, section: Mapping[str, Any]) -> None:
        for key, value in section.items():
            place = (*path, key)
            if key == "master_key":
                self._account.text(place, self._root, "admin_key", value)
            elif key == "disable_spend_logs" and truth(value) is True:
                self._root["records"] = {"enabled": False}
                self._account.note(place, "converted", "records.enabled: false")
            else:
                self._account.known(place, key, value)

    def _settings(self, path: KeyPath, section: Mapping[str, Any]) -> None:
        for key, value in section.items():
            if not self._routing((*path, key), key, value):
                self._serving((*path, key), key, value, section)

    def _routing(self, path: KeyPath, key: str, value: Any) -> bool:
        """What each model says for itself here. False if the field is about something else."""
        match key:
            case "routing_strategy":
                self._strategy(path, value)
            case "num_retries":
                self._retries(path, "attempts", value, most=10, whole=True)
            case "retry_after":
                self._retries(path, "base_s", value, most=60)
            case "timeout" | "request_timeout" | "stream_timeout":
                self._timeouts(path, key, value)
            case "fallbacks" | "context_window_fallbacks" | "content_policy_fallbacks":
                self._fallbacks(path, fields.FALLBACKS[key], value)
            case "default_fallbacks":
                for model in self._models.values():
                    self._fall_back(model, "fallbacks", listed(value))
                self._account.note(path, "converted", "models[].fallbacks of every model")
            case "cost_discount_config" | "cost_margin_config":
                self._factors(path, "discount" if "discount" in key else "markup", value)
            case _:
                return False
        return True

    def _serving(self, path: KeyPath, key: str, value: Any, section: Mapping[str, Any]) -> None:
        """What the whole server says."""
        match key:
            case "model_group_alias" if path[0] == "router_settings" and mapping(value):
                return  # when all models are known
            case "redis_host" | "redis_port" | "redis_password" | "redis_url":
                self._redis(path, section, "redis_")
            case "cache":
                self._cache(path, value, mapping(section.get("cache_params")))
            case "cache_params" if "cache" in section:
                return
            case "json_logs":
                self._root.setdefault("log", {})["format"] = "json" if truth(value) else "text"
                self._account.note(path, "exact", "log.format")
            case "set_verbose" | "debug_level":
                loud = truth(value) is True or str(value).upper() == "DEBUG"
                self._root.setdefault("log", {})["level"] = "debug" if loud else "info"
                self._account.note(path, "converted", "log.level")
            case _:
                self._account.known(path, key, value)

    def _strategy(self, path: KeyPath, value: Any) -> None:
        ours = fields.STRATEGIES.get(str(value))
        if ours is None:
            self._account.note(path, "unsupported", f"known here: {', '.join(fields.STRATEGIES)}")
            return
        for model in self._models.values():
            model.spec["strategy"] = ours
        self._account.note(path, "exact" if ours == "weighted" else "converted", f"models[].strategy: {ours}")

    def _retries(self, path: KeyPath, key: str, value: Any, *, most: float, whole: bool = False) -> None:
        """A setting of the router belongs to each model here; what a deployment said before stays."""
        probe: dict[str, Any] = {}
        if self._account.number(path, probe, key, value, most=most, whole=whole, status="converted"):
            for model in self._models.values():
                model.retries.setdefault(key, probe[key])

    def _timeouts(self, path: KeyPath, key: str, value: Any) -> None:
        probe: dict[str, float] = {}
        self._timeout(path, probe, key, value)
        for model in self._models.values():
            for name, seconds in probe.items():
                model.timeouts.setdefault(name, seconds)

    def _timeout(self, path: KeyPath, timeouts: dict[str, float], key: str, value: Any) -> None:
        """A stream's timeout there is the longest wait between two pieces, the first one included."""
        names = ("first_token_s", "stall_s") if key == "stream_timeout" else ("total_s",)
        for name in names:
            before = timeouts.get(name, 0)
            if self._account.number(path, timeouts, name, value, least=0.001, most=86_400, status="converted"):
                timeouts[name] = max(before, timeouts[name])
        if self._account.status(path) == "converted":
            self._account.note(
                path, "converted", f"models[].timeouts.{' and '.join(names)}, the longest of a model's deployments"
            )

    def _fallbacks(self, path: KeyPath, ours: str, value: Any) -> None:
        status: Status = "exact"
        lost: list[str] = []
        for entry in listed(value):
            for name, targets in mapping(entry).items():
                if name == "*":
                    for model in self._models.values():
                        self._fall_back(model, ours, listed(targets))
                    status = "converted"
                elif name not in self._models or not all(isinstance(target, str) for target in listed(targets)):
                    lost.append(str(name))
                if name in self._models:
                    self._fall_back(self._models[name], ours, listed(targets))
        if lost:
            self._account.note(
                path, "manual", f"models[].{ours}, but not for {', '.join(lost)}: no such model, or with other messages"
            )
        else:
            self._account.note(path, status, f"models[].{ours}")

    def _fall_back(self, model: _Model, ours: str, targets: Iterable[Any]) -> None:
        listed = model.spec.setdefault(ours, [])
        listed += [t for t in targets if _is_name(t) and t != model.spec["name"] and t not in listed]
        if not listed:
            del model.spec[ours]

    def _redis(self, path: KeyPath, section: Mapping[str, Any], prefix: str) -> None:
        url, host = section.get(f"{prefix}url"), section.get(f"{prefix}host")
        password, port = section.get(f"{prefix}password"), section.get(f"{prefix}port", 6379)
        parts = [part for part in (url, host, password, port) if part is not None]
        known = isinstance(url, str) and url.startswith(("redis://", "rediss://", "unix://", ENVIRON))
        if not (known or (url is None and isinstance(host, str))) or not all(isinstance(p, str | int) for p in parts):
            self._account.note(path, "manual", "name a redis_url such as redis://host:6379/0")
            return
        secret = f":{reference(password)}@" if password is not None else ""
        address = reference(url) if url is not None else f"redis://{secret}{reference(host)}:{reference(port)}/0"
        self._root.setdefault("redis_url", address)
        self._account.note(path, "exact" if path[-1] == "redis_url" else "converted", "redis_url")

    def _cache(self, path: KeyPath, on: Any, params: Mapping[str, Any]) -> None:
        if truth(on) is not True:
            self._account.note(path, "exact", "no cache")
            return
        semantic = "semantic" in str(params.get("type", ""))
        kind: dict[str, Any] = {}
        self._account.note(path, "converted", f"cache.{'semantic' if semantic else 'exact'}")
        place = (path[0], "cache_params")
        for key, value in params.items():
            where = (*place, key)
            if key == "ttl":
                self._account.number(where, kind, "ttl_s", value, least=0.001, most=86_400, status="converted")
            elif key == "similarity_threshold":
                self._account.number(where, kind, "threshold", value, least=0.001, most=1)
            elif key in {"host", "port", "password", "url"} and "redis" in str(params.get("type")):
                self._redis(where, params, "")
            elif key == "type":
                self._account.note(where, "converted", "where entries are kept follows from redis_url")
            else:
                self._account.known(where, key, value)
        self._root["cache"] = {"semantic" if semantic else "exact": kind}

    def _factors(self, path: KeyPath, ours: str, shares: Any) -> None:
        if not mapping(shares):
            self._account.note(path, "manual", "expected a share for each provider")
        for name, value in mapping(shares).items():
            place = (*path, name)
            share = numeric(mapping(value).get("percentage") if isinstance(value, Mapping) else value)
            if (
                share is None
                or not 0 <= share <= (1 if ours == "discount" else 100)
                or "fixed_amount" in mapping(value)
            ):
                self._account.note(
                    place, "manual", "a share of the price is known here, a fixed amount is `price.per_request`"
                )
                continue
            for deployment in self._every_deployment():
                if name in {"global", "*"} or fields.PROVIDERS.get(name) == deployment.provider:
                    deployment.spec.setdefault("price", {}).setdefault(ours, share)
            self._account.note(place, "converted", f"deployments[].price.{ours}")

    def _aliases(self) -> None:
        aliases = mapping(mapping(self._document.data.get("router_settings")).get("model_group_alias"))
        for alias, value in aliases.items():
            place = ("router_settings", "model_group_alias", alias)
            name = mapping(value).get("model") if isinstance(value, Mapping) else value
            model = self._models.get(str(name))
            if model is None or alias in self._models or re.search(r"\s", alias):
                self._account.note(place, "manual", f'no model "{name}" in this file, or the alias is taken')
                continue
            copies = [
                _Deployment(
                    each.path, {**each.spec, "id": self._id(alias, f"{each.spec['id']}@{alias}")}, each.provider
                )
                for each in model.deployments
            ]
            copied = {
                key: value for key, value in model.spec.items() if not (isinstance(value, list) and alias in value)
            }
            self._models[alias] = _Model({**copied, "name": alias}, copies, model.timeouts, model.retries)
            self._account.note(place, "converted", "a model of its own with the same deployments; limits count apart")

    # --- the account ---

    def _read_credentials(self, value: Any) -> None:
        for index, entry in enumerate(listed(value)):
            path: KeyPath = ("credential_list", index)
            name, values = mapping(entry).get("credential_name"), mapping(mapping(entry).get("credential_values"))
            if isinstance(name, str):
                self._credentials[name] = values
                self._account.note(path, "converted", "written into each deployment that names it")

    # --- the result ---

    def _result(self) -> dict[str, Any]:
        models = []
        for model in self._models.values():
            shown = dict(model.spec)
            if model.timeouts:
                shown["timeouts"] = model.timeouts
            if model.retries:
                shown["retries"] = model.retries
            shown["deployments"] = [_filled(deployment.spec) for deployment in model.deployments]
            models.append(shown)
        return {**({"models": models} if models else {}), **self._root}

    def _every_deployment(self) -> Iterator[_Deployment]:
        return (deployment for model in self._models.values() for deployment in model.deployments)

    def _id(self, name: str, wished: object) -> str:
        base = re.sub(r"\s+", "-", str(wished)) if wished else name
        found, number = (base if wished else f"{base}-1"), 1
        while found in self._ids:
            number += 1
            found = f"{base}-{number}"
        self._ids.add(found)
        return found


def _filled(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if value != {}}


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\S{1,200}", value) is not None
