#!/bin/sh
# PostgreSQL with its cluster in the container's writable layer: made at the first start, there at the second.
set -eu
PATH="$(dirname -- "$0")/../bin:$PATH"
image=${IMAGE:-${PG_IMAGE_CACHE:-$(dirname -- "$0")/../.cache/images}/postgres.tar}
ready() { until pg exec db psql -U postgres -qtc 'select 1' >/dev/null 2>&1; do sleep 0.3; done; }

pg import "oci-archive:$image"
pg run -d --name db postgres:latest
ready
pg exec db psql -U postgres -qc 'create table t as select i, md5(i::text) as h from generate_series(1, 100000) i'
pg exec db psql -U postgres -qtAc 'select count(*), md5(string_agg(h, $$$$ order by i)) from t'
pg stop db
pg start db
ready
pg exec db psql -U postgres -qtAc 'select count(*), md5(string_agg(h, $$$$ order by i)) from t'
pg rm -f db
