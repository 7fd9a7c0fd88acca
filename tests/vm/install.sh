#!/usr/bin/env bash
# Puts real QEMU guests below .tools/vm, out of Debian packages (bookworm; QEMU from its backports):
#   bin/        qemu-system-x86_64, qemu-nbd, ...: wrappers that find their own libraries and firmware
#   vmlinuz     Debian's cloud kernel
#   initrd      busybox, mke2fs, QEMU's guest agent and guest/init
# Nothing is installed: packages are unpacked, so that the QEMU of this machine stays the one it is (Debian 12's own
# qemu-system-x86 would replace a newer qemu-utils). Does nothing when everything is there.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
vm=$(cd "$here/../.." && pwd)/.tools/vm
made_by=$(cat "$here/install.sh" "$here"/guest/* | sha256sum)
[[ -e $vm/made-by && $(<"$vm/made-by") == "$made_by" ]] && exit 0

echo "unpacking QEMU and a guest into .tools/vm"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists,cache/archives}/partial "$work"/{root,kernel}

# A package list of our own beside the machine's: its sources are neither read nor changed.
keys=/usr/share/keyrings/debian-archive-keyring.gpg
cat >"$work/sources.list" <<END
deb [signed-by=$keys] http://deb.debian.org/debian bookworm main
deb [signed-by=$keys] http://deb.debian.org/debian bookworm-backports main
deb [signed-by=$keys] http://deb.debian.org/debian-security bookworm-security main
END
cat >"$work/apt.conf" <<END
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$work/lists";
Dir::Cache "$work/cache";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
Debug::NoLocking "true";
END
export APT_CONFIG=$work/apt.conf DEBIAN_FRONTEND=noninteractive

apt-get -qq update
# With every library that this machine lacks.
apt-get -qq -y install --download-only --reinstall -t bookworm-backports \
    qemu-system-x86 qemu-utils qemu-guest-agent busybox-static >/dev/null
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
(cd "$work/kernel" && apt-get -qq download "$kernel")

for package in "$work"/cache/archives/*.deb; do
    dpkg-deb -x "$package" "$work/root"
done
rm -rf "$work"/root/usr/share/{doc,man,locale,icons} "$work"/root/usr/bin/qemu-system-{i386,x86_64-microvm}
dpkg-deb -x "$work"/kernel/*.deb "$work/kernel"
"$here/guest/build.sh" "$work/root" "$work/kernel" "$work/initrd"

rm -rf "$vm"
mkdir -p "$vm/bin"
mv "$work/root" "$work/initrd" "$vm"
mv "$work"/kernel/boot/vmlinuz-* "$vm/vmlinuz"
libraries=$vm/root/usr/lib/x86_64-linux-gnu:$vm/root/lib/x86_64-linux-gnu
for program in qemu-system-x86_64 qemu-nbd qemu-img qemu-io qemu-storage-daemon; do
    firmware=
    [[ $program != qemu-system-x86_64 ]] || firmware="-L '$vm/root/usr/share/qemu' -L '$vm/root/usr/share/seabios'"
    cat >"$vm/bin/$program" <<END
#!/bin/sh
export LD_LIBRARY_PATH='$libraries'
exec '$vm/root/usr/bin/$program' $firmware "\$@"
END
    chmod +x "$vm/bin/$program"
    "$vm/bin/$program" --version >/dev/null
done
printf '%s\n' "$made_by" >"$vm/made-by"
