# The first process of its namespaces: builds the walls, and becomes the program.
# $1 is an empty folder, everything behind it the program and its arguments.
set -eu
root=$1
shift
# The console log and other files end here, at 32 MiB; no memory is dumped.
ulimit -c 0
ulimit -f 65536

mount -t tmpfs -o mode=0755,size=64m,nosuid,nodev machine "$root"
cd "$root"
mkdir dev host proc tmp
mount -t proc -o nosuid,nodev,noexec proc proc
for device in null urandom zero; do
    : > "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
for folder in bin lib lib64 sbin usr; do
    if [ -L "/$folder" ]; then
        cp -P "/$folder" "$folder"
    elif [ -d "/$folder" ]; then
        mkdir "$folder"
        mount --bind -o ro,nosuid,nodev "/$folder" "$folder"
    fi
done

pivot_root . host
cd /
umount -l host
rmdir host
# Whoever started us waits for this word; an end without it says that the walls do not stand.
echo ready >&0
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@" < dev/null
