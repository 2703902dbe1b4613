#!/usr/bin/env bash
# Installs this program into the environment that is active. It comes from where the workflow comes from, which
# SAMPATH_WSI_SOURCE says: a checkout, or an installed package, which is copied (it is Python and data alone).
set -euo pipefail
source=${SAMPATH_WSI_SOURCE:-.}
if test -e "$source/pyproject.toml"; then
    python -m pip install --no-deps "$source"
else
    cp -r "$source" "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    program=$(python -c 'import sysconfig; print(sysconfig.get_path("scripts"))')/sampath-wsi
    printf '#!%s\nfrom sampath_wsi.cli import main\n\nmain()\n' "$(command -v python)" > "$program"
    chmod +x "$program"
fi
