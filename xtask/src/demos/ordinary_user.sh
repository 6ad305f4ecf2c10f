# Runs "$@" as an ordinary user, in a read-only checkout, with a umask that keeps everybody else out.
#
# Needs root and a mount namespace of its own. The toolchain, cargo's home and the target folder stay at
# their paths, or everything would be built again; the target folder is a copy that belongs to the user.
set -eu
checkout="$1" aside="$2" user=nobody
shift 2
toolchain="$(rustc --print sysroot)"
cargo_home="${CARGO_HOME:-$HOME/.cargo}"
target="$CARGO_TARGET_DIR"

mkdir "$aside/toolchain" "$aside/cargo" "$aside/home"
mount --bind "$toolchain" "$aside/toolchain"
mount --bind "$cargo_home" "$aside/cargo"
cp -a --reflink=auto "$target" "$aside/target"
chown -R "$user" "$aside/target" "$aside/home"

# show FOLDER PATH: makes FOLDER appear at PATH. A folder on the way that others may not pass, such as root's
# home, is covered by an empty one.
show() {
    way="" separators="$IFS" IFS=/
    for name in $2; do
        [ -n "$name" ] || continue
        way="$way/$name"
        case "$(stat -c %A "$way" 2>/dev/null)" in
            d????????[xt] | "") ;;
            *) mount -t tmpfs -o mode=755 tmpfs "$way" ;;
        esac
    done
    IFS="$separators"
    mkdir -p "$2"
    mount --bind "$1" "$2"
}
show "$aside/toolchain" "$toolchain"
show "$aside/cargo" "$cargo_home"
show "$aside/target" "$target"

chmod -R a+rX "$checkout"
mount --bind "$checkout" "$checkout"
mount -o remount,ro,bind "$checkout"
cd "$checkout"
export HOME="$aside/home" CARGO_HOME="$cargo_home" PATH="$toolchain/bin:$PATH"
unset XDG_CACHE_HOME XDG_STATE_HOME XDG_RUNTIME_DIR XDG_DATA_HOME XDG_CONFIG_HOME
exec setpriv --reuid="$user" --regid=nogroup --clear-groups \
    sh -c 'umask 077 && ! touch a 2>/dev/null && [ "$(id -u)" != 0 ] && exec "$@"' - "$@"
