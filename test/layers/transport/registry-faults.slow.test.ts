/**
 * Registries that cut, stall, lie and send us elsewhere: small servers of our own, most of them in front of the real
 * one's data.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { digestOf } from '../../../layers/transport/digest.ts';
import { openSource } from '../../../layers/transport/open.ts';
import type { SourceOptions } from '../../../layers/transport/source.ts';
import { assertIsSample, collect, failure, readAll } from './checks.ts';
import { blobsOf, sampleImage, sampleLayer, type SampleImage } from './samples.ts';
import {
  havePrograms,
  makeTempDir,
  misbehaving,
  pushImage,
  removeTempDir,
  respond,
  startRegistry,
  type Misbehaving,
} from './services.ts';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const BIG_BYTES = 3 << 20;

describe('registries that misbehave', function () {
  this.timeout(120_000);
  let dir: string;
  let image: SampleImage;
  const servers: Misbehaving[] = [];
  const options = (): SourceOptions => ({ env: { HOME: dir, XDG_RUNTIME_DIR: dir } });

  /** A registry of just this image; `handle` may take a request over by answering true. */
  const serve = async (
    handle: (request: IncomingMessage, response: ServerResponse) => unknown,
  ): Promise<Misbehaving> => {
    const server = await misbehaving(async (request, response) => {
      if ((await handle(request, response)) === true) return;
      const blob = /\/blobs\/(.+)$/.exec(request.url!)?.[1];
      if (request.url!.includes('/manifests/')) respond(response, 200, image.manifest, { 'content-type': MANIFEST });
      else if (blob !== undefined) serveRange(request, response, blobsOf(image).get(blob)!);
      else respond(response, 200, Buffer.from('{}'));
    });
    servers.push(server);
    return server;
  };

  const serveManifest = (body: Buffer, headers: Record<string, string> = {}): Promise<Misbehaving> =>
    serve((request, response) => {
      if (!request.url!.includes('/manifests/')) return false;
      respond(response, 200, body, { 'content-type': MANIFEST, ...headers });
      return true;
    });

  before(async () => {
    // Bytes that differ everywhere: a piece taken twice or left out shows.
    const noise = Buffer.alloc(BIG_BYTES);
    for (let i = 0; i < BIG_BYTES; i += 4) noise.writeUInt32LE((Math.imul(i, 2654435761) ^ (i >>> 3)) >>> 0, i);
    image = sampleImage([await sampleLayer({ noise }, 'none'), await sampleLayer({ a: 'a' })]);
  });
  beforeEach(() => (dir = makeTempDir()));
  afterEach(async () => {
    for (const server of servers.splice(0)) await server.stop();
    removeTempDir(dir);
  });

  it('a real registry behind a proxy that cuts every connection: resumed by ranges', async function () {
    if (!havePrograms('docker-registry')) this.skip();
    const registry = await startRegistry(dir);
    try {
      await pushImage(registry.host, 'app', '1', image);
      const ranges: string[] = [];
      const proxy = await misbehaving(async (incoming, response) => {
        const { range } = incoming.headers;
        if (range) ranges.push(range);
        const answer = await fetch(`http://${registry.host}${incoming.url}`, {
          headers: { accept: incoming.headers.accept ?? '*/*', ...(range ? { range } : {}) },
        });
        response.writeHead(answer.status, Object.fromEntries(answer.headers));
        const body = Buffer.from(await answer.arrayBuffer());
        // Cut within each answer that is long.
        response.write(body.subarray(0, 700_000), () => (body.length > 700_000 ? response.destroy() : response.end()));
      });
      servers.push(proxy);
      assertIsSample(await readAll(`docker://${proxy.host}/app:1`, options()), image);
      // The layer is read twice by readAll, each time in five pieces; how much of a piece arrives before the cut is not
      // ours to say.
      assert.ok(ranges.length >= 8, ranges.join());
      assert.ok(ranges.every((range) => /^bytes=\d+-$/.test(range)));
    } finally {
      await registry.stop();
    }
  });

  it('a server that knows no ranges: what was there already is passed over', async () => {
    let cuts = 0;
    const server = await serve((request, response) => {
      if (!request.url!.endsWith(image.layers[0]!.digest) || cuts === 3) return false;
      cuts++;
      const { blob } = image.layers[0]!;
      response.writeHead(200, { 'content-length': blob.length });
      response.write(blob.subarray(0, 500_000 * cuts), () => response.destroy());
      return true;
    });
    const read = await openSource(`docker://${server.host}/app:1`, options());
    const layer = (await read.manifest()).layers[0]!;
    server.requests.length = 0;
    assert.ok((await collect(read.openBlob(layer))).equals(image.layers[0]!.blob));
    assert.equal(cuts, 3);
    await read.close();
  });

  it('a server that goes away in the middle of a blob and comes back', async () => {
    let server: Misbehaving | undefined;
    let isFirst = true;
    server = await serve((request, response) => {
      if (!isFirst || !request.url!.endsWith(image.layers[0]!.digest)) return false;
      isFirst = false;
      const { blob } = image.layers[0]!;
      response.writeHead(200, { 'content-length': blob.length });
      const listener = server!.server;
      const port = Number(server!.host.split(':')[1]);
      response.write(blob.subarray(0, 1_000_000), () => {
        listener.close();
        listener.closeAllConnections();
        void sleep(500).then(() => listener.listen(port, '127.0.0.1'));
      });
      return true;
    });
    const source = await openSource(`docker://${server.host}/app:1`, options());
    const layer = (await source.manifest()).layers[0]!;
    assert.ok((await collect(source.openBlob(layer))).equals(image.layers[0]!.blob));
    assert.equal(isFirst, false);
    await source.close();
    if (!server.server.listening) await once(server.server, 'listening');
  });

  it('503 and 429 pass when they pass', async () => {
    const failures = new Map<string, number>();
    const server = await serve((request, response) => {
      const count = failures.get(request.url!) ?? 0;
      failures.set(request.url!, count + 1);
      if (count >= 2 || request.url === '/v2/') return false;
      respond(response, count === 0 ? 503 : 429, Buffer.from('{}'), { 'retry-after': '1' });
      return true;
    });
    assertIsSample(await readAll(`docker://${server.host}/app:1`, options()), image);
    assert.ok([...failures.values()].every((count) => count >= 1));
  });

  it('429 and 500 for ever end with what the registry said', async () => {
    for (const [status, code] of [
      [429, 'RATE_LIMITED'],
      [500, 'REGISTRY_UNAVAILABLE'],
    ] as const) {
      const server = await serve((_, response) => {
        respond(
          response,
          status,
          Buffer.from(JSON.stringify({ errors: [{ code: 'TOOMANYREQUESTS', message: 'slow\u001b[31m down' }] })),
        );
        return true;
      });
      const error = await failure(() => readAll(`docker://${server.host}/app:1`, options()), code);
      assert.match(error.message, /TOOMANYREQUESTS slow \[31m down/, 'and nothing that a terminal would obey');
      assert.ok(server.requests.length <= 8, `${server.requests.length} requests`);
    }
  });

  it('other bytes than promised', async () => {
    const { blob, digest } = image.layers[0]!;
    const changed = Buffer.from(blob);
    changed[BIG_BYTES >> 1]! ^= 0x10;
    const cases: [what: (request: IncomingMessage, response: ServerResponse) => void, code: string][] = [
      [(_, response) => respond(response, 200, changed), 'DIGEST_MISMATCH'],
      [(_, response) => respond(response, 200, blob.subarray(0, -1)), 'TRUNCATED'],
      [(_, response) => respond(response, 200, Buffer.concat([blob, Buffer.alloc(1)])), 'SIZE_MISMATCH'],
      // Without a length the excess shows only in the stream.
      [(_, response) => void response.writeHead(200).end(Buffer.concat([blob, Buffer.alloc(9)])), 'SIZE_MISMATCH'],
      [(_, response) => respond(response, 404, Buffer.from('{}')), 'IMAGE_NOT_FOUND'],
      // The second read, after a cut, serves something else.
      [
        (request, response) => {
          if (request.headers.range) return serveRange(request, response, changed);
          response.writeHead(200, { 'content-length': blob.length });
          response.write(blob.subarray(0, 100_000), () => response.destroy());
        },
        'DIGEST_MISMATCH',
      ],
    ];
    for (const [answer, code] of cases) {
      const server = await serve((request, response) => {
        if (!request.url!.endsWith(digest)) return false;
        answer(request, response);
        return true;
      });
      const error = await failure(() => readAll(`docker://${server.host}/app:1`, options()), code);
      assert.ok(error.message.includes(digest), error.message);
      if (code === 'DIGEST_MISMATCH') assert.ok(error.message.includes(digestOf(changed)), error.message);
    }
  });

  it('manifests that are not what was asked for, or endless', async () => {
    const other = Buffer.from(`${image.manifest.toString()} `);
    const byDigest = await failure(
      async () => readAll(`docker://${(await serveManifest(other)).host}/app@${image.digest}`, options()),
      'DIGEST_MISMATCH',
    );
    assert.ok(byDigest.message.includes(image.digest) && byDigest.message.includes(digestOf(other)));
    const header = { 'docker-content-digest': image.digest };
    await failure(
      async () => readAll(`docker://${(await serveManifest(other, header)).host}/app:1`, options()),
      'DIGEST_MISMATCH',
    );
    await failure(
      async () => readAll(`docker://${(await serveManifest(Buffer.alloc(100 << 20, ' '))).host}/app:1`, options()),
      'DOCUMENT_TOO_LARGE',
    );
    await failure(
      async () => readAll(`docker://${(await serveManifest(Buffer.from('<html>'))).host}/app:1`, options()),
      'DOCUMENT_INVALID',
    );
    const index = { 'content-type': 'application/vnd.oci.image.index.v1+json' };
    await failure(
      async () => readAll(`docker://${(await serveManifest(image.manifest, index)).host}/app:1`, options()),
      'MEDIA_TYPE_MISMATCH',
    );
  });

  it('redirects are followed without the password', async () => {
    writeFileSync(join(dir, 'auth.json'), '{}');
    const store = await serve(() => false);
    const password = `Basic ${Buffer.from('ann:secret').toString('base64')}`;
    const server = await serve((request, response) => {
      if (request.headers.authorization !== password) {
        respond(response, 401, Buffer.from('{}'), { 'www-authenticate': 'Basic realm="x"' });
        return true;
      }
      if (!request.url!.includes('/blobs/')) return false;
      respond(response, 307, Buffer.alloc(0), { location: `http://user:pw@${store.host}${request.url}` });
      return true;
    });
    writeFileSync(
      join(dir, 'auth.json'),
      JSON.stringify({
        auths: { [server.host]: { auth: password.slice(6) }, [store.host]: { auth: password.slice(6) } },
      }),
    );
    const read = await readAll(`docker://${server.host}/app:1`, {
      env: { HOME: dir, REGISTRY_AUTH_FILE: join(dir, 'auth.json') },
    });
    assertIsSample(read, image);
    assert.ok(store.requests.length >= 3);
    assert.ok(store.requests.every(({ headers }) => headers.authorization === undefined));
  });

  it('redirects to odd places are not followed', async () => {
    for (const location of ['file:///etc/passwd', 'ftp://127.0.0.1/x', 'http://[', '/v2/app/blobs/round']) {
      const server = await serve((request, response) => {
        if (!request.url!.includes('/blobs/')) return false;
        respond(response, 302, Buffer.alloc(0), { location });
        return true;
      });
      await failure(() => readAll(`docker://${server.host}/app:1`, options()), 'REGISTRY_MISBEHAVES');
      assert.ok(server.requests.length < 12);
    }
  });

  it('only the registry itself may ask for the password, and nothing says it', async () => {
    const basic = Buffer.from('ann:s3cr3t-word').toString('base64');
    const thief = await serve((_, response) => {
      respond(response, 401, Buffer.from('{}'), {
        'www-authenticate': `Bearer realm="http://${thief.host}/token",service="s"`,
      });
      return true;
    });
    const server = await serve((request, response) => {
      if (!request.url!.includes('/blobs/')) return false;
      respond(response, 302, Buffer.alloc(0), { location: `http://${thief.host}${request.url}` });
      return true;
    });
    const auths = { [server.host]: { auth: basic }, [thief.host]: { auth: basic } };
    writeFileSync(join(dir, 'auth.json'), JSON.stringify({ auths }));
    const env = { HOME: dir, REGISTRY_AUTH_FILE: join(dir, 'auth.json') };
    const error = await failure(() => readAll(`docker://${server.host}/app:1`, { env }), 'ACCESS_DENIED');
    assert.ok(thief.requests.length > 0);
    for (const { url, headers } of [...thief.requests, ...server.requests]) {
      assert.equal(headers.authorization, undefined);
      assert.ok(!url.includes('/token'), url);
    }
    assert.ok(!/s3cr3t|YW5u/.test(`${error.stack} ${error.hint} ${JSON.stringify(error)}`));
  });

  it('a token that is never the right one is not asked for again and again', async () => {
    let tokens = 0;
    const server = await serve((request, response) => {
      if (request.url!.startsWith('/token')) {
        tokens++;
        respond(response, 200, Buffer.from(JSON.stringify({ token: `t${tokens}`, expires_in: 0 })));
      } else {
        const challenge = `Bearer realm="http://${server.host}/token",service="s",__proto__="x",constructor="y"`;
        respond(response, 401, Buffer.from('{}'), { 'www-authenticate': challenge });
      }
      return true;
    });
    await failure(() => readAll(`docker://${server.host}/app:1`, options()), 'ACCESS_DENIED');
    assert.ok(tokens >= 1 && tokens < 5, `${tokens}`);
    assert.equal(({} as { x?: string }).x, undefined);
  });

  it('what it says is shown without what a terminal would obey', async () => {
    const evil = 'no \u001b]0;owned\u0007\u001b[2Jway\u009b31m \u202ekcab';
    for (const status of [400, 403, 404, 500]) {
      const server = await serve((request, response) => {
        if (!request.url!.includes('/manifests/')) return false;
        respond(response, status, Buffer.from(JSON.stringify({ errors: [{ code: 'X', message: evil }] })), {
          'retry-after': '0',
        });
        return true;
      });
      const error = await readAll(`docker://${server.host}/app:1`, options()).catch((e: unknown) => e as Error);
      assert.ok(error instanceof Error && !/\p{C}/u.test(error.message), JSON.stringify(error));
    }
  });

  it('headers without end are not tried again', async () => {
    const server = await serve((request, response) => {
      if (!request.url!.includes('/manifests/')) return false;
      for (let i = 0; i < 100; i++) response.setHeader(`x-${i}`, 'h'.repeat(8000));
      respond(response, 200, image.manifest, { 'content-type': MANIFEST });
      return true;
    });
    await failure(() => readAll(`docker://${server.host}/app:1`, options()), 'REGISTRY_UNREACHABLE');
    assert.equal(server.requests.filter(({ url }) => url.includes('/manifests/')).length, 1);
  });

  it('a blob that gives a byte and is cut, again and again, comes to an end', async () => {
    const { digest, blob } = image.layers[0]!;
    let cuts = 0;
    const server = await serve((request, response) => {
      if (!request.url!.endsWith(digest)) return false;
      cuts++;
      const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
      const range = { 'content-range': `bytes ${from}-${blob.length - 1}/${blob.length}` };
      response.writeHead(from === 0 ? 200 : 206, {
        'content-length': blob.length - from,
        ...(from === 0 ? {} : range),
      });
      response.write(blob.subarray(from, from + 1), () => response.destroy());
      return true;
    });
    const source = await openSource(`docker://${server.host}/app:1`, options());
    const layer = (await source.manifest()).layers[0]!;
    await failure(() => collect(source.openBlob(layer)), 'REGISTRY_UNREACHABLE');
    assert.ok(cuts < 10, `${cuts}`);
    await source.close();
  });

  it('tokens are not asked for at odd places', async () => {
    for (const realm of ['file:///etc/passwd', 'nonsense', '', 'ftp://x/']) {
      const server = await serve((_, response) => {
        respond(response, 401, Buffer.from('{}'), { 'www-authenticate': `Bearer realm="${realm}",service="s"` });
        return true;
      });
      await failure(() => readAll(`docker://${server.host}/app:1`, options()), 'REGISTRY_MISBEHAVES');
    }
    const server = await serve((_, response) => {
      respond(response, 401, Buffer.from('{}'));
      return true;
    });
    await failure(() => readAll(`docker://${server.host}/app:1`, options()), 'ACCESS_DENIED');
  });

  it('a blob that drips can be given up', async () => {
    const server = await serve((request, response) => {
      if (!request.url!.endsWith(image.layers[0]!.digest)) return false;
      response.writeHead(200, { 'content-length': image.layers[0]!.blob.length });
      response.write('x');
      return true;
    });
    const source = await openSource(`docker://${server.host}/app:1`, options());
    const layer = (await source.manifest()).layers[0]!;
    const controller = new AbortController();
    const reading = collect(source.openBlob(layer, controller.signal));
    setTimeout(() => controller.abort(), 100);
    await assert.rejects(reading, { name: 'AbortError' });
    await source.close();
  });

  it('the whole is given up by the signal of the source', async () => {
    const controller = new AbortController();
    const server = await serve((request) => request.url!.includes('/manifests/'));
    const source = await openSource(`docker://${server.host}/app:1`, { ...options(), signal: controller.signal });
    setTimeout(() => controller.abort(), 100);
    await assert.rejects(source.manifest(), { name: 'AbortError' });
    await source.close();
  });
});

/** As a server that knows ranges does. */
function serveRange(request: IncomingMessage, response: ServerResponse, blob: Buffer): void {
  const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? -1);
  if (from < 0) return respond(response, 200, blob);
  respond(response, 206, blob.subarray(from), { 'content-range': `bytes ${from}-${blob.length - 1}/${blob.length}` });
}
