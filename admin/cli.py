"""The `penstock` command: what it understands. Each command is a module of its own, imported when it is called.

Only the standard library at the top: `penstock --help` must not pay for a server.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

COMMANDS: Mapping[str, str] = {
    "serve": "admin.commands.serve",
    "migrate": "admin.commands.migrate",
    "keys": "admin.commands.keys",
    "models": "admin.commands.models",
    "engines": "admin.commands.engines",
    "doctor": "admin.commands.doctor",
    "compile": "admin.commands.compile",
    "config": "admin.commands.config",
    "ledger": "admin.commands.ledger",
    "ingest": "admin.commands.ingest",
    "search": "admin.commands.search",
    "reembed": "admin.commands.reembed",
    "collections": "admin.commands.collections",
    "replay": "admin.commands.replay",
    "predictions": "admin.commands.predictions",
    "features": "admin.commands.features",
    "distil": "admin.commands.distil",
    "eval": "admin.commands.evaluate",
}


class Command(Protocol):
    def run(self, arguments: argparse.Namespace) -> int: ...


CHUNKINGS = ("auto", "sentences", "headings", "code", "semantic")  # "auto" with --chunk-tokens is "static"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command: 0 it worked, 1 it did not (the reason is on stderr), 2 it was not understood."""
    arguments = parser().parse_args(argv)
    if arguments.version:
        return _version()
    if arguments.command is None:
        parser().print_help()
        return 2
    if arguments.command == "serve" and not arguments.interpreted:
        importlib.import_module("gateway.compiled").use()
    command = cast("Command", importlib.import_module(COMMANDS[arguments.command]))
    try:
        status = command.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `penstock models | head`; the interpreter must not try to flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # the border of the process: what we know becomes a line, what we do not is a bug
        explained = importlib.import_module("admin.commands.failures").explained(error)
        if explained is None:
            raise
        print(explained, file=sys.stderr)
        return 1
    return status


def parser() -> argparse.ArgumentParser:
    """The whole grammar in one place."""
    root = argparse.ArgumentParser(prog="penstock", description="One gate in front of every model a team uses.")
    root.add_argument("--version", action="store_true", help="print the version")
    commands = root.add_subparsers(dest="command", metavar="COMMAND")

    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--config", metavar="FILE", help="default: $PENSTOCK_CONFIG, then ./penstock.yaml if it exists")
    where.add_argument("--data-dir", metavar="DIR", help="default: ./.penstock")
    output = argparse.ArgumentParser(add_help=False)
    output.add_argument("--json", action="store_true", help="print JSON for machines")

    serve = commands.add_parser("serve", parents=[where], help="start the server")
    _listening(serve)
    serve.add_argument("--interpreted", action="store_true", help="not even what `penstock compile` made")
    serve.add_argument("--worker-index", type=int, help=argparse.SUPPRESS)
    serve.add_argument("--worker-parent", type=int, help=argparse.SUPPRESS)

    commands.add_parser("migrate", parents=[where], help="bring the database to this version's schema")
    _keys(commands.add_parser("keys", help="make, list and revoke virtual keys"), [where, output])
    _models(
        commands.add_parser("models", parents=[where, output], help="list models, register classic ones"),
        [where, output],
    )

    _engines(commands.add_parser("engines", help="list inference engines; turn them into manifests"), [where, output])

    compile_ = commands.add_parser("compile", help="make machine code of the hot path: mypyc, and a C compiler")
    compile_.add_argument("--force", action="store_true", help="again, even if nothing has changed")
    doctor = commands.add_parser("doctor", parents=[where, output], help="look for what could go wrong here")
    _listening(doctor)
    doctor.add_argument("--probe", action="store_true", help="also connect to every deployment")

    config = commands.add_parser("config", help="look at the configuration")
    actions = config.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser("check", parents=[where, output], help="every value in force, with its origin")
    _listening(check)
    imported = actions.add_parser(
        "import-litellm", parents=[output], help="turn a LiteLLM config.yaml into a penstock.yaml"
    )
    imported.add_argument("file", metavar="FILE")
    imported.add_argument(
        "--output", metavar="FILE", help="write the result here; default: print it, the report on stderr"
    )
    _documents(commands, [where, output])
    _replay(commands.add_parser("replay", parents=[where, output], help="ask recorded requests again, and compare"))
    _ledger(commands.add_parser("ledger", help="check, export and prune the record of what every call cost"), where)
    _predictions(commands.add_parser("predictions", help="captured calls of classic models"), where)
    _features(commands.add_parser("features", help="features of entities: views, rows, training sets"), [where, output])
    _distil(commands.add_parser("distil", parents=[where, output], help="learn a small model from recorded answers"))
    return root


def _features(features: argparse.ArgumentParser, parents: Sequence[argparse.ArgumentParser]) -> None:
    actions = features.add_subparsers(dest="action", metavar="ACTION", required=True)
    reach = argparse.ArgumentParser(add_help=False)
    reach.add_argument("--url", help="of a running server; default: this machine's")
    reach.add_argument("--key", metavar="SECRET", help="default: the admin key's")
    time = argparse.ArgumentParser(add_help=False)
    time.add_argument("--timestamp", metavar="COLUMN", default="event_timestamp", help="says when each row is of")
    actions.add_parser("list", parents=parents, help="every feature view, and what is in it")
    applied = actions.add_parser("apply", parents=[*parents, reach], help="make or change views, from YAML or JSON")
    applied.add_argument("file", metavar="FILE")
    rows = actions.add_parser("materialize", parents=[*parents, time], help="write rows of a table into a view, here")
    rows.add_argument("view", metavar="VIEW")
    rows.add_argument("file", metavar="FILE", help=".csv, .parquet or .json")
    joined = actions.add_parser("training-set", parents=[*parents, time], help="join features as of each row's time")
    joined.add_argument("entities", metavar="FILE", help="entities and times: .csv, .parquet or .json")
    joined.add_argument("--features", metavar="VIEW:FEATURE,…")
    joined.add_argument("--view", metavar="VIEW", help="all of its features")
    joined.add_argument("--output", metavar="FILE", required=True)
    joined.add_argument("--full-feature-names", action="store_true", help="call them view__feature")
    skew = actions.add_parser("skew", parents=[*parents, reach], help="what a model is asked, and was trained on")
    skew.add_argument("model", metavar="MODEL")
    skew.add_argument("number", metavar="VERSION", type=int)
    skew.add_argument("--window-s", metavar="SECONDS", type=float, default=86_400)


def _distil(distil: argparse.ArgumentParser) -> None:
    distil.add_argument("route", metavar="ROUTE", help="the model or route whose recorded answers are learnt")
    distil.add_argument("name", metavar="NAME", help="of the classic model to register")
    distil.add_argument("--kind", choices=("classifier", "regressor"), default="classifier")
    distil.add_argument("--agreement", metavar="SHARE", type=_share, default=0.95, help="of the answers it gives")
    distil.add_argument("--coverage", metavar="SHARE", type=_share, default=0.2, help="the least that it answers")
    distil.add_argument("--field", metavar="NAME", help="of answers in JSON, the one with the label")
    distil.add_argument("--seed", metavar="N", type=int, default=7)
    distil.add_argument("--alias", metavar="ALIAS", default="champion")
    distil.add_argument("--serve-as", metavar="MODEL", help="make it a model, with the route behind it")
    distil.add_argument("--rollout", choices=("shadow", "canary"), help="begin one, from the route to that model")
    distil.add_argument("--rollout-name", metavar="ROUTE", help="default: the route's name and -distilled")
    distil.add_argument("--url", help="of a running server; default: this machine's")
    distil.add_argument("--key", metavar="SECRET", help="default: the admin key's")


def _predictions(predictions: argparse.ArgumentParser, where: argparse.ArgumentParser) -> None:
    actions = predictions.add_subparsers(dest="action", metavar="ACTION", required=True)
    export = actions.add_parser("export", parents=[where], help="as Parquet, one file a day (extra `parquet`)")
    export.add_argument("folder", metavar="FOLDER")
    export.add_argument("--since", metavar="TIME", help="2026-11-01 or 2026-11-01T08:00:00Z")
    export.add_argument("--until", metavar="TIME", help="exclusive")
    export.add_argument("--model", metavar="NAME")


def _models(models: argparse.ArgumentParser, parents: Sequence[argparse.ArgumentParser]) -> None:
    actions = models.add_subparsers(dest="action", metavar="ACTION")
    reach = argparse.ArgumentParser(add_help=False)
    reach.add_argument("--url", help="of a running server; default: this machine's")
    reach.add_argument("--key", metavar="SECRET", help="default: the admin key's")
    register = actions.add_parser("register", parents=[*parents, reach], help="register a version of a classic model")
    register.add_argument("name", metavar="NAME")
    register.add_argument(
        "artifact",
        metavar="ARTIFACT",
        help="a file, a folder of MLflow, or models:/NAME@ALIAS, which the server fetches",
    )
    register.add_argument("--runtime", choices=("sklearn", "onnx", "xgboost", "lightgbm", "mlflow", "remote"))
    register.add_argument("--alias", metavar="ALIAS", help="set it with the registration, as in --alias champion")
    register.add_argument(
        "--reference", metavar="FILE", help="training data, CSV or Parquet: what monitors compare with"
    )
    register.add_argument("--metadata", metavar="FILE", help="JSON: signature, lineage, tags, …")
    register.add_argument("--description")
    register.add_argument("--tag", metavar="NAME=VALUE", action="append", default=[])
    register.add_argument("--metric", metavar="NAME=VALUE", action="append", default=[])
    classic = actions.add_parser(
        "classic", parents=[*parents, reach], help="list classic models and where aliases lead"
    )
    classic.add_argument("name", metavar="NAME", nargs="?")
    pull = actions.add_parser("pull", parents=parents, help="fetch a small open model from a hub, checked and resumed")
    pull.add_argument("name", metavar="NAME", help="OWNER/NAME of a hub, or a short name such as qwen2.5-0.5b-gguf")
    pull.add_argument("--file", metavar="PATTERN", action="append", help="only these files, such as '*q8_0.gguf'")
    pull.add_argument("--revision", metavar="NAME", default="main", help="a branch, tag or commit; default: main")
    pull.add_argument("--endpoint", metavar="URL", help="of a mirror; default: $HF_ENDPOINT, then the public hub")
    pull.add_argument("--output", metavar="DIR", help="default: below `hub` in the data folder")
    _score(actions.add_parser("score", parents=parents, help="predict for a whole table, here, in chunks"))
    alias = actions.add_parser("alias", parents=[*parents, reach], help="make an alias lead to a version")
    alias.add_argument("name", metavar="NAME")
    alias.add_argument("alias", metavar="ALIAS")
    alias.add_argument("number", metavar="VERSION", type=int)
    rename = actions.add_parser("rename", parents=[*parents, reach], help="call a classic model otherwise")
    rename.add_argument("name", metavar="NAME")
    rename.add_argument("new", metavar="NEW")
    history = actions.add_parser(
        "history", parents=[*parents, reach], help="who did what with a classic model, and when"
    )
    history.add_argument("name", metavar="NAME")


def _engines(engines: argparse.ArgumentParser, parents: Sequence[argparse.ArgumentParser]) -> None:
    actions = engines.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", parents=parents, help="every engine, as its supervisor last saw it")
    made = actions.add_parser("manifest", parents=parents, help="the same engines for Kubernetes or Ray Serve")
    made.add_argument("names", metavar="NAME", nargs="*", help="default: all of them")
    made.add_argument("--format", choices=("kubernetes", "ray"), default="kubernetes")
    made.add_argument("--namespace", metavar="NAME", help="of Kubernetes")
    made.add_argument("--image", metavar="NAME=IMAGE", action="append", default=[], help="for an engine, or for a kind")


def _score(score: argparse.ArgumentParser) -> None:
    score.add_argument("name", metavar="NAME", help="of a classic model, or NAME@ALIAS")
    score.add_argument("input", metavar="INPUT", help="a .csv or .parquet file, or sql:DATABASE with --query")
    score.add_argument("--output", metavar="FILE", required=True, help=".csv or .parquet, or sql:DATABASE:TABLE")
    score.add_argument("--query", metavar="SELECT", help="what to score of a database that the configuration names")
    score.add_argument("--key", metavar="COLUMN", help="what names a row; default: its number")
    score.add_argument("--version", dest="number", metavar="N", type=int, help="default: the alias's, as it is now")
    score.add_argument("--features", metavar="A,B", help="the columns, in order, of a model that takes one tensor")
    score.add_argument(
        "--refused", metavar="FILE", help="rows that the model does not take; default: beside the output"
    )
    score.add_argument(
        "--max-refused", metavar="SHARE", type=_share, default=0.1, help="more fail the job; default: 0.1"
    )
    score.add_argument(
        "--on", choices=("ray",), help="score on Ray Data instead of here; needs the extra `ray`, and files"
    )
    score.add_argument("--ray-address", metavar="ADDRESS", help="of a cluster; default: one on this machine")
    score.add_argument("--key-id", metavar="KEY", help="on whose account: a server on this data directory works on it")
    score.add_argument("--chunk-rows", metavar="N", type=_rows, default=1000, help="rows between two checkpoints")


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise ValueError(text)
    return share


def _rows(text: str) -> int:
    rows = int(text)
    if not 1 <= rows <= 1_000_000:
        raise ValueError(text)
    return rows


def _ledger(ledger: argparse.ArgumentParser, where: argparse.ArgumentParser) -> None:
    actions = ledger.add_subparsers(dest="action", metavar="ACTION", required=True)
    verify = actions.add_parser("verify", parents=[where], help="is every entry there, unchanged and once?")
    verify.add_argument("--json", action="store_true", help="print JSON for machines")
    export = actions.add_parser("export", parents=[where], help="entries as a table, with exact amounts")
    export.add_argument("--format", choices=("csv", "focus"), default="csv", help="focus: the columns of cloud bills")
    export.add_argument("--since", metavar="TIME", help="2026-11-01 or 2026-11-01T08:00:00Z")
    export.add_argument("--until", metavar="TIME", help="exclusive")
    export.add_argument("--output", metavar="FILE", help="default: standard output")
    prune = actions.add_parser("prune", parents=[where], help="forget entries of old months; the rest stays verifiable")
    prune.add_argument("--before", metavar="YYYY-MM", required=True)


def _replay(replay: argparse.ArgumentParser) -> None:
    replay.add_argument("--against", metavar="MODEL", help="a model or route to ask; default: the one that was asked")
    replay.add_argument(
        "--set",
        metavar="FIELD=VALUE",
        action="append",
        help="change the request: prompt.version=3, temperature=0; JSON or a text",
    )
    replay.add_argument("--since", metavar="TIME", help="2026-11-01T08:00:00Z; which requests: see also the next ones")
    replay.add_argument("--until", metavar="TIME", help="exclusive")
    replay.add_argument("--model", metavar="NAME", help="that was asked")
    replay.add_argument("--key-id", metavar="ID", help="that asked")
    replay.add_argument("--tag", metavar="TAG")
    replay.add_argument("--session", metavar="NAME")
    replay.add_argument("--text", metavar="TEXT", help="in what was asked or answered")
    replay.add_argument("--limit", metavar="N", type=int, default=100, help="how many, newest first; default: 100")
    replay.add_argument("--concurrency", metavar="N", type=int, default=4)
    replay.add_argument("--judge", metavar="MODEL", help="a model that says which answer is better")
    replay.add_argument("--save", metavar="FILE", help="keep requests and both answers, one JSON object per line")
    replay.add_argument("--answers", metavar="FILE", help="compare what was saved, without asking anybody")
    replay.add_argument("--url", help="of a running server; default: this machine's")
    replay.add_argument("--key", metavar="SECRET", help="who pays; default: the admin key")


def _documents(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", parents: Sequence[argparse.ArgumentParser]
) -> None:
    reach = argparse.ArgumentParser(add_help=False)
    reach.add_argument("--collection", metavar="NAME", required=True, help="a vector store, by its name or its id")
    reach.add_argument("--url", help="of a running server; default: this machine's")
    reach.add_argument("--key", metavar="SECRET", help="whose documents they are; default: the admin key's")
    ingest = commands.add_parser("ingest", parents=[*parents, reach], help="put files and folders into a collection")
    ingest.add_argument("paths", metavar="PATH", nargs="+")
    ingest.add_argument("--model", metavar="NAME", help="what embeds the collection, if it is made now")
    _chunking(ingest, "how what is sent is cut; default: auto")
    ingest.add_argument("--tenant", metavar="NAME", help="whose they are, in a collection that declares tenancy")
    ingest.add_argument(
        "--tenancy", metavar="ATTRIBUTE", help="which attribute says so, if the collection is made now; default: tenant"
    )
    ingest.add_argument("--prune", action="store_true", help="take out what is not there any more under these paths")
    search = commands.add_parser("search", parents=[*parents, reach], help="ask a collection")
    search.add_argument("query", metavar="QUERY")
    search.add_argument("-k", metavar="N", type=int, default=5, help="how many passages, up to 50")
    _searching(search)
    _evaluating(commands.add_parser("eval", parents=[*parents, reach], help="measure searches on questions"))
    _reembed(
        commands.add_parser("reembed", help="move a collection to another embedding model, or cut it anew"), parents
    )
    _collections(commands.add_parser("collections", help="what is kept: files that failed, bounds, snapshots"), parents)


def _chunking(command: argparse.ArgumentParser, explained: str) -> None:
    command.add_argument("--chunking", choices=CHUNKINGS, help=explained)
    command.add_argument(
        "--chunk-tokens", metavar="N", type=int, help="of a passage at most; default: as suits the embedding model"
    )
    command.add_argument("--children", action="store_true", help="search small pieces, and show what they are of")
    command.add_argument(
        "--context", metavar="MODEL", help="a chat model that says of each passage where it stands, to be found by"
    )


def _collections(collections: argparse.ArgumentParser, parents: Sequence[argparse.ArgumentParser]) -> None:
    reach = argparse.ArgumentParser(add_help=False)
    reach.add_argument("--url", help="of a running server; default: this machine's")
    reach.add_argument("--key", metavar="SECRET", help="of the admin plane; default: the admin key")
    actions = collections.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, explained: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, parents=[*parents, reach], help=explained)
        if name not in ("list", "documents"):
            made.add_argument("collection", metavar="COLLECTION", help="a vector store, by its name or its id")
        return made

    action("list", "every collection, newest first")
    action("show", "one of them, with its bounds and its measured recall")
    documents = action("documents", "files by what became of them, newest first")
    documents.add_argument("--collection", metavar="COLLECTION", help="default: of all of them")
    documents.add_argument("--status", choices=("in_progress", "completed", "failed", "cancelled"))
    retry = action("retry", "read files again that failed")
    retry.add_argument("files", metavar="FILE", nargs="*", help="their ids; default: all that failed")
    retry.add_argument("--key-id", metavar="ID", help="who pays; default: the key that made the collection")
    bound = action("bound", "say how much may be in it; 0: as much as there is room for")
    bound.add_argument("--passages", metavar="N", type=int)
    bound.add_argument("--mb", metavar="N", type=int, help="of texts and vectors")
    advice = action("advice", "measure on a sample what its index takes, before one is built")
    advice.add_argument("--rows", metavar="N", type=int, help="for so many passages; default: as many as there are")
    action("snapshot", "write all of it into a file with a checksum")
    action("snapshots", "those that there are")
    action("restore", "make a new collection of a snapshot").add_argument("snapshot", metavar="SNAPSHOT")
    action("delete", "delete it, and all that is in it")


def _reembed(reembed: argparse.ArgumentParser, parents: Sequence[argparse.ArgumentParser]) -> None:
    """All but `start` and `status` are of the collection's newest one."""
    reach = argparse.ArgumentParser(add_help=False)
    reach.add_argument("collection", metavar="COLLECTION", help="a vector store, by its name or its id")
    reach.add_argument("--url", help="of a running server; default: this machine's")
    reach.add_argument("--key", metavar="SECRET", help="of the admin plane; default: the admin key")
    actions = reembed.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, explained: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, parents=[*parents, reach], help=explained)

    start = action("start", "embed what is stored with another model, beside what is read")
    start.add_argument("--model", metavar="NAME", help="default: the collection's own, once more")
    start.add_argument("--dimensions", metavar="N", type=int, help="ask the model for so many")
    _chunking(start, "cut all documents anew in this way; default: passages stay as they are")
    start.add_argument("--key-id", metavar="ID", help="who pays; default: the key that made the collection")
    start.add_argument("--questions", metavar="FILE", help="as for `penstock eval`, by file ids: measure both versions")
    start.add_argument("--max-loss", metavar="X", type=float, default=0.02, help="of recall and nDCG; default: 0.02")
    start.add_argument("--auto", action="store_true", help="swap as soon as it is ready, unless the questions say no")
    start.add_argument("--keep-days", metavar="N", type=float, default=7, help="with a way back; default: 7")
    start.add_argument("--wait", action="store_true", help="show progress until it is ready")
    action("status", "all of a collection's, newest first")
    canary = action("canary", "let some keys read the new version")
    canary.add_argument("--share", metavar="X", type=float, default=0.0, help="of all keys, 0 to 1")
    canary.add_argument("--keys", metavar="ID", nargs="*", help="and these")
    promote = action("promote", "let everybody read the new version, at once")
    promote.add_argument("--force", action="store_true", help="whatever the questions say")
    for name, explained in (
        ("rollback", "let everybody read the old version again, at once"),
        ("finish", "take the old version away"),
        ("cancel", "give it up"),
        ("resume", "go on with one that failed"),
    ):
        action(name, explained).add_argument("--reason", metavar="TEXT")


def _searching(search: argparse.ArgumentParser) -> None:
    """As `POST /v1/vector_stores/{id}/search` has them."""
    search.add_argument("--filter", metavar="JSON", help='such as \'{"type": "eq", "key": "lang", "value": "en"}\'')
    search.add_argument("--tenant", metavar="NAME", help="whose documents, in a collection that declares tenancy")
    search.add_argument("--threshold", metavar="SCORE", type=float, help="leave out what scores less, 0 to 1")
    search.add_argument("--ranker", metavar="MODEL", help="rerank with it; none: not at all; default: auto")
    search.add_argument("--rewrite", action="store_true", help="let a chat model write the query")
    search.add_argument("--multi-query", metavar="N", type=int, help="ask in so many other ways as well, up to 8")
    search.add_argument("--hyde", action="store_true", help="search for an answer that a chat model makes up")
    search.add_argument("--chat-model", metavar="MODEL", help="who does the three above")
    search.add_argument("--group", metavar="N", type=int, help="a result is a file, with up to N passages")
    search.add_argument("--mmr", metavar="LAMBDA", type=float, help="less of the same: 1 relevance alone, 0 difference")
    search.add_argument("--half-life", metavar="DAYS", type=float, help="what is older by so much is worth half")
    search.add_argument("--date", metavar="ATTRIBUTE", help="says how old; default: when the file was added")
    search.add_argument("--neighbors", metavar="N", type=int, help="show so many passages before and after")
    search.add_argument("--explain", action="store_true", help="show the scores of each stage")


def _evaluating(command: argparse.ArgumentParser) -> None:
    command.add_argument("questions", metavar="FILE", help='a line each: {"query": …, "relevant": ["guide.md", …]}')
    command.add_argument(
        "--run",
        metavar="NAME[=JSON]",
        action="append",
        help="hybrid, bm25, dense, default, rerank:MODEL, or a name and fields of a search; again for another one beside it",
    )
    command.add_argument("--measures", metavar="A,B", help="of recall@k, mrr@k, ndcg@k")
    command.add_argument("--require", metavar="MEASURE=LEAST", action="append", help="else the exit status is 1")
    command.add_argument("--no-worse", action="store_true", help="nor may a run be worse than the first for certain")
    command.add_argument("--answers", metavar="MODEL", help="let it answer with citations, and check its sentences")
    command.add_argument("--judge", metavar="MODEL", help="let it judge the cited sentences as well")
    command.add_argument("--require-supported", metavar="SHARE", type=float, help="of the answers' sentences")


def _listening(command: argparse.ArgumentParser) -> None:
    command.add_argument("--host", metavar="H", help="default: 127.0.0.1")
    command.add_argument("--port", metavar="P", type=int, help="default: 4000; 0 lets the system choose")
    command.add_argument("--workers", metavar="N", type=int, help="processes that share the port, default: 1")


def _keys(keys: argparse.ArgumentParser, parents: Sequence[argparse.ArgumentParser]) -> None:
    actions = keys.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = actions.add_parser("create", parents=parents, help="make a key and show it, once")
    create.add_argument("name", metavar="NAME")
    create.add_argument("--models", metavar="A,B", help="the only models it may use; gpt-* admits every such name")
    create.add_argument("--team-id", metavar="ID")
    create.add_argument("--expires-in-days", metavar="DAYS", type=float)
    actions.add_parser("list", parents=parents, help="every key, without its secret")
    revoke = actions.add_parser("revoke", parents=parents, help="end a key, for good")
    revoke.add_argument("id", metavar="ID")


def _version() -> int:
    metadata = importlib.import_module("importlib.metadata")
    print(f"penstock {metadata.version('penstock')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
