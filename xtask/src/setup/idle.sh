# Installs packages of servers without any of them being started or enabled.
#
# usage: sh idle.sh POLICY UNITS LOG COMMAND...
#
# It is a process of its own, in a group of its own, so that it ends in order whatever becomes of the one that started
# it: packages that are half configured, and a policy that is left, would do harm to the host.
# A signal that is ignored would be so for apt-get and the packages' scripts, too; one with a handler is not.
trap : INT TERM HUP PIPE
policy=$1 units=$2 log=$3
shift 3
wanted() {
    for link in "$units"/*.wants/*; do
        [ -L "$link" ] && printf '%s\n' "${link##*/}"
    done | sort -u
}
made=
if [ ! -e "$policy" ]; then
    # One that outlives this process, after a power cut, forbids nothing.
    started=$(cut -d' ' -f22 "/proc/$$/stat")
    # Whole, or not there.
    {
        echo '#!/bin/sh'
        echo "# Made by SEE's cargo xtask setup while it installs packages; of no effect after it."
        echo "[ \"\$(cut -d' ' -f22 /proc/$$/stat 2>/dev/null)\" = $started ] && exit 101"
        echo 'exit 0'
    } >"$policy.new" && chmod 755 "$policy.new" && mv "$policy.new" "$policy" || exit 1
    made=yes
fi
before=$(wanted)
"$@" >"$log" 2>&1 </dev/null
code=$?
# Also after a failure: some of the packages may be there.
new=$(wanted | while read -r unit; do
    printf '%s\n' "$before" | grep -qxF -- "$unit" || printf '%s\n' "$unit"
done)
if [ -n "$new" ] && command -v systemctl >/dev/null; then
    # shellcheck disable=SC2086 # Names of units hold no blanks.
    systemctl --quiet disable $new >>"$log" 2>&1 || code=1
fi
[ -z "$made" ] || rm -f "$policy"
exit "$code"
