/** The real registries and engines that the tests talk to, started here and ended by their process id. */
import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, openSync, closeSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect, createServer as createTcpServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import Docker from 'dockerode';
import { request } from 'undici';
import { blobsOf, type SampleImage } from './samples.ts';

export function makeTempDir(): string {
  return mkdtempSync('/var/tmp/pg-test-');
}

export function removeTempDir(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
}

/** Whether all programs are there; otherwise says aloud what is missed. */
export function havePrograms(...programs: string[]): boolean {
  const path = `${process.env['PATH']}:/usr/sbin:/sbin`.split(':');
  const missing = programs.filter((program) => !path.some((directory) => existsSync(join(directory, program))));
  if (missing.length > 0) console.error(`skipped: not installed here: ${missing.join(', ')}`);
  return missing.length === 0;
}

/** Runs a program to its end; an error carries what it said. */
export function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 64 << 20 });
}

/** The same without stopping the world: for programs that talk to a server of this process. */
export async function runBeside(program: string, ...args: string[]): Promise<string> {
  return (await promisify(execFile)(program, args, { encoding: 'utf8' })).stdout;
}

export async function freePort(): Promise<number> {
  const server = createTcpServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

export interface Service {
  stop(): Promise<void>;
}

async function stopProcess(child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill(signal);
  const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await gone;
  clearTimeout(timer);
}

async function untilReady(child: ChildProcess, logFile: string, isReady: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 300; tries++) {
    if (child.exitCode !== null) break;
    if (await isReady().catch(() => false)) return;
    await sleep(100);
  }
  await stopProcess(child);
  throw new Error(`${child.spawnfile} does not come up:\n${readFileSync(logFile, 'utf8').slice(-3000)}`);
}

export interface Registry extends Service {
  /** 127.0.0.1:PORT. */
  host: string;
  directory: string;
}

export interface RegistryOptions {
  /** htpasswd: this name and password. */
  user?: { name: string; password: string };
  /** https with this certificate. */
  tls?: { certificate: string; key: string };
  /**
   * Bearer tokens from this realm, signed by the key of this certificate (docs.docker.com/registry/spec/auth/token).
   */
  token?: { realm: string; service: string; issuer: string; certificate: string };
}

/** Docker's registry, on loopback, its data below `directory`. */
export async function startRegistry(directory: string, options: RegistryOptions = {}): Promise<Registry> {
  const port = await freePort();
  const home = mkdtempSync(join(directory, 'registry-'));
  const { user, tls, token } = options;
  if (user) writeFileSync(join(home, 'htpasswd'), run('htpasswd', '-nbB', user.name, user.password));
  const auth = user
    ? { htpasswd: { realm: 'test realm', path: join(home, 'htpasswd') } }
    : token && {
        token: { realm: token.realm, service: token.service, issuer: token.issuer, rootcertbundle: token.certificate },
      };
  const config = {
    version: '0.1',
    log: { level: 'warn' },
    storage: { filesystem: { rootdirectory: join(home, 'data') }, delete: { enabled: true } },
    http: {
      addr: `127.0.0.1:${port}`,
      secret: 'test',
      ...(tls ? { tls: { certificate: tls.certificate, key: tls.key } } : {}),
    },
    ...(auth ? { auth } : {}),
  };
  // JSON is YAML.
  writeFileSync(join(home, 'config.yml'), JSON.stringify(config));
  const logFile = join(home, 'log');
  const log = openSync(logFile, 'w');
  const child = spawn('docker-registry', ['serve', join(home, 'config.yml')], { stdio: ['ignore', log, log] });
  closeSync(log);
  await untilReady(child, logFile, async () => isListening(port));
  return { host: `127.0.0.1:${port}`, directory: home, stop: () => stopProcess(child) };
}

async function isListening(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  socket.destroy();
  return true;
}

/** An authority and a certificate by it for 127.0.0.1 and localhost, made by openssl. */
export function makeCertificates(directory: string): { ca: string; certificate: string; key: string } {
  const at = (name: string): string => join(directory, name);
  const [ca, caKey, certificate, key, request] = ['ca.crt', 'ca.key', 'server.crt', 'server.key', 'server.csr'].map(
    at,
  ) as [string, string, string, string, string];
  const subject = '/CN=pg test authority';
  run(
    'openssl',
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-days',
    '2',
    '-subj',
    subject,
    '-keyout',
    caKey,
    '-out',
    ca,
  );
  run(
    'openssl',
    'req',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-subj',
    '/CN=127.0.0.1',
    '-keyout',
    key,
    '-out',
    request,
  );
  writeFileSync(at('extensions'), 'subjectAltName=IP:127.0.0.1,DNS:localhost\n');
  run(
    'openssl',
    'x509',
    '-req',
    '-in',
    request,
    '-CA',
    ca,
    '-CAkey',
    caKey,
    '-CAcreateserial',
    '-days',
    '2',
    '-extfile',
    at('extensions'),
    '-out',
    certificate,
  );
  return { ca, certificate, key };
}

export interface Dockerd extends Service {
  /** unix:///.../docker.sock */
  host: string;
  client: Docker;
}

/** A Docker engine of our own: no bridge, no firewall, its data gone with `stop`. */
export async function startDockerd(): Promise<Dockerd> {
  const home = makeTempDir();
  const socket = join(home, 'docker.sock');
  const logFile = join(home, 'log');
  const log = openSync(logFile, 'w');
  mkdirSync(join(home, 'exec'));
  writeFileSync(join(home, 'daemon.json'), '{}');
  const args = [
    '--data-root',
    join(home, 'data'),
    '--exec-root',
    join(home, 'exec'),
    '--pidfile',
    join(home, 'pid'),
    '-H',
    `unix://${socket}`,
  ];
  const child = spawn(
    'dockerd',
    [
      ...args,
      '--bridge=none',
      '--iptables=false',
      '--ip6tables=false',
      '--ip-masq=false',
      '--config-file',
      join(home, 'daemon.json'),
    ],
    {
      stdio: ['ignore', log, log],
    },
  );
  closeSync(log);
  const client = new Docker({ socketPath: socket });
  const stop = async (): Promise<void> => {
    await stopProcess(child);
    for (const mount of mountsBelow(home)) run('umount', '-l', mount);
    removeTempDir(home);
  };
  try {
    await untilReady(child, logFile, async () => (await client.ping()) !== undefined);
  } catch (error) {
    await stop();
    throw error;
  }
  return { host: `unix://${socket}`, client, stop };
}

/** Mount points below a directory, the innermost first. */
export function mountsBelow(directory: string): string[] {
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '');
  return mounts.filter((mount) => mount.startsWith(`${directory}/`)).toReversed();
}

async function pushManifest(
  host: string,
  repository: string,
  reference: string,
  mediaType: string,
  bytes: Buffer,
): Promise<void> {
  const answer = await request(`http://${host}/v2/${repository}/manifests/${reference}`, {
    method: 'PUT',
    headers: { 'content-type': mediaType },
    body: bytes,
  });
  const text = await answer.body.text();
  if (answer.statusCode !== 201) throw new Error(`registry: ${answer.statusCode} ${text}`);
}

async function pushBlob(host: string, repository: string, digest: string, bytes: Buffer): Promise<void> {
  const start = await request(`http://${host}/v2/${repository}/blobs/uploads/`, { method: 'POST' });
  await start.body.dump();
  const url = new URL(String(start.headers['location']), `http://${host}`);
  url.searchParams.set('digest', digest);
  const answer = await request(url, {
    method: 'PUT',
    headers: { 'content-type': 'application/octet-stream' },
    body: bytes,
  });
  const text = await answer.body.text();
  if (answer.statusCode !== 201) throw new Error(`registry: ${answer.statusCode} ${text}`);
}

export interface Misbehaving {
  host: string;
  requests: { method: string; url: string; headers: IncomingMessage['headers'] }[];
  server: Server;
  stop(): Promise<void>;
}

/** A small server of our own that does what `handle` says, and remembers what it was asked. */
export async function misbehaving(
  handle: (request: IncomingMessage, response: ServerResponse) => unknown,
): Promise<Misbehaving> {
  const requests: Misbehaving['requests'] = [];
  const server = createServer((request, response) => {
    requests.push({ method: request.method!, url: request.url!, headers: request.headers });
    void handle(request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const stop = async (): Promise<void> => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  };
  return { host, requests, server, stop };
}

export function respond(
  response: ServerResponse,
  status: number,
  body: Buffer,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { 'content-length': body.length, ...headers });
  response.end(body);
}

/** Puts an image's blobs and manifest into a registry that wants nothing for it. */
export async function pushImage(host: string, name: string, tag: string, image: SampleImage): Promise<void> {
  for (const [digest, bytes] of blobsOf(image)) if (digest !== image.digest) await pushBlob(host, name, digest, bytes);
  await pushManifest(host, name, tag, 'application/vnd.oci.image.manifest.v1+json', image.manifest);
}
