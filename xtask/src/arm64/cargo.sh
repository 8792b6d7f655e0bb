#!/bin/sh
# Runs cargo with the arguments from $5 on in the Debian in $1, on the checkout $2, with the crates in cargo's home $3 and the
# target directory $4. Called in namespaces of its own: mounts and processes end with it, however it ends.
set -eu
root=$1 checkout=$2 cargo_home=$3 target=$4
shift 4

read_only() {
    mount --bind "$1" "$root$2"
    mount -o remount,bind,ro "$root$2"
}
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$target" "$root/target"
read_only "$checkout" /checkout
read_only "$cargo_home/registry" /cargo/registry
# It may say that crates come from a mirror; the registry's folders are then named after that.
if [ -e "$cargo_home/config.toml" ]; then
    touch "$root/cargo/config.toml"
    read_only "$cargo_home/config.toml" /cargo/config.toml
fi

exec chroot "$root" /usr/bin/env -i --chdir=/checkout PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/cargo CARGO_HOME=/cargo \
    CARGO_TARGET_DIR=/target CARGO_INCREMENTAL=0 CARGO_NET_OFFLINE=true RUSTC_WRAPPER= \
    SPARKHERD_KERNELS="${SPARKHERD_KERNELS:-}" \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu" \
    CPU_PATHS=neon-dotprod,neon,portable \
    cargo "$@"
