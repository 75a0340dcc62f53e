#!/usr/bin/env bash
# The inspector's page in a real browser: `scripts/browser.sh` runs its tests, `scripts/browser.sh
# picture FILE.png [light|dark]` takes the picture for README (two minutes). It needs node, npm and
# Chromium, which scripts/test.sh installs; what npm brings stays in cargo's target directory.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

cargo build --locked --quiet
target=$(cargo metadata --locked --no-deps --format-version 1 | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')
export CALLHOOK=$target/debug/callhook BROWSER_MODULES=$target/browser
CHROMIUM=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || {
    echo "missing: Chromium; as root: apt-get install chromium" >&2
    exit 1
}
export CHROMIUM

mkdir -p "$BROWSER_MODULES"
if ! cmp -s tests/browser/package-lock.json "$BROWSER_MODULES/installed-lock.json"; then
    cp tests/browser/package.json tests/browser/package-lock.json "$BROWSER_MODULES"
    npm ci --prefix "$BROWSER_MODULES" --ignore-scripts --no-audit --no-fund --loglevel=error
    cp tests/browser/package-lock.json "$BROWSER_MODULES/installed-lock.json"
fi

case ${1:-test} in
    # Each test has a browser of its own, and the machine may be small.
    test) exec timeout 600 node --test --test-concurrency=1 --test-reporter=spec tests/browser/page.test.js ;;
    picture) exec timeout 300 node tests/browser/picture.js "${2:?a file}" "${3:-light}" ;;
    *) echo "usage: scripts/browser.sh [test | picture FILE.png [light|dark]]" >&2; exit 64 ;;
esac
