import { PACKAGE } from './lower.ts';
import { inside, perSecond, type Row } from './row.ts';

const TRANSACTIONS = 2000;
const PGBENCH_SECONDS = 8;
const SETS = 20_000;

const sqlite = Array.from(
  { length: TRANSACTIONS },
  (_, i) => `insert into t values (${i}, 'row ${i} of the table');`,
).join('\n');

/** The number that a program prints before or after these words. */
function numberIn(text: string, pattern: RegExp): number {
  const found = pattern.exec(text)?.[1];
  if (found === undefined) throw new Error(`no figure in: ${text}`);
  return Number(found);
}

const postgres = '/usr/lib/postgresql/15/bin';
/** Runs a script beside a postgres whose data is in the mount. */
const withPostgres = (root: string, script: string): string =>
  inside(
    root,
    `cd /var/tmp; ${postgres}/pg_ctl -D /var/tmp/pgdata -w -l /var/tmp/pg.log -o "-h '' -k /var/tmp -c dynamic_shared_memory_type=mmap" start >/dev/null
     trap '${postgres}/pg_ctl -D /var/tmp/pgdata -m fast stop >/dev/null' EXIT
     ${script}`,
    'postgres',
  );

/** Programs that people run in containers, with the mount as their root. */
export function programRows(): Row[] {
  return [
    {
      name: 'sqlite, an insert a transaction',
      unit: 'inserts/s',
      prepare: (root) => void inside(root, `sqlite3 /bench/s.db 'create table t (id integer primary key, text)'`),
      measure: (root) => perSecond(TRANSACTIONS, () => inside(root, `sqlite3 /bench/s.db <<'SQL'\n${sqlite}\nSQL`)),
    },
    {
      name: 'postgres (pgbench, 4 clients)',
      unit: 'tps',
      prepare: (root) => {
        inside(root, `${postgres}/initdb -D /var/tmp/pgdata --auth=trust >/dev/null`, 'postgres');
        withPostgres(root, 'pgbench -h /var/tmp -i -q -s 5 postgres >/dev/null 2>&1');
      },
      measure: (root) =>
        numberIn(withPostgres(root, `pgbench -h /var/tmp -c 4 -T ${PGBENCH_SECONDS} postgres 2>&1`), /tps = ([\d.]+)/),
    },
    {
      name: 'redis, appendfsync always',
      unit: 'sets/s',
      measure: (root) =>
        numberIn(
          inside(
            root,
            `mkdir -p /bench/redis; redis-server --port 0 --unixsocket /bench/redis/s --dir /bench/redis --appendonly yes --appendfsync always --daemonize yes >/dev/null
             trap 'redis-cli -s /bench/redis/s shutdown nosave >/dev/null 2>&1 || true' EXIT
             for i in 1 2 3 4 5 6 7 8 9; do redis-cli -s /bench/redis/s ping >/dev/null 2>&1 && break; sleep 0.1; done
             redis-benchmark -s /bench/redis/s -t set -n ${SETS} -c 8 --csv`,
          ),
          /"SET","?([\d.]+)/,
        ),
    },
    {
      name: `apt-get install ${PACKAGE}`,
      unit: 'installs/min',
      measure: (root) =>
        60 *
        perSecond(1, () =>
          inside(
            root,
            `DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends --no-download install ${PACKAGE} >/dev/null 2>&1`,
          ),
        ),
    },
  ];
}
