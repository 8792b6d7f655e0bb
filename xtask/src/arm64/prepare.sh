#!/bin/sh
# Makes a small Debian in $1, from the mirror $2, that builds for arm64 and runs what it built. Called in a mount namespace of
# its own, so that what debootstrap mounts cannot outlive it.
set -eu
root=$1 mirror=$2

# Debootstrap knows releases by scripts, and an older one has none for forky; sid's serves all later releases.
debootstrap --variant=minbase --include=ca-certificates forky "$root" "$mirror" /usr/share/debootstrap/scripts/sid

# The mirror may be reachable only as this machine's own configuration says.
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp -R /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
mount -t proc proc "$root/proc"
chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive sh -eu <<'INSIDE'
dpkg --add-architecture arm64
apt-get update --quiet --quiet
apt-get install --quiet --quiet --yes --no-install-recommends \
    cargo rustc gcc libc6-dev libstd-rust-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
apt-get clean
mkdir -p /checkout /target /cargo/registry
INSIDE
