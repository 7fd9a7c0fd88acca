#!/usr/bin/env bash
# Builds the guest's initrd: usage: build.sh ROOT KERNEL OUT
#   ROOT    unpacked packages busybox-static and qemu-guest-agent
#   KERNEL  an unpacked Debian kernel package
# Not compressed: QEMU copies it into the guest's memory faster than an emulated processor unpacks anything.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

here=$(cd "$(dirname "$0")" && pwd)
root=$1 kernel=$2 out=$3
busybox=$root/bin/busybox
[[ -x $busybox ]] || busybox=$root/usr/bin/busybox
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/{bin,dev,etc,lib/modules,mnt,opt,proc,run,sys,tmp,var}
ln -s ../run "$tree/var/run"
cp "$busybox" "$tree/bin/busybox"
install -m 755 "$here/init" "$tree/init"
# mke2fs takes ext4's features from it.
cp /etc/mke2fs.conf "$tree/etc/"

# program FILE: with the libraries that it wants. Those that this machine lacks are among the unpacked ones; in the guest all
# lie in the usual places.
export LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu
program() {
    cp -L "$1" "$tree/opt/"
    local library place
    ! ldd "$1" | grep 'not found' >&2 || exit 1
    for library in $(ldd "$1" | grep -o '/[^ ]*'); do
        place=$tree${library#"$root"}
        mkdir -p "$(dirname "$place")"
        [[ -e $place ]] || cp -L "$library" "$place"
    done
}
program "$(command -v mke2fs)"
program "$root/usr/sbin/qemu-ga"

# Modules in the order in which they must be loaded: what a module depends on is written in the module itself.
declare -A loaded
number=10
module() {
    local name=${1//-/_} file needs
    [[ -z ${loaded[$name]:-} ]] || return 0
    loaded[$name]=1
    file=$(find "$kernel/lib/modules" "(" -name "$name.ko*" -o -name "${name//_/-}.ko*" ")" | head -n 1)
    [[ -n $file ]] || { echo "error: no module $1 in $kernel" >&2; exit 1; }
    [[ $file != *.xz ]] || { xz -d "$file" && file=${file%.xz}; }
    needs=$(grep -a -o -z -m 1 '^depends=.*' "$file" | tr -d '\0' || true)
    needs=${needs#depends=}
    for dependency in ${needs//,/ }; do module "$dependency"; done
    cp "$file" "$tree/lib/modules/$number-$name.ko"
    number=$((number + 1))
}
for wanted in virtio_pci virtio_blk virtio_console; do module "$wanted"; done

(cd "$tree" && find . | "$busybox" cpio -o -H newc 2>/dev/null) >"$out"
