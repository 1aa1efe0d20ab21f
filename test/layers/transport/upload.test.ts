/** Pushing a large blob to registries that keep what they got, that want no chunks, or that lose it. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { RegistryClient } from '../../../layers/registry/client.ts';
import { Connections } from '../../../layers/registry/connections.ts';
import { uploadBlob } from '../../../layers/registry/upload.ts';
import { digestOf } from '../../../layers/transport/digest.ts';
import { noise } from '../../store/fixture.ts';
import { failure } from './checks.ts';
import { misbehaving, type Misbehaving } from './services.ts';

const blob = noise(20_000_000, 1);
const digest = digestOf(blob);

/** A registry of one blob, which does as `how` says. */
class OneBlob {
  stored: string | undefined;
  received = 0;
  patches = 0;
  asked = 0;
  readonly #hash = createHash('sha256');
  readonly #how: { cutAt?: number; wantsNoChunks?: boolean };

  constructor(how: { cutAt?: number; wantsNoChunks?: boolean }) {
    this.#how = how;
  }

  handle(request: IncomingMessage, response: ServerResponse): void {
    const { pathname, searchParams } = new URL(request.url!, 'http://here');
    const location = { location: '/v2/app/blobs/uploads/session', 'content-length': '0' };
    if (pathname === '/v2/') return void response.writeHead(200).end();
    if (request.method === 'POST') return void response.writeHead(202, location).end();
    if (request.method === 'DELETE') return void response.writeHead(204).end();
    if (request.method === 'GET') {
      this.asked++;
      return void response.writeHead(204, { ...location, range: `0-${this.received - 1}` }).end();
    }
    if (request.method === 'PATCH') this.#patch(request, response, location);
    else this.#put(request, response, searchParams.get('digest'));
  }

  #patch(request: IncomingMessage, response: ServerResponse, location: Record<string, string>): void {
    this.patches++;
    if (this.#how.wantsNoChunks) {
      request.resume();
      return void request.on('end', () => response.writeHead(400).end());
    }
    const from = Number(/^(\d+)-/.exec(String(request.headers['content-range']))?.[1]);
    if (from !== this.received) {
      request.resume();
      return void request.on('end', () => response.writeHead(416).end());
    }
    request.on('data', (chunk: Buffer) => {
      const { cutAt } = this.#how;
      if (request.destroyed) return;
      this.#take(chunk);
      if (cutAt === undefined || this.received < cutAt) return;
      delete this.#how.cutAt;
      request.destroy();
    });
    request.on('end', () => response.writeHead(202, location).end());
  }

  #put(request: IncomingMessage, response: ServerResponse, wanted: string | null): void {
    request.on('data', (chunk: Buffer) => this.#take(chunk));
    request.on('end', () => {
      this.stored = `sha256:${this.#hash.digest('hex')}`;
      response.writeHead(this.stored === wanted ? 201 : 400).end();
    });
  }

  #take(chunk: Buffer): void {
    this.#hash.update(chunk);
    this.received += chunk.length;
  }
}

describe('a large blob goes to a registry', function () {
  this.timeout(60_000);
  let server: Misbehaving | undefined;
  const connections = new Connections({});
  afterEach(async () => {
    await server?.stop();
  });
  after(() => connections.close());

  async function upload(registry: OneBlob, bytes: Buffer = blob): Promise<number> {
    server = await misbehaving((request, response) => registry.handle(request, response));
    const client = new RegistryClient(
      { domain: server.host, path: 'app' },
      { connections, credentials: async () => null, insecure: false, signal: undefined },
    );
    let told = 0;
    const open = function* (): Generator<Uint8Array> {
      // One piece of memory again and again, as the store gives it.
      const piece = Buffer.alloc(1_000_003);
      for (let at = 0; at < bytes.length; at += piece.length) yield piece.subarray(0, bytes.copy(piece, 0, at));
    };
    await uploadBlob(client, { digest, sizeBytes: blob.length, open }, (more) => (told += more), undefined);
    return told;
  }

  it('in chunks; a cut costs only what was cut off', async () => {
    const registry = new OneBlob({ cutAt: 17_500_000 });
    assert.equal(await upload(registry), blob.length);
    assert.equal(registry.stored, digest);
    assert.equal(registry.received, blob.length, 'nothing was sent twice');
    assert.deepEqual([registry.patches, registry.asked], [3, 1]);
  });

  it('in one piece, where chunks are not wanted', async () => {
    const registry = new OneBlob({ wantsNoChunks: true });
    assert.equal(await upload(registry), blob.length);
    assert.deepEqual([registry.stored, registry.patches], [digest, 1]);
  });

  it('or not, when it is another than was said', async () => {
    await failure(
      () => upload(new OneBlob({}), Buffer.concat([blob.subarray(1), Buffer.alloc(1)])),
      'REGISTRY_MISBEHAVES',
    );
  });
});
