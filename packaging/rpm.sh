#!/bin/sh
# rpm.sh ROOT VERSION OUT MACHINE: an RPM of what install.sh put below ROOT, for this kind of machine, into OUT. Needs rpmbuild.
set -eu
root=$(realpath "$1") version=$2 out=$(realpath "$3") machine=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A dash has a meaning of its own in an RPM's version.
cat >"$work/cutover.spec" <<END
Name: cutover
Version: $(printf %s "$version" | tr - '~')
Release: 1
Summary: Bring applications from release to release, and back
License: Apache-2.0 OR MIT
%global source_date_epoch_from_changelog 0
%global clamp_mtime_to_source_date_epoch 1
%global use_source_date_epoch_as_buildtime 1
%global _buildhost localhost
%global __os_install_post %{nil}
%global _build_id_links none
AutoReqProv: no
%description
cutover brings a node from one release of an application to the next, watches the new one, and goes back by itself when
it is sick: program files, configuration and data. It needs no server.
%install
cp -a "$root/." "%{buildroot}/"
%files
%defattr(-,root,root)
$(cd "$root" && find . -type f | sed 's/^\.//' | sort)
$(cd "$root" && find ./usr -type d -path '*/cutover*' | sed 's/^\./%dir /' | sort)
%dir /etc/cutover
%dir /etc/cutover/keys
%post
if [ -d /run/systemd/system ]; then systemctl daemon-reload || :; journalctl --update-catalog >/dev/null 2>&1 || :; fi
%postun
if [ -d /run/systemd/system ]; then systemctl daemon-reload || :; fi
END
rpmbuild -bb --quiet --target "$machine-linux" --define "_topdir $work" --define "_rpmdir $out" --define "_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" \
    "$work/cutover.spec" >/dev/null
