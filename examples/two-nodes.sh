#!/bin/sh
# Two nodes on one machine, each a network namespace with its own address, data and identity: an nginx is imported and run on the
# first, written to, moved to the second and back. Ends with a line that says what was shown; leaves nothing behind.
set -eu
home=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
image=${IMAGE:-${PG_IMAGE_CACHE:-$home/.cache/images}/nginx.tar}
work=$(mktemp -d /var/tmp/pg-demo-XXXXXX)
tag=$(basename "$work" | tail -c 5)
ns_a=pgdemo-a-$tag ns_b=pgdemo-b-$tag

# Headings are bold where someone looks on; in a pipe or a file they are plain lines.
if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold= plain=; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
# A node is a network namespace and a data directory; `a pg ps` runs pg on node a.
a() { nsenter --net="/run/netns/$ns_a" env PATH="$home/bin:$PATH" PG_ROOT="$work/a" "$@"; }
b() { nsenter --net="/run/netns/$ns_b" env PATH="$home/bin:$PATH" PG_ROOT="$work/b" "$@"; }
show() { node=$1; shift; printf '\n%s$ %s\n' "$node" "$*"; "$node" "$@"; }

# Waits until a web server answers.
there() {
  tries=0
  until "$1" curl -fs -o /dev/null "$2"; do
    tries=$((tries + 1))
    [ $tries -lt 150 ] || { echo "$2 does not answer" >&2; exit 1; }
    sleep 0.2
  done
}

cleanup() {
  for node in a b; do
    $node pg rm -f web >/dev/null 2>&1 || true
    $node pg node stop >/dev/null 2>&1 || true
  done
  ip netns del "$ns_a" 2>/dev/null || true
  ip netns del "$ns_b" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say 'Two nodes: 10.77.0.1 (a) and 10.77.0.2 (b)'
ip netns add "$ns_a"
ip netns add "$ns_b"
ip link add "pgda$tag" netns "$ns_a" type veth peer name "pgdb$tag" netns "$ns_b"
ip -n "$ns_a" addr add 10.77.0.1/24 dev "pgda$tag"
ip -n "$ns_b" addr add 10.77.0.2/24 dev "pgdb$tag"
for end in "$ns_a pgda$tag" "$ns_b pgdb$tag"; do
  # shellcheck disable=SC2086
  set -- $end
  ip -n "$1" link set lo up
  ip -n "$1" link set "$2" up
done

show a pg node start --detach --listen 10.77.0.1:7411
show b pg node start --detach --listen 10.77.0.2:7411
id_a=$(a pg node id --quiet)
id_b=$(b pg node id --quiet)
show a pg peer add node-b 10.77.0.2:7411 "$id_b"
show b pg peer add node-a 10.77.0.1:7411 "$id_a"

say 'Import and run on node a'
show a pg import "oci-archive:$image"
show a pg images
show a pg run -d -p 8080:80 --name web nginx:latest
show a pg ps
printf '\na$ curl http://10.77.0.1:8080/\n'
there b http://10.77.0.1:8080/
b curl -fsS http://10.77.0.1:8080/

say 'Write into its writable layer: 8 MiB and a note, over HTTP'
head -c 8388608 /dev/urandom > "$work/blob"
b curl -fsS -T "$work/blob" http://10.77.0.1:8080/notes/blob
echo 'written on node a' | b curl -fsS -T - http://10.77.0.1:8080/notes/a.txt
before=$(sha256sum < "$work/blob")

say 'Move it to node b (its processes are stopped and started; memory does not travel yet)'
show a pg migrate --dry-run web node-b
show a pg migrate web node-b
show a pg ps -a
show b pg ps
there a http://10.77.0.2:8080/
after=$(a curl -fsS http://10.77.0.2:8080/notes/blob | sha256sum)
[ "$before" = "$after" ] || { echo "the bytes differ after the move" >&2; exit 1; }
a curl -fsS http://10.77.0.2:8080/notes/a.txt

say 'Write on node b, and move it back: only what changed is shipped'
echo 'written on node b' | a curl -fsS -T - http://10.77.0.2:8080/notes/b.txt
show b pg migrate web node-a
there b http://10.77.0.1:8080/
b curl -fsS http://10.77.0.1:8080/notes/b.txt
again=$(b curl -fsS http://10.77.0.1:8080/notes/blob | sha256sum)
[ "$before" = "$again" ] || { echo "the bytes differ after the move back" >&2; exit 1; }
show a pg inspect --format '{{json .Pg.Position}}' web

say 'shown: a real nginx imported, run on a FUSE root, written to, moved to node b and back, with the same bytes and equal roots'
