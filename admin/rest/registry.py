"""`/admin/v1/registry`: classic models, their versions, and the names that lead to one."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from sqlalchemy import Connection

from admin.api.wire import checked
from admin.registry_history import RENAME, history
from admin.rest import registry_form
from admin.rest.control import Asker, Control
from admin.rest.errors import documented
from admin.rest.registry_bodies import (
    AliasBody,
    AliasView,
    ApprovalBody,
    ApprovalView,
    Gone,
    HistoryView,
    ModelBody,
    ModelChangeBody,
    ModelView,
    ProfileView,
    PublishBody,
    PublishedView,
    VersionBody,
    VersionChangeBody,
    VersionView,
    alias_view,
    approval_view,
    gates,
    history_view,
    lineage,
    model_view,
    version_view,
)
from admin.rest.registry_form import Form
from admin.rest.wire import After, Limit, ListPage, StrictRoute
from gateway.database import record_revision
from gateway.errors import BadRequest
from gateway.ids import new_id
from inference.errors import NotFound
from inference.registry import alias_store, version_store
from inference.registry.names import NAME, require_alias, require_name
from inference.registry.records import NewVersion
from inference.registry.registrar import Offer, Registrar

Name = Annotated[str, InPath(pattern=NAME)]
Number = Annotated[int, InPath(ge=1, le=2_147_483_647)]
AliasPath = Annotated[str, InPath(min_length=1, max_length=64)]
_FORM = {
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["artifact", "metadata"],
                "properties": {
                    "artifact": {"type": "string", "format": "binary"},
                    "metadata": {"type": "string", "description": "JSON: runtime, alias, signature, lineage, …"},
                    "reference": {
                        "type": "string",
                        "format": "binary",
                        "description": "Training data: CSV or Parquet.",
                    },
                },
            }
        }
    },
    "required": True,
}


def router(control: Control, registrar: Registrar) -> APIRouter:
    routes = APIRouter(prefix="/registry", tags=["registry"], route_class=StrictRoute)
    _models(routes, control)
    _history(routes, control)
    _registration_of(routes, control, registrar)
    _versions(routes, control)
    _files(routes, control, registrar)
    _approvals(routes, control)
    _aliases(routes, control)
    return routes


def _models(routes: APIRouter, control: Control) -> None:
    @routes.get("", summary="List classic models by name", responses=documented())
    async def listed(
        limit: Limit = 100, after: Annotated[str | None, Query(pattern=NAME)] = None
    ) -> ListPage[ModelView]:
        def work(tx: Connection) -> ListPage[ModelView]:
            found = version_store.list_models(tx, limit, after)
            views = [_model(tx, each.name) for each in found]
            return ListPage[ModelView].cut(views, limit, lambda one: one.name)

        return await control.read(work)

    @routes.post(
        "",
        summary="Add a classic model without a version",
        status_code=201,
        response_model=ModelView,
        responses=documented(409),
    )
    async def create(request: Request, asker: Asker, body: ModelBody) -> Response:
        def work(tx: Connection) -> tuple[str, ModelView]:
            revision = record_revision(tx, f"classic model {body.name} created")
            version_store.create_model(tx, body.name, revision)
            version_store.change_model(
                tx, body.name, revision, description=body.description, tags=body.tags, gates=gates(body.gates)
            )
            return body.name, _model(tx, body.name)

        return await control.create(request, asker, "classic_model.create", work)

    @routes.get("/{name}", summary="Show a classic model", responses=documented(404))
    async def show(name: Name) -> ModelView:
        return await control.read(lambda tx: _model(tx, name))

    @routes.patch("/{name}", summary="Change a classic model's name, words or gates", responses=documented(404, 409))
    async def change(name: Name, asker: Asker, body: ModelChangeBody) -> ModelView:
        renamed = body.name is not None and body.name != name
        called = body.name or name

        def work(tx: Connection) -> ModelView:
            revision = record_revision(tx, f"classic model {name} changed")
            if renamed:
                version_store.rename_model(tx, name, called, revision)
            version_store.change_model(
                tx, called, revision, description=body.description, tags=body.tags, gates=gates(body.gates)
            )
            return _model(tx, called)

        action = RENAME if renamed else "classic_model.change"
        return await control.change(asker, action, called, work, before=lambda tx: _model(tx, name))

    @routes.delete("/{name}", summary="Delete a classic model that no alias leads to", responses=documented(404, 409))
    async def delete(name: Name, asker: Asker) -> Gone:
        def work(tx: Connection) -> None:
            version_store.remove_model(tx, name)
            record_revision(tx, f"classic model {name} deleted")

        await control.delete(asker, "classic_model.delete", name, work, before=lambda tx: _model(tx, name))
        return Gone(name=name)


def _history(routes: APIRouter, control: Control) -> None:
    @routes.get("/{name}/history", summary="List who did what with a model, newest first", responses=documented(404))
    async def happened(name: Name, limit: Limit = 100, after: After = None) -> ListPage[HistoryView]:
        found = await control.read(lambda tx: history(tx, name, limit, after))
        if not found.data and after is None:
            await control.read(lambda tx: version_store.find_model(tx, name))
        views = [history_view(each) for each in found.data]
        return ListPage[HistoryView](data=views, has_more=found.next is not None, next=found.next)


def _registration_of(routes: APIRouter, control: Control, registrar: Registrar) -> None:
    @routes.post(
        "/{name}/versions",
        summary="Register a version",
        status_code=201,
        response_model=VersionView,
        responses=documented(409, 413),
        openapi_extra={"requestBody": _FORM},
    )
    async def register(request: Request, name: Name, asker: Asker) -> Response:
        require_name(name)
        with registrar.artefacts.aside() as folder:
            form = await registry_form.receive(
                request.headers.get("content-type", ""), request.stream(), folder, registrar.most_bytes
            )
            body = checked(VersionBody, _json(form.metadata))
            new = await asyncio.to_thread(_examined, registrar, body, form, folder)
        asked = msgspec.json.encode({"source": new.source.digest, "metadata": body.model_dump(mode="json")})
        work = _registration(name, new, body.alias, asker.actor)
        return await control.create(request, asker, "classic_version.register", work, body=asked)


def _versions(routes: APIRouter, control: Control) -> None:
    @routes.get("/{name}/versions", summary="List a model's versions, newest first", responses=documented(404))
    async def listed(
        name: Name, limit: Limit = 100, after: Annotated[int | None, Query(ge=1, le=2_147_483_647)] = None
    ) -> ListPage[VersionView]:
        def work(tx: Connection) -> ListPage[VersionView]:
            found = version_store.list_versions(tx, name, limit, after)
            leading = _leading(tx, name)
            views = [version_view(each, leading.get(each.version, [])) for each in found]
            return ListPage[VersionView].cut(views, limit, lambda one: str(one.version))

        return await control.read(work)

    @routes.get("/{name}/versions/{version}", summary="Show a version", responses=documented(404))
    async def show(name: Name, version: Number) -> VersionView:
        return await control.read(lambda tx: _version(tx, name, version))

    @routes.patch(
        "/{name}/versions/{version}", summary="Change a version's words, or archive it", responses=documented(404, 409)
    )
    async def change(name: Name, version: Number, asker: Asker, body: VersionChangeBody) -> VersionView:
        def work(tx: Connection) -> VersionView:
            revision = record_revision(tx, f"classic model {name} version {version} changed")
            version_store.change_version(tx, name, version, revision, description=body.description, tags=body.tags)
            if body.archived is not None:
                version_store.archive(tx, name, version, revision, archived=body.archived)
            return _version(tx, name, version)

        before = _shown(name, version)
        return await control.change(asker, "classic_version.change", f"{name}/{version}", work, before=before)

    @routes.delete(
        "/{name}/versions/{version}", summary="Delete a version that no alias leads to", responses=documented(404, 409)
    )
    async def delete(name: Name, version: Number, asker: Asker) -> Gone:
        def work(tx: Connection) -> None:
            revision = record_revision(tx, f"classic model {name} version {version} deleted")
            version_store.remove_version(tx, name, version, revision)

        await control.delete(asker, "classic_version.delete", f"{name}/{version}", work, before=_shown(name, version))
        return Gone(name=name, version=version)


def _files(routes: APIRouter, control: Control, registrar: Registrar) -> None:
    @routes.get(
        "/{name}/versions/{version}/profile",
        summary="Show what its training data looked like",
        responses=documented(404),
    )
    async def profile(name: Name, version: Number) -> ProfileView:
        found = await control.read(lambda tx: version_store.profile(tx, name, version))
        if found is None:
            raise NotFound(f"Version {version} of {name!r} has no reference profile.", code="profile_not_found")
        return ProfileView.model_validate(found)

    @routes.get(
        "/{name}/versions/{version}/artifact",
        summary="Download an artefact",
        response_class=FileResponse,
        responses=documented(404),
    )
    async def artifact(name: Name, version: Number, of: Literal["source", "served"] = "source") -> FileResponse:
        found = await control.read(lambda tx: version_store.find_version(tx, name, version))
        digest = found.source.digest if of == "source" else found.digest
        path = registrar.artefacts.path(digest)
        if not path.is_file():
            raise NotFound(f"The artefact {digest[:12]}… is not in this server's folder.", code="artefact_missing")
        filename = found.source.filename if of == "source" else f"{name}-{version}.{found.runtime}"
        return FileResponse(
            path, media_type="application/octet-stream", filename=filename, headers={"digest": f"sha-256={digest}"}
        )

    @routes.post(
        "/{name}/versions/{version}/publish",
        summary="Publish a version at MLflow",
        response_model=PublishedView,
        responses=documented(404),
    )
    async def publish(request: Request, name: Name, version: Number, asker: Asker, body: PublishBody) -> Response:
        found = await control.read(lambda tx: version_store.find_version(tx, name, version))
        with registrar.artefacts.aside() as folder:
            number = await asyncio.to_thread(registrar.published, found, folder, body.alias)
        view = PublishedView(name=name, version=number, uri=f"models:/{name}/{number}")
        return await control.create(
            request, asker, "classic_version.publish", lambda _: (f"{name}/{version}", view), 200
        )


def _approvals(routes: APIRouter, control: Control) -> None:
    @routes.get("/{name}/versions/{version}/approvals", summary="List a version's approvals", responses=documented(404))
    async def listed(name: Name, version: Number) -> ListPage[ApprovalView]:
        def work(tx: Connection) -> ListPage[ApprovalView]:
            version_store.find_version(tx, name, version)
            views = [approval_view(each) for each in alias_store.approvals_of(tx, name, version)]
            return ListPage[ApprovalView](data=views, has_more=False, next=None)

        return await control.read(work)

    @routes.post(
        "/{name}/versions/{version}/approvals",
        summary="Approve a version for an alias",
        status_code=201,
        response_model=ApprovalView,
        responses=documented(404, 409),
    )
    async def approve(request: Request, name: Name, version: Number, asker: Asker, body: ApprovalBody) -> Response:
        def work(tx: Connection) -> tuple[str, ApprovalView]:
            made = alias_store.approve(
                tx, new_id("approval"), name, version, body.alias, asker.actor, asker.role, body.comment
            )
            return f"{name}/{version}", approval_view(made)

        return await control.create(request, asker, "classic_version.approve", work)

    @routes.delete(
        "/{name}/versions/{version}/approvals/{alias}", summary="Take your own approval back", responses=documented(404)
    )
    async def withdraw(name: Name, version: Number, alias: AliasPath, asker: Asker) -> Gone:
        def work(tx: Connection) -> None:
            alias_store.withdraw(tx, name, version, alias, asker.actor)

        await control.delete(asker, "classic_version.withdraw", f"{name}/{version}", work, before=_shown(name, version))
        return Gone(name=name, version=version, alias=alias)


def _aliases(routes: APIRouter, control: Control) -> None:
    @routes.get("/{name}/aliases", summary="List a model's aliases", responses=documented(404))
    async def listed(name: Name) -> ListPage[AliasView]:
        def work(tx: Connection) -> ListPage[AliasView]:
            version_store.find_model(tx, name)
            views = [alias_view(each) for each in alias_store.listed(tx, name)]
            return ListPage[AliasView](data=views, has_more=False, next=None)

        return await control.read(work)

    @routes.get("/{name}/aliases/{alias}", summary="Show where an alias leads", responses=documented(404))
    async def show(name: Name, alias: AliasPath) -> AliasView:
        return await control.read(lambda tx: alias_view(alias_store.find(tx, name, alias)))

    @routes.put("/{name}/aliases/{alias}", summary="Make an alias lead to a version", responses=documented(404, 409))
    async def move(name: Name, alias: AliasPath, asker: Asker, body: AliasBody) -> AliasView:
        require_alias(alias)

        def work(tx: Connection) -> AliasView:
            revision = record_revision(tx, f"classic model {name} alias {alias} to version {body.version}")
            return alias_view(alias_store.move(tx, name, alias, body.version, asker.actor, revision))

        def before(tx: Connection) -> AliasView:
            return alias_view(alias_store.find(tx, name, alias))

        known = await control.read(lambda tx: any(each.alias == alias for each in alias_store.listed(tx, name)))
        return await control.change(
            asker, "classic_alias.set", f"{name}/{alias}", work, before=before if known else None
        )

    @routes.delete("/{name}/aliases/{alias}", summary="Delete an alias", responses=documented(404))
    async def delete(name: Name, alias: AliasPath, asker: Asker) -> Gone:
        def work(tx: Connection) -> None:
            revision = record_revision(tx, f"classic model {name} alias {alias} deleted")
            alias_store.remove(tx, name, alias, revision)

        await control.delete(
            asker,
            "classic_alias.delete",
            f"{name}/{alias}",
            work,
            before=lambda tx: alias_view(alias_store.find(tx, name, alias)),
        )
        return Gone(name=name, alias=alias)


def _examined(registrar: Registrar, body: VersionBody, form: Form, folder: Path) -> NewVersion:
    """Blocks. Raises InferenceError, BadRequest."""
    given = "artifact" in form.files
    if given is (body.uri is not None):
        raise BadRequest(
            "Send a file in `artifact`, or name one at MLflow in `metadata.uri`: one of them, not both",
            param="artifact",
            code="missing_required_parameter" if not given else "invalid_value",
        )
    offer = _offer(body, form)
    return registrar.examined(offer if body.uri is None else registrar.fetched(body.uri, offer, folder), folder)


def _json(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(f"metadata: this is not valid JSON: {error}", param="metadata", code="invalid_json") from None


def _offer(body: VersionBody, form: Form) -> Offer:
    reference: Path | None = form.files.get("reference")
    return Offer(
        runtime=body.runtime,
        artefact=form.files.get("artifact", Path()),
        filename=form.names.get("artifact", ""),
        reference=reference,
        digest=body.digest,
        inputs=None if body.signature is None else tuple(each.column() for each in body.signature.inputs),
        example=body.input_example,
        target=body.target,
        classes=body.classes,
        convert=body.convert,
        quantise=None if body.quantise is None else body.quantise.max_loss,
        lineage=lineage(body.lineage),
        facts={} if body.price is None else {"price": body.price.model_dump()},
        description=body.description,
        tags=body.tags,
    )


def _registration(
    name: str, new: NewVersion, alias: str | None, actor: str
) -> Callable[[Connection], tuple[str, VersionView]]:
    def work(tx: Connection) -> tuple[str, VersionView]:
        revision = record_revision(tx, f"classic model {name} registered")
        made = version_store.add_version(tx, name, new, actor, revision)
        if alias is not None:
            alias_store.move(tx, name, alias, made.version, actor, revision)
        return f"{name}/{made.version}", _version(tx, name, made.version)

    return work


def _model(tx: Connection, name: str) -> ModelView:
    found = version_store.find_model(tx, name)
    newest = version_store.list_versions(tx, name, 1)
    aliases = {each.alias: each.version for each in alias_store.listed(tx, name)}
    return model_view(found, aliases, newest[0].version if newest else None)


def _version(tx: Connection, name: str, number: int) -> VersionView:
    return version_view(version_store.find_version(tx, name, number), _leading(tx, name).get(number, []))


def _shown(name: str, number: int) -> Callable[[Connection], VersionView]:
    return lambda tx: _version(tx, name, number)


def _leading(tx: Connection, name: str) -> Mapping[int, list[str]]:
    """The aliases of each version."""
    found: dict[int, list[str]] = {}
    for each in alias_store.listed(tx, name):
        found.setdefault(each.version, []).append(each.alias)
    return found
