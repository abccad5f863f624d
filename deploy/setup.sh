#!/usr/bin/env bash
# Prepares a bare machine: uv (from PATH, or a private copy in .tools), the locked environment in .venv, and the few
# Debian packages that tests and benchmarks start. Asks for nothing that is there already.
#
#   deploy/setup.sh serve                     what `penstock serve` needs
#   deploy/setup.sh dev                       the same and the tools for tests, types and benchmarks
#   deploy/setup.sh integrations              what tests of optional packages need, in .tools/integrations
#   deploy/setup.sh stores                    the clients of vector stores, in .tools/stores
#   deploy/setup.sh store-servers             Chroma and Milvus Lite as servers, in .tools/store-servers
#   deploy/setup.sh clients                   programs that tests use as they are, in .tools/clients
#   deploy/setup.sh mlflow                    MLflow as a server and a client, in .tools/mlflow
#   deploy/setup.sh feast                     Feast as a feature server and a client, in .tools/feast
#   deploy/setup.sh ray                       Penstock with Ray Data, in .tools/ray
#   deploy/setup.sh torch                     Penstock with sentence-transformers, in .tools/torch
#   deploy/setup.sh lean                      what `serve` needs and nothing else, in .tools/lean: what a benchmark measures
#   deploy/setup.sh peers                     the gateways that Penstock is compared with, each in .tools/peers/NAME
#   deploy/setup.sh scorers                   the servers of classic models that Penstock is compared with, each in .tools/scorers/NAME
#   deploy/setup.sh vectors                   the vector libraries that Penstock is compared with, in .tools/vectors
#   deploy/setup.sh encoders                  sentence-transformers, which embedding is compared with, in .tools/encoders
#   deploy/setup.sh unpack PACKAGE…           Debian packages, unpacked below .tools/debian and not installed: manuals to search in
#   deploy/setup.sh compile FOLDER            machine code of the hot path for the environment in FOLDER, where there is a C compiler
#   deploy/setup.sh system PACKAGE[:COMMAND]  a Debian package, unless its command is there
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly UV_RANGE='uv>=0.7,<1'

# Not in uv.lock: what they need is none of ours, and must not decide what we have.
readonly CLIENTS=(langchain-openai==1.7.3 langchain-tests==1.1.9 llama-index-core==0.14.25 llm==0.36)
readonly MLFLOW=(mlflow==3.17.2 scikit-learn onnx onnxruntime)
readonly FEAST=('feast[redis]==0.67.0')
readonly STORE_SERVERS=(chromadb==1.5.9 milvus-lite==3.2.2 pymilvus==3.0.2)
readonly ENCODERS=(torch==2.13.0 sentence-transformers==6.2.0)
readonly COMPILER=(mypy==2.4.1 setuptools==84.2.1)
# Versions that are known to start and to answer.
readonly PEERS=(vllm-router==0.1.17 sglang-router==0.3.2 tensorzero==2026.6.0 'litellm[proxy]==1.106.2')
readonly SCORERS=(
    'mlserver mlserver==1.7.1 mlserver-sklearn==1.7.1'
    'bentoml bentoml==1.4.39 onnxruntime==1.32.0'
    'mlflow mlflow==3.17.2 scikit-learn'
    'kserve kserve==0.21.0 scikit-learn joblib'
)
readonly VECTORS=(faiss-cpu==1.15.1 hnswlib==0.8.0 qdrant-edge-py==0.9.0 usearch==2.26.6)
# With a newer @hono/node-server this Portkey answers every stream with 500 (its issue 1389).
readonly PORTKEY='{"private": true, "dependencies": {"@portkey-ai/gateway": "1.15.2"}, "overrides": {"@hono/node-server": "1.14.1"}}'

say() { printf '\033[2m%s\033[0m\n' "$*" >&2; }
die() { printf '\033[31m%s\033[0m\n' "$*" >&2; exit 1; }

main() {
    case "${1:-}" in
        serve) sync_environment --no-dev --compile-bytecode ;;
        dev) sync_environment --group dev --extra retrieval --extra usearch --extra faiss --extra qdrant-edge --extra qdrant --extra pinecone --extra telemetry-grpc --extra kafka --extra classic --extra parquet --extra grpc ;;
        integrations) UV_PROJECT_ENVIRONMENT=.tools/integrations sync_environment --no-dev --group integrations --extra litellm --extra presidio --extra grpc --extra classic --extra parquet --extra kafka ;;
        stores) UV_PROJECT_ENVIRONMENT=.tools/stores sync_environment --no-dev --group integrations --extra chroma --extra milvus --extra weaviate --extra pinecone ;;
        ray) UV_PROJECT_ENVIRONMENT=.tools/ray sync_environment --no-dev --group integrations --extra classic --extra parquet --extra ray ;;
        store-servers) install_tools store-servers "${STORE_SERVERS[@]}" ;;
        clients) install_tools clients "${CLIENTS[@]}" ;;
        feast) install_tools feast "${FEAST[@]}" ;;
        mlflow) install_tools mlflow "${MLFLOW[@]}" ;;
        torch) install_torch ;;
        lean) UV_PROJECT_ENVIRONMENT=.tools/lean sync_environment --no-dev --compile-bytecode ;;
        peers) install_peers ;;
        scorers) install_scorers ;;
        vectors) install_tools vectors "${VECTORS[@]}" ;;
        encoders) install_tools encoders "${ENCODERS[@]}" ;;
        compile) compile_hot_path "$2" ;;
        unpack) shift; for package in "$@"; do unpack_package "$package"; done ;;
        system) shift; for package in "$@"; do need_package "$package"; done ;;
        *) die "usage: deploy/setup.sh serve | dev | integrations | stores | store-servers | clients | mlflow | feast | ray | torch | lean | peers | scorers | vectors | encoders | compile FOLDER | unpack PACKAGE… | system PACKAGE[:COMMAND]…" ;;
    esac
}

# --inexact: `make serve` after `make test` must not throw the developer's tools away.
sync_environment() {
    local uv python
    uv=$(find_uv)
    python=$(choose_python)
    say "Setting up ${UV_PROJECT_ENVIRONMENT:-.venv} from uv.lock …"
    [ -z "$python" ] || export UV_PYTHON=$python
    "$uv" sync --frozen --inexact --quiet --extra embedded --extra documents --extra telemetry --extra guards "$@"
}

# Not by the extra, whose torch is another one: one copy of these gigabytes is enough, and it is what embedding is compared with.
install_torch() {
    local uv folder=.tools/torch
    UV_PROJECT_ENVIRONMENT=$folder sync_environment --no-dev --group integrations
    uv=$(find_uv) && "$uv" pip install --quiet --python "$folder/bin/python" "${ENCODERS[@]}"
}

# Without it the interpreter runs the hot path, at 1.7 times the processor time: no reason to stop.
compile_hot_path() {
    local python=$1/bin/python
    [ "${PENSTOCK_COMPILED:-}" != 0 ] || return 0
    "$python" -m gateway.compiled && return
    { install_tools compiler "${COMPILER[@]}" && need_compiler "$python" &&
        PYTHONPATH=$(echo .tools/compiler/lib/python*/site-packages) "$python" -m admin compile >&2; } ||
        say "The hot path could not be compiled: it runs interpreted, and slower."
}

# PYTHON: a C compiler, and the headers of that interpreter.
need_compiler() {
    local headers
    command -v cc >/dev/null || install_package gcc || return 1
    headers=$("$1" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -e "$headers/Python.h" ] || install_package libpython3-dev || return 1
    [ -e "$headers/Python.h" ]
}

# NAME PACKAGE…: in an environment of their own.
install_tools() {
    local folder=.tools/$1
    shift
    [ "$(cat "$folder/.ready" 2>/dev/null)" != "$*" ] || return 0
    say "Installing $* into $folder …"
    rm -rf "$folder" && python_peer "$folder" "$@" && printf '%s\n' "$*" >"$folder/.ready"
}

# A peer that cannot be had is no reason to stop: the comparison names what it lacks.
install_peers() {
    local peer
    for peer in "${PEERS[@]}"; do
        install_peer "${peer%%[[=]*}" python_peer "$peer" || say "$peer could not be installed."
    done
    install_peer portkey npm_peer "$PORTKEY" || say "Portkey could not be installed."
}

install_scorers() {
    local name packages line
    for line in "${SCORERS[@]}"; do
        read -r name packages <<<"$line"
        install_scorer "$name" "$packages" || say "$name could not be installed."
    done
}

# NAME PACKAGES
install_scorer() {
    local folder=.tools/scorers/$1 packages
    read -ra packages <<<"$2"
    [ "$(cat "$folder/.ready" 2>/dev/null)" != "$2" ] || return 0
    say "Installing $2 into $folder …"
    rm -rf "$folder" && mkdir -p "$folder" && python_peer "$folder" "${packages[@]}" && printf '%s\n' "$2" >"$folder/.ready"
}

# NAME INSTALLER WHAT: the mark is written last, and says what is there.
install_peer() {
    local name=$1 installer=$2 what=$3 folder=.tools/peers/$1
    [ "$(cat "$folder/.ready" 2>/dev/null)" != "$what" ] || return 0
    say "Installing $name into $folder …"
    rm -rf "$folder" && mkdir -p "$folder" && "$installer" "$folder" "$what" && printf '%s\n' "$what" >"$folder/.ready"
}

# FOLDER PACKAGE…: on the interpreter that Penstock is measured on.
python_peer() {
    local uv python=.tools/lean/bin/python folder=$1
    shift
    [ -x "$python" ] || python=$(choose_python)
    uv=$(find_uv) && "$uv" venv --quiet --clear --python "${UV_PYTHON:-$python}" "$folder" &&
        "$uv" pip install --quiet --compile-bytecode --python "$folder/bin/python" "$@"
}

npm_peer() {
    printf '%s\n' "$2" >"$1/package.json" && npm install --prefix "$1" --no-audit --no-fund --loglevel=error >/dev/null
}

# Interpreters of one version differ by a quarter in speed, by how they were built (Debian's has profile-guided optimisation, many
# others do not), and every request pays for it. So the fastest one that is here is taken; UV_PYTHON overrides that. Each is timed
# once per round and counts by its best: a machine that is still starting gives every one of them a bad moment.
choose_python() {
    local candidate path seconds found=()
    [ -z "${UV_PYTHON:-}" ] || return 0
    for candidate in python3 /usr/bin/python3 python3.11 python3.12 python3.13; do
        path=$("$candidate" -c 'import sys; print(sys.executable) if sys.version_info >= (3, 11) else sys.exit(1)' 2>/dev/null) || continue
        [[ " ${found[*]} " == *" $path "* ]] || found+=("$path")
    done
    for _ in 1 2 3 4; do
        for path in "${found[@]}"; do
            seconds=$("$path" deploy/interpreter_speed.py 2>/dev/null) && echo "$seconds $path"
        done
    done | sort -n | head -n 1 | cut -d ' ' -f 2-
}

find_uv() {
    if uv --version >/dev/null 2>&1; then command -v uv; return; fi  # run it: a pyenv shim may stand for nothing
    [ -x .tools/uv/bin/uv ] || install_uv
    echo .tools/uv/bin/uv
}

install_uv() {
    local python
    python=$(find_python)
    say "Installing uv into .tools …"
    if "$python" -c 'import ensurepip, venv' 2>/dev/null || install_package python3-venv; then
        "$python" -m venv .tools/uv >&2
        .tools/uv/bin/python -m pip install --quiet --disable-pip-version-check "$UV_RANGE" >&2
    elif "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m pip install --quiet --disable-pip-version-check --target .tools/uv "$UV_RANGE" >&2
    else
        die "Neither uv nor the venv or pip module of $python is here. Install one: apt-get install python3-venv (or uv)."
    fi
}

find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    install_package python3 && echo python3 && return
    die "Python 3.11 or newer is needed. On Debian: apt-get install python3"
}

# PACKAGE[:COMMAND]: the command that shows that the package is there, where it has another name.
need_package() {
    local package=${1%%:*} command=${1##*:}
    [ "$command" != nodejs ] || command=node
    PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null && return
    install_package "$package" || die "$package is missing and could not be installed. On Debian: apt-get install $package"
}

unpack_package() {
    local ready=.tools/debian/.ready-$1 folder
    [ ! -e "$ready" ] || return 0
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || die "$1 can be had on Debian alone."
    say "Unpacking the Debian package $1 …"
    folder=$(mktemp -d)
    # As root, apt fetches as another user, who may not write here.
    (cd "$folder" && apt-get -qq -o APT::Sandbox::User=root download "$1") ||
        { apt_lists && (cd "$folder" && apt-get -qq -o APT::Sandbox::User=root download "$1"); } || die "$1 could not be fetched."
    mkdir -p .tools/debian && dpkg-deb -x "$folder"/*.deb .tools/debian
    rm -rf "$folder" && touch "$ready"
}

# A machine that was never updated knows no packages.
apt_lists() {
    if [ "$(id -u)" -eq 0 ]; then apt-get -qq update >/dev/null; else sudo -n apt-get -qq update >/dev/null; fi
}

install_package() {
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || return 1
        root=(sudo -n)
    fi
    command -v apt-get >/dev/null || return 1
    say "Installing the Debian package $1 …"
    # RUNLEVEL=1: tests and benchmarks start their own servers; none is to run by itself from here on.
    local quiet=("${root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -o=Dpkg::Use-Pty=0)
    "${quiet[@]}" install -y --no-install-recommends "$1" >/dev/null 2>&1 && return
    "${quiet[@]}" update >/dev/null && "${quiet[@]}" install -y --no-install-recommends "$1" >&2
}

main "$@"
