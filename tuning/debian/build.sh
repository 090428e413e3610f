#!/bin/sh
# Builds target/debian/ringmaster_*.deb: the program, its pages made by the program itself, units and tuning.
# Needs cargo-deb (`cargo install cargo-deb`). PROFILE=dev for a quick trial.
set -eu
cd "$(dirname "$0")/../.."
profile=${PROFILE:-release}
case $profile in dev) folder=debug ;; *) folder=$profile ;; esac
built=${CARGO_TARGET_DIR:-target}/$folder
cargo build --locked --profile "$profile" -p ringmaster-daemon --bin ringmaster
rm -rf "$built/package"
mkdir -p "$built/package/completions"
"$built/ringmaster" man --to "$built/package/man"
for shell in bash zsh fish; do
	"$built/ringmaster" completions $shell > "$built/package/completions/$shell"
done
cargo deb --locked --profile "$profile" -p ringmaster-daemon --no-build "$@"
