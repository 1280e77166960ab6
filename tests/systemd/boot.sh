#!/bin/sh
# Boots a real systemd and runs two members as services in it: tests/systemd/drive.py says what is tried.
#
#   sudo tests/systemd/boot.sh [FOLDER]
#
# FOLDER keeps the system between runs (default: a new one, removed afterwards). Needs root, Debian's
# debootstrap and systemd-container, Debian's and PyPI's packages; about 1.5 GB and six minutes. The
# system boots in a container with no network but its own loopback. The commit that is checked out
# is what gets installed. Exits 0 if all was as it should be.
set -eu

fail() { printf '%s\n' "boot.sh: $1" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "needs root: it makes a root folder and boots it"
for tool in debootstrap systemd-nspawn unshare git; do
    command -v "$tool" >/dev/null ||
        fail "$tool is missing (Debian: apt install debootstrap systemd-container git)"
done
project=$(CDPATH='' cd "$(dirname "$0")/../.." && pwd -P)
if [ $# -gt 0 ]; then
    mkdir -p "$1"
    root=$(CDPATH='' cd "$1" && pwd -P)/root
else
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    root=$folder/root
fi

# ---- a Debian, as this machine's apt knows it ---------------------------------------------------

suite=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
packages=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,python3,python3-venv
packages=$packages,ca-certificates,procps,iproute2,util-linux,passwd
if [ ! -e "$root/etc/os-release" ]; then
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' |
        awk -v suite="$suite" '$2 == suite { print $1; exit }')
    debootstrap --variant=minbase --include="$packages" "$suite" "$root" "$mirror" \
        >"$root.log" 2>&1 || fail "debootstrap failed: see $root.log"
fi

# ---- the project, set up as docs/operations.md says ---------------------------------------------

for file in etc/resolv.conf etc/pip.conf etc/ssl/certs/ca-certificates.crt; do
    [ ! -e "/$file" ] || cp -L "/$file" "$root/$file"
done
if [ -d "$root/opt/tapestry/.git" ]; then
    git -C "$root/opt/tapestry" fetch -q "$project" HEAD
    git -C "$root/opt/tapestry" reset -q --hard FETCH_HEAD
else
    git clone -q "$project" "$root/opt/tapestry"
fi
chroot "$root" /usr/bin/env HOME=/root /opt/tapestry/tapestry version
chroot "$root" /usr/sbin/userdel --remove cy 2>/dev/null || :
rm -rf "$root"/var/lib/systemd/linger "$root"/etc/tapestry "$root"/root/ana "$root"/root/bo "$root"/srv/* "$root"/var/lib/private \
    "$root"/var/lib/tapestry* "$root"/var/cache/private "$root"/var/cache/tapestry \
    "$root"/etc/systemd/system/*tapestry* "$root"/etc/systemd/system/*/tapestry* \
    "$root"/var/log/journal "$root"/var/log/drive*
mkdir -p "$root/var/log/journal"
cp "$project/tests/systemd/drive.py" "$root/usr/local/lib/drive.py"
cat >"$root/etc/systemd/system/drive.service" <<'UNIT'
[Unit]
Description=What tests/systemd tries
After=network.target
FailureAction=poweroff
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 /usr/local/lib/drive.py
StandardOutput=append:/var/log/drive.log
StandardError=inherit
TimeoutStartSec=900
[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl -q enable drive.service

# ---- boot; 133 is a reboot from inside ----------------------------------------------------------

touch "$root/var/log/drive.log"
tail -f "$root/var/log/drive.log" &
tail=$!
status=133
while [ "$status" = 133 ]; do
    status=0
    timeout 1200 unshare --mount sh -c 'mount -t tmpfs tmpfs /run && exec systemd-nspawn --quiet \
        --boot --register=no --keep-unit --private-network --console=pipe --directory="$1"' \
        sh "$root" </dev/null || status=$?
done
sleep 1
kill "$tail"
grep -q '^PASSED' "$root/var/log/drive.log" || fail "not passed; the journal is in $root/var/log/journal"
