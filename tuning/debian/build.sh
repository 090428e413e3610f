#!/bin/sh
# Builds target/debian/*.deb: ringmaster, ringmaster-agent and ringmaster-broker, each a package of its own, since a watched host shall
# not get the manager. What a program prints of itself (pages, completions) is made by the program itself; units and tuning are added.
# Needs cargo-deb (`cargo install cargo-deb`). PROFILE=dev for a quick trial; PACKAGES="agent broker" for some only.
set -eu
cd "$(dirname "$0")/../.."
profile=${PROFILE:-release}
case $profile in dev) folder=debug ;; *) folder=$profile ;; esac
built=${CARGO_TARGET_DIR:-target}/$folder
for package in ${PACKAGES:-daemon agent broker}; do
	# The manager's pages stand where they always stood.
	case $package in
	daemon) program=ringmaster made=$built/package ;;
	*) program=ringmaster-$package made=$built/package/ringmaster-$package ;;
	esac
	cargo build --locked --profile "$profile" -p "ringmaster-$package" --bin "$program"
	rm -rf "$made/man" "$made/completions"
	mkdir -p "$made/completions"
	"$built/$program" man --to "$made/man"
	for shell in bash zsh fish; do
		"$built/$program" completions $shell > "$made/completions/$shell"
	done
	cargo deb --locked --profile "$profile" -p "ringmaster-$package" --no-build "$@"
done
