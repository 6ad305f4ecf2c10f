#!/bin/sh
# What the demonstration runs in the throw-away machine: it looks around,
# writes files, speaks on both streams, and fails on purpose.
echo "hello from $(uname -n), Linux $(uname -r), as user $(id -u)"
mkdir -p /root/loot
for number in 1 2 3; do
    echo "file $number" >"/root/loot/$number.txt"
done
echo "wrote $(ls /root/loot | wc -l) files into /root/loot"
echo "this line went to standard error" >&2
exit 3
