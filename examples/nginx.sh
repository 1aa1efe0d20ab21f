#!/bin/sh
# nginx on port 8080. What a visitor writes goes to the container's log, and is there after a restart.
set -eu
PATH="$(dirname -- "$0")/../bin:$PATH"
image=${IMAGE:-${PG_IMAGE_CACHE:-$(dirname -- "$0")/../.cache/images}/nginx.tar}

pg import "oci-archive:$image"
pg run -d --name web -p 8080:80 nginx:latest
curl -fsS --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:8080/

echo 'hello, grid' | curl -fsS -T - http://127.0.0.1:8080/notes/hello.txt
pg restart web
curl -fsS --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:8080/notes/hello.txt

pg diff web
pg inspect --format '{{json .Pg.Position}}' web # the root of everything it ever wrote
pg rm -f web
