/** A container with a large written layer moves between two nodes (two network namespaces on this machine), then again after a change: bytes on the wire against bytes changed, and downtime. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { imageArchive } from '../examples/images/build.ts';
import { machine, median, PG, run, scratch, table } from './engines.ts';

const WRITTEN_MIB = Number(process.env['WRITTEN_MIB'] ?? 1024);
const CHANGED_MIB = [1, 16, 64];
const ROUNDS = Number(process.env['ROUNDS'] ?? 3);

const work = scratch('migrate');
const tag = work.dir.slice(-4);
const nodes = ['a', 'b'].map((name, i) => ({
  name,
  netns: `pgb${name}-${tag}`,
  address: `10.79.0.${i + 1}`,
  root: join(work.dir, name),
}));
const [a, b] = nodes as [(typeof nodes)[0], (typeof nodes)[0]];

const on = (node: typeof a, ...args: string[]): string =>
  run('nsenter', [`--net=/run/netns/${node.netns}`, PG, ...args], { PG_ROOT: node.root });

interface Report {
  wireBytes: number;
  rounds: number;
  downtimeMs: number;
}

const move = (from: typeof a, to: typeof a): Report =>
  JSON.parse(on(from, 'migrate', '--format', 'json', 'web', to.name)) as Report;

function connect(): void {
  for (const node of nodes) run('ip', ['netns', 'add', node.netns]);
  run('ip', [
    'link',
    'add',
    `pga${tag}`,
    'netns',
    a.netns,
    'type',
    'veth',
    'peer',
    'name',
    `pgb${tag}`,
    'netns',
    b.netns,
  ]);
  for (const node of nodes) {
    mkdirSync(node.root);
    run('ip', ['-n', node.netns, 'addr', 'add', `${node.address}/24`, 'dev', `pg${node.name}${tag}`]);
    for (const device of ['lo', `pg${node.name}${tag}`]) run('ip', ['-n', node.netns, 'link', 'set', device, 'up']);
    on(node, 'node', 'start', '--detach', '--listen', `${node.address}:7411`);
  }
  for (const [node, peer] of [
    [a, b],
    [b, a],
  ] as const)
    on(node, 'peer', 'add', peer.name, `${peer.address}:7411`, on(peer, 'node', 'id', '--quiet').trim());
}

try {
  connect();
  on(a, 'import', '-q', `oci-archive:${imageArchive('busybox')}`);
  on(a, 'run', '-d', '--name', 'web', '--init', 'busybox', 'sleep', '100000');
  on(a, 'exec', 'web', 'sh', '-c', `dd if=/dev/urandom of=/data bs=1M count=${WRITTEN_MIB} 2>/dev/null; sync`);
  const rows: string[][] = [];
  const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(2)} MiB`;
  const first = move(a, b);
  rows.push([
    `first move, ${WRITTEN_MIB} MiB written`,
    mib(first.wireBytes),
    `${(first.wireBytes / 2 ** 20 / WRITTEN_MIB).toFixed(3)} x`,
    `${(first.downtimeMs / 1000).toFixed(2)} s`,
  ]);
  let [from, to] = [b, a];
  for (const changed of CHANGED_MIB) {
    const reports: Report[] = [];
    for (let i = 0; i < ROUNDS; i++) {
      on(
        from,
        'exec',
        'web',
        'sh',
        '-c',
        `dd if=/dev/urandom of=/data bs=1M count=${changed} seek=${i * 100} conv=notrunc 2>/dev/null; sync`,
      );
      reports.push(move(from, to));
      [from, to] = [to, from];
    }
    const wire = median(reports.map((r) => r.wireBytes));
    rows.push([
      `again, ${changed} MiB changed in place`,
      mib(wire),
      `${(wire / 2 ** 20 / changed).toFixed(3)} x`,
      `${(median(reports.map((r) => r.downtimeMs)) / 1000).toFixed(2)} s`,
    ]);
  }
  process.stdout.write(`${machine()}; medians of ${ROUNDS}\n`);
  table('Moves between two nodes', ['', 'bytes on the wire', 'wire / changed', 'downtime'], rows);
} finally {
  for (const node of nodes) {
    for (const args of [
      ['rm', '-f', 'web'],
      ['node', 'stop'],
    ]) {
      try {
        on(node, ...args);
      } catch {
        // It is not on this node, or it never came so far.
      }
    }
    try {
      run('ip', ['netns', 'del', node.netns]);
    } catch {
      // Not made.
    }
  }
  work.clean();
}
