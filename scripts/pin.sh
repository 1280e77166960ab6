#!/bin/sh
# Makes requirements.txt from pyproject.toml: every package of every extra, for all Pythons that the
# project allows, with hashes and without any address; and requirements-build.txt, what the two
# packages without a wheel (both pure Python) are built with; and requirements-uv.txt, the installer
# for machines without one. Run it by hand to move the pins (add --upgrade); needs uv on PATH.
set -eu
cd "$(dirname "$0")/.."
pin() {
    uv pip compile --universal --generate-hashes --no-header --no-emit-index-url \
        --no-emit-find-links --no-annotate --python-version 3.11 "$@"
}
pin pyproject.toml --all-extras --output-file requirements.txt "$@"
echo "setuptools>=77" | pin - --output-file requirements-build.txt "$@"
echo "uv>=0.9" | pin - --output-file requirements-uv.txt "$@"
