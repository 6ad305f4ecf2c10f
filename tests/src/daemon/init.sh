# The first process of a private daemon: bash, process 1 of a process namespace, in a mount and a network namespace
# of its own. It prepares them, starts libvirtd, and then obeys its standard input, a word a line. When that ends,
# so does this, and the kernel kills whatever else is in the namespace. As process 1 it reaps what emulators leave.
#
# It is given: the daemon's folder, the name of its control groups, libvirtd's option to listen on ports (or nothing),
# and the folders to hide.
set -eu
here=$1 groups=$2 listen=$3
shift 3

# Control groups: a folder of this daemon's own in each of the host's hierarchies is all that is seen, and the root
# for all that runs here, as libvirt looks for the processes of a container where its group is told to be. What is
# mounted with other kinds beside them is left out, since it makes libvirt's LXC driver fail.
if [ -z "${inside-}" ]; then
  mount --make-rprivate /
  while read -r _ folder kind _; do
    case $kind:$folder in
    cgroup:/sys/fs/cgroup/* | cgroup2:/sys/fs/cgroup) mkdir -p "$folder/$groups" ;;
    *) continue ;;
    esac
    for limits in cpuset.cpus cpuset.mems; do
      if [ "$kind" = cgroup ] && [ -e "$folder/$limits" ]; then
        cat "$folder/$limits" >"$folder/$groups/$limits"
      fi
    done
    echo 0 >"$folder/$groups/cgroup.procs"
  done </proc/mounts
  inside=yes exec unshare --cgroup bash -c "$BASH_EXECUTION_STRING" "$0" "$here" "$groups" "$listen" "$@"
fi

# A server for SSH looks for its folder in /run, where nothing is to be left on the host.
if [ -d "$here/ssh" ]; then
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -m 1777 /run/lock
  mkdir /run/sshd
  cp -p "$here"/ssh/* /run/sshd/
fi

for folder in /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /etc/libvirt; do
  mkdir -p "$folder"
  mount -t tmpfs -o mode=755 tmpfs "$folder"
done
mkdir -p /var/cache/libvirt/qemu
cp -r "$here/capabilities" /var/cache/libvirt/qemu/
cp "$here/qemu.conf" "$here/libvirtd.conf" /etc/libvirt/
if [ -d "$here/pki" ]; then cp -r "$here/pki" /etc/libvirt/; fi

mkdir /run/libvirt/groups
while read -r _ folder kind _; do
  case $kind:$folder in
  cgroup:/sys/fs/cgroup/*) shown=/run/libvirt/groups/${folder#/sys/fs/cgroup/} ;;
  cgroup2:/sys/fs/cgroup) shown=/run/libvirt/groups/whole ;;
  *) continue ;;
  esac
  mkdir -p "$shown"
  mount --bind "$folder/$groups" "$shown"
done </proc/mounts

# /proc of this process namespace, /sys of this network namespace.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
if [ -d /run/libvirt/groups/whole ]; then
  mount --move /run/libvirt/groups/whole /sys/fs/cgroup
  # A group with groups of processes in it has none of its own.
  mkdir /sys/fs/cgroup/first
  echo 0 >/sys/fs/cgroup/first/cgroup.procs
else
  mount -t tmpfs tmpfs /sys/fs/cgroup
  for shown in /run/libvirt/groups/*; do
    mkdir "/sys/fs/cgroup/${shown##*/}"
    mount --move "$shown" "/sys/fs/cgroup/${shown##*/}"
  done
fi
ip link set lo up

# Some processors say which core was asked, and libvirt then probes the emulators again: it asks on one.
read -r _ core <<<"$(grep Cpus_allowed_list /proc/self/status)"
core=${core%%[-,]*}

exec 3>>"$here/libvirtd.log"
for folder in "$@"; do
  # One may lie in another, which is empty by then.
  mkdir -p "$folder"
  mount -t tmpfs -o mode=1777 tmpfs "$folder"
done

start() {
  taskset -c "$core" libvirtd $listen -f /etc/libvirt/libvirtd.conf -p /run/libvirt/libvirtd.pid </dev/null >&3 2>&1 &
  daemon=$!
}
start
if [ -d /run/sshd ] && [ -e /run/sshd/config ]; then
  "$(PATH=$PATH:/usr/sbin:/sbin command -v sshd)" -D -e -f /run/sshd/config </dev/null >&3 2>&1 &
fi
echo done
while read -r word; do
  case $word in
  start) start ;;
  end)
    kill -KILL "$daemon" || true
    wait "$daemon" || true
    ;;
  *) kill -"$word" "$daemon" ;;
  esac
  echo done
done
