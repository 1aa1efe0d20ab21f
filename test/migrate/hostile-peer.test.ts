import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { openLog } from '../../fs/log/log.ts';
import { openView } from '../../fs/view/open-view.ts';
import { encodeEnvelope, type Body, type Value } from '../../grid/envelope.ts';
import { loadIdentity } from '../../grid/identity.ts';
import { addPeer } from '../../grid/peers.ts';
import type { ProtocolName } from '../../grid/protocol.ts';
import { FrameReader, type Frame } from '../../grid/wire.ts';
import { listImages } from '../../layers/images.ts';
import { openTree } from '../../layers/tree.ts';
import { bufferRoot, sectorRoot } from '../../mdm/merkle.ts';
import { startDetached, stopNode } from '../../runtime/node-control.ts';
import { nodeStatus, type NodeStatus } from '../../runtime/node.ts';
import { resolveRoots, type Roots } from '../../store/paths.ts';
import { openStore } from '../../store/store.ts';
import { sampleRecord } from '../runtime/sample-record.ts';
import { noise } from '../store/fixture.ts';

const CONVERSATIONS = Math.ceil(Number(process.env['PG_TEST_CASES'] ?? 3000) / 20);
const SEED = Number(process.env['PG_TEST_SEED'] ?? 1);
const ID = 'ab'.repeat(32);
const ROOT = { uid: 0, gid: 0, pid: 1 };
const BOUND_BYTES = 700 << 20;

interface Asked {
  protocol: ProtocolName;
  name: string;
  body: Body;
  bulk: Buffer;
}

/** A known peer that says anything at all, to a daemon as it is (docs/protocols): an error for each, and nothing comes of it. */
describe('a node with a peer that breaks every rule', function () {
  this.timeout(300_000);
  let dir: string;
  let a: Roots;
  let b: Roots;
  let status: NodeStatus;
  let requests: Asked[];
  let x = SEED;
  const random = (below: number): number => (x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0) % below;

  before(async () => {
    dir = mkdtempSync('/var/tmp/pg-test-');
    a = resolveRoots(join(dir, 'a'), {}, 0);
    b = resolveRoots(join(dir, 'b'), {}, 0);
    addPeer(b, 'a', '127.0.0.1:1', loadIdentity(a).id);
    loadIdentity(b);
    status = await startDetached(b, { host: '127.0.0.1', port: 0 });
    requests = validRequests(await writtenLog(a));
  });
  after(async () => {
    if (b !== undefined) await stopNode(b);
    if (dir !== undefined) rmSync(dir, { recursive: true, force: true });
  });

  function dialRaw(): TLSSocket {
    const { keyPem: key, certPem: cert } = loadIdentity(a);
    const at = { host: '127.0.0.1', port: status.address.port };
    const socket = connectTls({ ...at, key, cert, rejectUnauthorized: false, ALPNProtocols: ['pg/1'] });
    socket.on('error', () => undefined);
    return socket;
  }

  /** Says these bytes; what is answered until as many answers are here as wanted, or the node hangs up. */
  async function answersTo(pieces: readonly Buffer[], wanted: number): Promise<Frame[]> {
    const socket = dialRaw();
    const answers: Frame[] = [];
    const done = Promise.withResolvers<void>();
    const reader = new FrameReader((frame) => {
      answers.push(frame);
      if (answers.length >= wanted) done.resolve();
    });
    socket.on('data', (chunk: Buffer) => reader.push(chunk));
    socket.on('close', () => done.resolve());
    for (const piece of pieces) socket.write(piece);
    if (wanted > 0) await done.promise;
    // Now and then right in the middle of what it does.
    else await sleep(random(5));
    socket.destroy();
    return answers;
  }

  const daemonRss = (): number =>
    Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${status.pid}/status`, 'utf8'))![1]) * 1024;
  const containers = (): string[] =>
    existsSync(join(b.data, 'containers')) ? readdirSync(join(b.data, 'containers')) : [];

  it('answers with errors, holds little memory, keeps nothing, and goes on', async () => {
    for (let conversation = 0; conversation < CONVERSATIONS; conversation++) {
      const said: Asked[] = [];
      for (let count = 1 + random(10); count > 0; count--)
        said.push(changed(requests[random(requests.length)]!, random));
      const frames = said.map((asked, i) => framed(asked, i + 1));
      const isCut = random(4) === 0;
      if (isCut) frames[frames.length - 1] = broken(frames.at(-1)!, random);
      const answers = await answersTo(frames, isCut ? 0 : said.length);
      for (const { envelope } of answers) {
        if (envelope.type !== 'error') continue;
        const why = JSON.stringify(envelope.body);
        assert.notEqual(envelope.body['code'], 'INTERNAL', `seed ${SEED}, ${conversation}: ${envelope.name}: ${why}`);
      }
    }
    assert.equal(nodeStatus(b)?.pid, status.pid, readFileSync(join(b.data, 'node/node.log'), 'utf8').slice(-3000));
    assert.deepEqual(
      containers().filter((id) => id !== ID),
      [],
    );
    const store = openStore(b);
    assert.deepEqual(listImages(store), []);
    await store.close();
    assert.ok(daemonRss() < BOUND_BYTES, `${daemonRss() >> 20} MiB`);
  });

  it('lets go of a container whose coming was cut, at whatever moment', async () => {
    const prepare = requests.find(({ name }) => name === 'prepare')!;
    for (let i = 0; i < 20; i++) await answersTo([framed(prepare, 1), framed(prepare, 2)], i % 2);
    // Two conversations cannot have it at once; here it must be free again at once.
    let answers: Frame[] = [];
    for (let tries = 0; tries < 100; tries++) {
      answers = await answersTo([framed(prepare, 1)], 1);
      if (answers[0]!.envelope.type === 'reply') break;
      assert.equal(answers[0]!.envelope.body['code'], 'CONTAINER_BUSY');
      await sleep(20);
    }
    assert.equal(answers[0]!.envelope.type, 'reply');
  });

  it('does not fill its memory with answers that are not taken, nor with pieces of a node without end', async () => {
    const before = daemonRss();
    const [root, sector] = [requests.find(({ name }) => name === 'sector')!.body['root']!, noise(4 << 20, 1)];
    const put = [
      framed({ protocol: 'contents', name: 'sector', body: { root }, bulk: sector }, 1),
      framed({ protocol: 'contents', name: 'settle', body: {}, bulk: Buffer.alloc(0) }, 2),
    ];
    assert.deepEqual(
      (await answersTo(put, 2)).map(({ envelope }) => envelope.type),
      ['reply', 'reply'],
    );
    const socket = dialRaw();
    await once(socket, 'secureConnect');
    socket.pause();
    for (let i = 1; i <= 500; i++)
      socket.write(framed({ protocol: 'contents', name: 'sector-copy', body: { root }, bulk: Buffer.alloc(0) }, i));
    const endless = Buffer.alloc(4 << 20);
    endless.writeUInt32LE(1 << 30, 32);
    await answersTo(
      Array.from({ length: 40 }, (_, i) =>
        framed({ protocol: 'contents', name: 'nodes', body: {}, bulk: endless }, i + 1),
      ),
      40,
    );
    await sleep(300);
    assert.ok(daemonRss() < before + (300 << 20), `${daemonRss() >> 20} MiB after ${before >> 20}`);
    socket.destroy();
  });
});

const framed = ({ protocol, name, body, bulk }: Asked, id: number): Buffer => {
  const envelope = encodeEnvelope({ protocol, type: 'request', id, name, body });
  const head = Buffer.alloc(8);
  head.writeUInt32LE(envelope.length, 0);
  head.writeUInt32LE(bulk.length, 4);
  return Buffer.concat([head, envelope, bulk]);
};

/** A log with a file in it, and a checkpoint. */
async function writtenLog(roots: Roots): Promise<{ log: Buffer; checkpoint: Buffer; size: number; root: Buffer }> {
  const store = openStore(roots);
  const log = openLog(join(roots.data, 'log'), { create: true });
  const view = openView(openTree(store, null), store, log);
  const { ino } = view.mknod(1, 'file', 0o100644, 0, ROOT);
  view.write(ino, 0, noise(100_000, 3), false);
  view.flush();
  view.synced(log.written);
  view.checkpoint();
  const { size, root } = log.position();
  view.close();
  await store.close();
  const file = (name: string): Buffer => readFileSync(join(roots.data, 'log', name));
  return { log: file('log').subarray(0, size), checkpoint: file('checkpoint'), size, root: Buffer.from(root) };
}

/** One of each request, as it could be right. */
function validRequests(written: Awaited<ReturnType<typeof writtenLog>>): Asked[] {
  const none = Buffer.alloc(0);
  const sector = noise(4 << 20, 1);
  const root = sectorRoot(sector);
  const node = noise(500, 2);
  const head = Buffer.concat([bufferRoot(node), Buffer.from(Uint32Array.of(node.length).buffer)]);
  const extent = Buffer.alloc(44 + 44);
  extent.set(bufferRoot(sector.subarray(0, 64)), 0);
  extent.writeBigUInt64BE(64n, 32);
  extent.writeUInt32LE(1, 40);
  extent.set(root, 44);
  extent.writeUInt32LE(64, 44 + 36);
  const image = {
    id: `sha256:${ID}`,
    treeRoot: root,
    config: Buffer.from('{}'),
    layers: [],
    platform: 'linux/amd64',
    size: 1,
  };
  const record = JSON.stringify(sampleRecord(ID, 'hostile'));
  const prepare = { record, epoch: 1, running: false, platform: '', bytes: 0, dry: false };
  const of = (protocol: ProtocolName, all: [string, Body, Buffer?][]): Asked[] =>
    all.map(([name, body, bulk = none]) => ({ protocol, name, body, bulk }));
  return [
    ...of('node', [
      ['hello', { software: 'x' }],
      ['ping', {}],
      ['nothing', {}],
    ]),
    ...of('contents', [
      ['image-known', { id: `sha256:${ID}`, treeRoot: root }],
      ['lacking', { kind: 'nodes' }, Buffer.concat([root, root])],
      ['lacking', { kind: 'contents' }, randomBytes(80)],
      ['sector', { root }, sector],
      ['settle', {}],
      ['contents', {}, extent],
      ['nodes', {}, Buffer.concat([head, node])],
      ['image', { ...image, names: ['x:latest'], recipes: [] }],
      ['sector-copy', { root }],
      ['node-copy', { root }],
    ]),
    ...of('migrate', [
      ['prepare', prepare],
      ['prepare', { ...prepare, dry: true }],
      ['log', { offset: 0 }, written.log],
      ['log', { offset: written.log.length }, written.log],
      ['base', { from: 0, size: written.size }],
      ['base-checkpoint', {}, written.checkpoint],
      ['base-bytes', { offset: 0 }, written.log],
      ['base-gone', { sector: 0, root }],
      ['base-done', {}],
      ['sync', { follow: false }],
      ['seal', { epoch: 1, size: written.size, root: written.root, meter: '' }],
      ['hand-over', { envelope: '2mdyaWSF', signature: 'AAAA', start: false }],
      ['start', { container: ID }],
      ['status', { container: ID }],
    ]),
  ];
}

/** The request as it is (now and then), or with something else in it. */
function changed(asked: Asked, random: (below: number) => number): Asked {
  const body: Body = { ...asked.body };
  let { bulk } = asked;
  const keys = Object.keys(body);
  const what = random(6);
  const key = keys[random(Math.max(keys.length, 1))];
  if (what === 0 && key !== undefined) delete body[key];
  if (what === 1 && key !== undefined) body[key] = odd(random);
  if (what === 2 && key === 'record') body[key] = oddRecord(random);
  if (what === 3) bulk = bulk.subarray(0, random(bulk.length + 1));
  if (what === 4 && bulk.length > 0) {
    bulk = Buffer.from(bulk);
    bulk[random(bulk.length)]! ^= 1 << random(8);
  }
  if (what === 5 && random(3) === 0) bulk = randomBytes(random(5000));
  return { ...asked, body, bulk };
}

function odd(random: (below: number) => number): Value {
  const values: Value[] = [
    null,
    true,
    0,
    -1,
    1,
    Number.MAX_SAFE_INTEGER,
    -Number.MAX_SAFE_INTEGER,
    '',
    'x',
    '../../x',
    '\0',
    'é'.repeat(5000),
  ];
  values.push(
    Buffer.alloc(0),
    randomBytes(32),
    randomBytes(40),
    [],
    [[[]]],
    {},
    { a: { b: [] } },
    [{ diffId: 1 }],
    ['a', 1],
  );
  return values[random(values.length)]!;
}

/** A record with a member, somewhere in it, that is something else. */
function oddRecord(random: (below: number) => number): string {
  const record = structuredClone(sampleRecord(ID, 'hostile')) as unknown as Record<string, unknown>;
  const place = random(2) === 0 ? record : (record['config'] as Record<string, unknown>);
  const keys = Object.keys(place);
  const values = [null, 7, -1, 'x', '../..', [], [null], [{}], {}, { a: 1 }, [['x']], '\u001b[2J', true];
  place[keys[random(keys.length)]!] = values[random(values.length)];
  return JSON.stringify(record);
}

/** A frame that is cut, or whose bytes are not what was meant. */
function broken(frame: Buffer, random: (below: number) => number): Buffer {
  if (random(2) === 0) return frame.subarray(0, random(frame.length));
  const bytes = Buffer.from(frame);
  for (let count = 1 + random(4); count > 0; count--) bytes[random(Math.min(bytes.length, 300))]! ^= 1 << random(8);
  return bytes;
}
