/**
 * A registry on a public address, `astray-server.ts CERTIFICATE KEY PUBLIC PRIVATE PORT`, of one image under several names, each of which sends those who want a blob elsewhere; and
 * what must not be asked, on a private one. Says a line when both listen, and one for each request that comes to the private one.
 */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { blobsOf, sampleImage, sampleLayer } from './samples.ts';

const [certificate, key, publicAddress, privateAddress, port] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
  string,
];
const image = sampleImage([await sampleLayer({ a: 'a' })]);
const PLACES: Record<string, string> = {
  open: 'https://outer.test',
  address: `https://${privateAddress}`,
  name: 'https://inner.test',
  mapped: `https://[::ffff:${privateAddress}]`,
};

function answer(request: IncomingMessage, response: ServerResponse): void {
  const [, name = '', kind, reference = ''] = /^\/v2\/([a-z]+)\/(manifests|blobs)\/(.+)$/.exec(request.url!) ?? [];
  const blob = blobsOf(image).get(reference);
  if (kind === 'manifests') {
    response.writeHead(200, { 'content-type': 'application/vnd.oci.image.manifest.v1+json' }).end(image.manifest);
  } else if (blob !== undefined && PLACES[name] !== undefined) {
    response.writeHead(307, { location: `${PLACES[name]}:${port}/v2/elsewhere/blobs/${reference}` }).end();
  } else if (blob !== undefined && name === 'drip') {
    response.writeHead(200, { 'content-length': blob.length });
    const timer = setInterval(() => response.write(Buffer.alloc(1)), 1000);
    response.on('close', () => clearInterval(timer));
  } else response.writeHead(200).end(blob ?? '{}');
}

const tls = { cert: readFileSync(certificate), key: readFileSync(key) };
const here = createServer(tls, answer).listen(Number(port), publicAddress);
const hidden = createServer(tls, (request, response) => {
  process.stdout.write(`asked for ${request.url}\n`);
  answer(request, response);
}).listen(Number(port), privateAddress);
await Promise.all([here, hidden].map((server) => new Promise((resolve) => server.once('listening', resolve))));
process.stdout.write('ready\n');
