#!/bin/sh
# A counter in redis with every increment fsync'd; kill -9 of the container loses none that was answered.
set -eu
PATH="$(dirname -- "$0")/../bin:$PATH"
image=${IMAGE:-${PG_IMAGE_CACHE:-$(dirname -- "$0")/../.cache/images}/redis.tar}

pg import "oci-archive:$image"
pg run -d --name counter redis:latest
until pg exec counter redis-cli ping 2>/dev/null | grep -q PONG; do sleep 0.2; done

for _ in 1 2 3 4 5 6 7 8 9 10; do pg exec counter redis-cli incr visits; done
pg kill counter
pg start counter
until pg exec counter redis-cli ping 2>/dev/null | grep -q PONG; do sleep 0.2; done
pg exec counter redis-cli get visits
pg rm -f counter
