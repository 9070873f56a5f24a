#!/bin/sh
# The suite on the kernel's NFS: a server and three clients, each in a network of its own, all in one QEMU guest that runs
# Debian's stock kernel under emulation, with this machine's root below it, read-only. Nothing is installed for NFS here:
# the packages are only unpacked. Version 3, and 4.2, both with default options.
# shellcheck source=tests/storage/lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need qemu-system-x86_64:qemu-system-x86 cpio:cpio mkfs.ext4:e2fsprogs ip:iproute2
command -v apt-get >/dev/null 2>&1 || skip "no apt-get: the kernel is Debian's"
rounds=${ROUNDS:-300}

kernel=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p')
[ -n "$kernel" ] || skip "no package linux-image-amd64"
say "unpacking $kernel"
tree=${NFS_TREE:-$work/tree}
if [ ! -d "$tree" ]; then
    mkdir -p "$tree" "$work/packages"
    # shellcheck disable=SC2015 # both must do
    (cd "$work/packages" && apt-get download "$kernel" nfs-kernel-server nfs-common rpcbind busybox-static kmod libkmod2 \
        libtirpc3 libtirpc-common libnfsidmap1 libevent-core-2.1-7 libkeyutils1 libsqlite3-0 libdevmapper1.02.1 \
        libwrap0 libmount1 libblkid1 >/dev/null 2>&1) || skip "cannot download $kernel and what NFS needs"
    for package in "$work"/packages/*.deb; do dpkg-deb -x "$package" "$tree"; done
fi
release=$(ls "$tree/lib/modules")
for tool in depmod modprobe; do ln -sf ../bin/kmod "$tree/sbin/$tool"; done
export LD_LIBRARY_PATH="$tree/usr/lib/x86_64-linux-gnu:$tree/lib/x86_64-linux-gnu"
"$tree/sbin/depmod" -b "$tree" "$release"

# A first root that knows just enough to find this machine's.
initial=$work/initial
mkdir -p "$initial/bin" "$initial/lib/modules/$release"
cp "$tree/bin/busybox" "$initial/bin/busybox"
cp "$tree/lib/modules/$release"/modules.* "$initial/lib/modules/$release/"
modules='virtio_pci virtio_blk 9pnet_virtio 9p overlay crc32c_generic ext4 veth nfsd nfs nfsv3 nfsv4'
for module in $modules; do
    "$tree/sbin/modprobe" -d "$tree" -S "$release" --show-depends "$module" 2>/dev/null
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | while read -r file; do
    place=$initial/lib/modules/${file#*/lib/modules/}
    mkdir -p "$(dirname "$place")"
    cp "$file" "$place"
done
unset LD_LIBRARY_PATH
mkdir -p "$initial/sbin"
# The kernel itself asks for modules by this path.
ln -s /bin/busybox "$initial/sbin/modprobe"
cat >"$initial/init" <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /below /above /root
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
for module in virtio_pci virtio_blk 9pnet_virtio 9p overlay crc32c_generic ext4 veth nfsd nfs nfsv3 nfsv4; do
    modprobe $module || echo "no $module"
done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro host /below
mount -t tmpfs none /above; mkdir /above/changes /above/work
mount -t overlay -o lowerdir=/below,upperdir=/above/changes,workdir=/above/work none /root
for place in proc sys dev; do mount --move /$place /root/$place; done
mount -t tmpfs none /root/run
for word in $(cat /root/proc/cmdline); do case $word in guest=*) guest=${word#guest=} ;; esac; done
chroot /root /bin/sh "$guest"
echo "guest ended with $?"
sync; echo o >/root/proc/sysrq-trigger; sleep 5
END
chmod 755 "$initial/init" "$initial/bin/busybox"
(cd "$initial" && find . | cpio -o -H newc --quiet) >"$work/initrd"
truncate -s 256M "$work/disk"
mkfs.ext4 -q "$work/disk"

say "building"
program=$("$cargo" test --locked --no-run --test it 2>&1 | sed -n 's/.*Executable .*(\(.*\)).*/\1/p')
case $program in /*) ;; *) program=$(pwd)/$program ;; esac
[ -x "$program" ] || { say "no test program"; exit 1; }

# What the guest does.
guest=$work/guest
{
    echo "tree='$tree' program='$program' rounds='$rounds' wanted='${NFS_VERSIONS:-3 4.2}'"
    cat tests/storage/nfs-guest.in
} >"$guest"

say "booting"
timeout "${NFS_LIMIT:-1500}" qemu-system-x86_64 -machine pc,accel=tcg -cpu max -smp 2 -m 1536 -nographic -no-reboot \
    -nic none -kernel "$tree/boot/vmlinuz-$release" -initrd "$work/initrd" \
    -append "console=ttyS0 quiet panic=-1 guest=$guest" \
    -drive "file=$work/disk,format=raw,if=virtio" \
    -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap </dev/null 2>&1 |
    tr -d '\r' | tee "$work/console" | grep -v '^\[' >&2 || true
grep -q '^guest ended with 0' "$work/console"
