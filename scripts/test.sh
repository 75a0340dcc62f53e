#!/usr/bin/env bash
# Everything that has to hold before a change goes in: formatting, lints, tests, documentation.
# It can be called from any directory, installs what it needs where it may, and stops at the first
# failure with a status other than 0. Nothing outside the source tree is changed, but for packages.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
SECONDS=0
step="setting up"

heading() {
    step=$1
    printf '\n=== %s (%d s so far) ===\n' "$step" "$SECONDS"
}

# The last line says how it went, whatever ended it.
finish() {
    local status=$?
    if ((status == 0)); then
        printf '\nall green, in %d s\n' "$SECONDS"
    else
        printf '\nfailed at: %s, after %d s\n' "$step" "$SECONDS" >&2
    fi
}
trap finish EXIT

missing() {
    printf 'missing: %s\n' "$1" >&2
    exit 1
}

# Installs a package of Debian or Ubuntu for a program that is not there; elsewhere it says so.
need() {
    local program=$1 package=$2 as_root=()
    command -v "$program" >/dev/null && return
    command -v apt-get >/dev/null || missing "$program; install it with your system's package manager"
    if ((EUID != 0)); then
        command -v sudo >/dev/null || missing "$program; as root: apt-get install $package"
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package"
}

heading "toolchain"
command -v cargo >/dev/null || missing "Rust; install rustup, which then takes the release named in rust-toolchain.toml"
# Parts of the dependencies are C, and rustc links through cc.
need cc build-essential
rustc --version
cargo --version
for tool in fmt clippy; do
    cargo "$tool" --version || missing "cargo $tool; run: rustup component add rustfmt clippy"
done

heading "format"
cargo fmt --check

heading "lints"
cargo clippy --locked --all-targets -- -D warnings

heading "tests"
# For config/receivers/slack.py.
need python3 python3
cargo test --locked

heading "browser"
need node nodejs
need npm npm
need chromium chromium
./scripts/browser.sh

heading "documentation"
# With private items: the library is there for the program, so its readers are its maintainers.
RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --no-deps --document-private-items
