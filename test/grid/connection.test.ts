import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectTcp, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  connect as connectTls,
  createServer as createTlsServer,
  type ConnectionOptions,
  type TLSSocket,
} from 'node:tls';
import { selfSignedCertificate } from '../../grid/certificate.ts';
import type { Connection, Services } from '../../grid/connection.ts';
import { dial } from '../../grid/dial.ts';
import { loadIdentity } from '../../grid/identity.ts';
import { listen, type Listener } from '../../grid/listen.ts';
import { addPeer, getPeer, removePeer, type Peer } from '../../grid/peers.ts';
import { FrameReader, type Frame } from '../../grid/wire.ts';
import { isPgError, PgError } from '../../mdm/error.ts';
import { resolveRoots, type Roots } from '../../store/paths.ts';

/** Two nodes that know each other: `b` listens, `a` dials it as peer 'b'. */
describe('a connection', () => {
  let dir: string;
  let a: Roots;
  let b: Roots;
  let listener: Listener;
  let logged: string[];
  let services: Services;
  const open: { close(): void }[] = [];
  const impatient = { tickMs: 50, silentTicks: 8 };

  const peerB = (): Peer => getPeer(a, 'b');

  async function dialB(patience = impatient): Promise<Connection> {
    const connection = await dial(a, peerB(), {}, patience);
    open.push(connection);
    return connection;
  }

  beforeEach(async () => {
    dir = mkdtempSync('/var/tmp/pg-test-');
    a = resolveRoots(join(dir, 'a'), {}, 0);
    b = resolveRoots(join(dir, 'b'), {}, 0);
    logged = [];
    services = {
      contents: {
        echo: async ({ body, bulk }) => ({ body, bulk }),
        fail: async () => {
          throw new PgError('SOME_CODE', 'some words', { hint: 'a hint' });
        },
        never: () => new Promise(() => undefined),
      },
    };
    const host = { serve: (): Services => services, log: (line: string) => void logged.push(line) };
    listener = await listen(b, { host: '127.0.0.1', port: 0 }, host, impatient);
    addPeer(a, 'b', addressOf(listener), loadIdentity(b).id);
    addPeer(b, 'a', '127.0.0.1:1', loadIdentity(a).id);
  });
  afterEach(async () => {
    for (const thing of open.splice(0)) thing.close();
    await listener.close();
    rmSync(dir, { recursive: true });
  });

  it('carries requests, answers, bulk bytes and errors', async () => {
    const connection = await dialB();
    const bulk = Buffer.alloc(4 << 20, 'sector');
    const answers = await Promise.all(
      [1, 2, 3, 4].map((n) => connection.request('contents', 'echo', { n, deep: [{ x: new Uint8Array([n]) }] }, bulk)),
    );
    for (const [i, answer] of answers.entries()) {
      assert.equal(answer.body['n'], i + 1);
      assert.ok(answer.bulk.equals(bulk));
    }
    await assert.rejects(connection.request('contents', 'fail'), {
      code: 'SOME_CODE',
      message: 'some words',
      hint: 'a hint',
    });
    await assert.rejects(connection.request('contents', 'constructor'), { code: 'UNKNOWN_REQUEST' });
    await assert.rejects(connection.request('migrate', 'echo'), { code: 'UNKNOWN_REQUEST' });
    assert.ok(connection.traffic.sentBytes > 16 << 20 && connection.traffic.receivedBytes > 16 << 20);
  });

  it('takes more than the unanswered bound without losing or reordering any', async () => {
    const order: number[] = [];
    let running = 0;
    let most = 0;
    services.contents!['slow'] = async ({ body, bulk }) => {
      most = Math.max(most, ++running);
      order.push(body['n'] as number);
      await sleep(5);
      running--;
      return { body: { n: body['n']!, first: bulk[0]! } };
    };
    const connection = await dialB();
    const all = Array.from({ length: 40 }, async (_, n) =>
      connection.request('contents', 'slow', { n }, Buffer.alloc(4 << 20, n)),
    );
    for (const [n, answer] of (await Promise.all(all)).entries()) assert.deepEqual(answer.body, { n, first: n });
    assert.deepEqual(order, [...order.keys()]);
    assert.ok(most <= 10, `${most} sectors were in memory at once`);
  });

  it('is refused to a node that is not known, which is told so', async () => {
    removePeer(b, 'a');
    await assert.rejects(dialB(), (e: Error) => isPgError(e, 'PEER_UNKNOWN') && e.hint!.includes(loadIdentity(a).id));
    assert.match(logged.join('\n'), new RegExp(`PEER_UNKNOWN: refused 127.0.0.1:.*${loadIdentity(a).id}`));
    addPeer(b, 'a', '127.0.0.1:1', loadIdentity(a).id);
    await dialB();
  });

  it('is refused by the dialer when another key answers, and both sides say so', async () => {
    const c = resolveRoots(join(dir, 'c'), {}, 0);
    removePeer(a, 'b');
    addPeer(a, 'b', addressOf(listener), loadIdentity(c).id);
    await assert.rejects(
      dialB(),
      (e: Error) => isPgError(e, 'PEER_KEY_MISMATCH') && e.message.includes(addressOf(listener)),
    );
    while (logged.length === 0) await sleep(5);
    assert.match(logged.join('\n'), /not the one expected/);
    assert.ok(!logged.join('\n').includes(loadIdentity(c).id), 'who was meant is nobody else’s business');
  });

  it('needs a key: strangers without, or with one of another kind or version of TLS, get nothing', async () => {
    const ec = join(dir, 'ec.pem');
    const ecCert = join(dir, 'ec.crt');
    const request = [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:prime256v1',
      '-nodes',
      '-subj',
      '/CN=x',
    ];
    execFileSync('openssl', [...request, '-keyout', ec, '-out', ecCert], { stdio: 'pipe' });
    const own = loadIdentity(a);
    const strangers: ConnectionOptions[] = [
      {},
      { key: readFileSync(ec), cert: readFileSync(ecCert) },
      { key: own.keyPem, cert: own.certPem, maxVersion: 'TLSv1.2' },
      { key: own.keyPem, cert: own.certPem, ALPNProtocols: ['h2'] },
    ];
    for (const options of strangers) {
      const frames = await framesFrom(
        connectTls({ ...portOf(listener), rejectUnauthorized: false, ALPNProtocols: ['pg/1'], ...options }),
      );
      for (const { envelope, bulk } of frames) {
        assert.deepEqual([envelope.type, envelope.body['code'], bulk.length], ['error', 'PEER_UNKNOWN', 0]);
        assert.ok(!JSON.stringify(envelope.body).includes('12D3'));
      }
    }
    assert.equal(logged.length, strangers.length);
  });

  it('cannot be had with somebody else’s certificate', async () => {
    const certPem = loadIdentity(a).certPem;
    const { privateKey, publicKey } = generateKeyPairSync('ed25519');
    const forged = selfSignedCertificate(
      loadIdentity(a).id,
      privateKey,
      publicKey.export({ type: 'spki', format: 'der' }),
    );
    const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' });
    assert.throws(
      () => connectTls({ ...portOf(listener), key: keyPem, cert: certPem, rejectUnauthorized: false }),
      /key/i,
    );
    const frames = await framesFrom(
      connectTls({
        ...portOf(listener),
        key: keyPem,
        cert: forged,
        rejectUnauthorized: false,
        ALPNProtocols: ['pg/1'],
      }),
    );
    assert.deepEqual(
      frames.map((f) => f.envelope.body['code']),
      ['PEER_UNKNOWN'],
    );
  });

  it('never resumes a session', async () => {
    const identity = loadIdentity(a);
    const options: ConnectionOptions = {
      ...portOf(listener),
      key: identity.keyPem,
      cert: identity.certPem,
      rejectUnauthorized: false,
      ALPNProtocols: ['pg/1'],
    };
    const sessions: Buffer[] = [];
    for (let i = 0; i < 3; i++) {
      const last = sessions.at(-1);
      const socket = connectTls({ ...options, ...(last === undefined ? {} : { session: last }) });
      socket.on('session', (session: Buffer) => sessions.push(session));
      await once(socket, 'secureConnect');
      await sleep(30);
      assert.equal(socket.isSessionReused(), false);
      assert.equal(logged.length, 0, logged.join('\n'));
      socket.destroy();
      await once(socket, 'close');
    }
  });

  it('is refused by the dialer to whoever is no pg node', async () => {
    const identity = loadIdentity(b);
    const tls = createTlsServer({ key: identity.keyPem, cert: identity.certPem, ALPNProtocols: ['h2'] });
    tls.listen(0, '127.0.0.1');
    await once(tls, 'listening');
    const plain = createServer((socket) => socket.end('SSH-2.0-OpenSSH\r\n').resume());
    plain.listen(0, '127.0.0.1');
    await once(plain, 'listening');
    for (const server of [tls, plain]) {
      addPeer(a, 'b', `127.0.0.1:${(server.address() as AddressInfo).port}`, identity.id);
      await assert.rejects(dialB(), { code: 'PEER_UNREACHABLE' });
    }
    tls.close();
    plain.close();
    await once(plain, 'close');
    await assert.rejects(
      dialB(),
      (e: Error) => isPgError(e, 'PEER_UNREACHABLE') && e.message.includes('connection refused'),
    );
  });

  it('that breaks the rules of frames is ended, with the reason', async () => {
    const identity = loadIdentity(a);
    for (const bytes of [
      Buffer.alloc(8, 0xff),
      Buffer.from('0100000000000000ff', 'hex'),
      Buffer.from('GET / HTTP/1.1\r\n\r\n'),
    ]) {
      const socket = connectTls({
        ...portOf(listener),
        key: identity.keyPem,
        cert: identity.certPem,
        rejectUnauthorized: false,
        ALPNProtocols: ['pg/1'],
      });
      socket.write(bytes);
      const frames = await framesFrom(socket);
      assert.deepEqual(
        frames.map((f) => [f.envelope.id, f.envelope.body['code']]),
        [[0, 'BAD_MESSAGE']],
      );
    }
    assert.equal(logged.length, 3);
  });

  it('fails what was asked when the other side goes away', async () => {
    const connection = await dialB();
    const asked = connection.request('contents', 'never');
    const told = assert.rejects(asked, (e: Error) => isPgError(e, 'PEER_GONE') && e.message.includes('peer b'));
    void listener.close();
    await told;
    await assert.rejects(connection.request('contents', 'echo'), { code: 'PEER_GONE' });
  });

  it('is kept through silence while both live, and ended when the network goes dead', async () => {
    const proxy = await startProxy(listener.address.port);
    open.push(proxy);
    addPeer(a, 'b', `127.0.0.1:${proxy.port}`, loadIdentity(b).id);
    const connection = await dialB();
    await sleep(impatient.tickMs * impatient.silentTicks * 3);
    await connection.request('contents', 'echo');
    const told = assert.rejects(connection.request('contents', 'never'), { code: 'PEER_GONE' });
    proxy.goDead();
    await told;
    while (logged.length === 0) await sleep(5);
    assert.match(logged.join('\n'), /nothing was heard/);
  });

  it('to an address that is taken is refused with a word', async () => {
    const again = listen(b, listener.address, { serve: () => ({}), log: () => undefined });
    await assert.rejects(again, { code: 'ADDRESS_IN_USE' });
    await assert.rejects(listen(b, { host: '192.0.2.1', port: 0 }, { serve: () => ({}), log: () => undefined }), {
      code: 'ADDRESS_NOT_HERE',
    });
  });

  it('is refused while the peers cannot be read', async () => {
    writeFileSync(join(b.data, 'node/peers/a.json'), 'broken');
    await assert.rejects(dialB(), { code: 'PEER_UNKNOWN' });
    assert.match(logged.join('\n'), /a\.json is not a peer's file/);
  });
});

const addressOf = (l: Listener): string => `127.0.0.1:${l.address.port}`;
const portOf = (l: Listener): { host: string; port: number } => l.address;

/** Every frame that `socket` gives until the other side ends it, however it ends. */
async function framesFrom(socket: TLSSocket): Promise<Frame[]> {
  const frames: Frame[] = [];
  const reader = new FrameReader((frame) => frames.push(frame));
  socket.on('data', (chunk: Buffer) => reader.push(chunk));
  socket.on('error', () => undefined);
  await new Promise((resolve) => socket.on('close', resolve));
  return frames;
}

/** A TCP proxy to `port` that can stop passing anything on, in both directions, without closing: a cable that was pulled. */
async function startProxy(port: number): Promise<{ port: number; goDead(): void; close(): void }> {
  const sockets = new Set<Socket>();
  const server: Server = createServer((inner) => {
    const outer = connectTcp(port, '127.0.0.1');
    for (const [from, to] of [
      [inner, outer],
      [outer, inner],
    ] as const) {
      sockets.add(from);
      from.on('data', (chunk) => to.write(chunk));
      from.on('end', () => to.end());
      from.on('error', () => to.destroy());
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const goDead = (): void => {
    for (const socket of sockets) socket.removeAllListeners('data').removeAllListeners('end').pause();
  };
  const close = (): void => {
    for (const socket of sockets) socket.destroy();
    server.close();
  };
  return { port: (server.address() as AddressInfo).port, goDead, close };
}
