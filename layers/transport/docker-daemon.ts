/**
 * `docker-daemon:NAME`: an image out of a running Docker engine (or podman's service, which speaks the same API), by
 * `GET /images/NAME/get`, the API of `docker save`. The engine writes the archive's table of contents last, so all of
 * it is taken into temporary space first.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type Docker from 'dockerode';
import { PgError } from '../../mdm/error.ts';
import { formatReference, parseImageName } from '../reference.ts';
import { DockerArchiveSource } from './docker-archive.ts';
import { spool } from './spool.ts';
import type { Platform } from './platform.ts';
import type { ImageSource, SourceOptions } from './source.ts';
import { TarFiles } from './tar-files.ts';

type Env = Readonly<Record<string, string | undefined>>;
export type EngineKind = 'docker' | 'podman';

/** How long a local engine may take to say that it is there. */
const PING_TIMEOUT_MS = 3000;
const IMAGE_ID = /^(?:sha256:)?[0-9a-f]{64}$/;

/** An engine that answered, and how it is reached. */
export interface Engine {
  client: Docker;
  /** `unix:///var/run/docker.sock`. */
  host: string;
}

/**
 * The engine that `kind`'s own command would use: $DOCKER_HOST (with $DOCKER_TLS_VERIFY, $DOCKER_CERT_PATH), the
 * current Docker context, or the usual sockets; for podman $CONTAINER_HOST or its sockets. null: none answers. Throws
 * ENGINE_UNREACHABLE when one was named.
 */
export async function findEngine(kind: EngineKind, env: Env): Promise<Engine | null> {
  const named = kind === 'docker' ? env['DOCKER_HOST'] || contextHost(env) : env['CONTAINER_HOST'];
  const sockets = named ? [] : usualSockets(kind, env).filter((path) => existsSync(path));
  for (const host of named ? [named] : sockets.map((path) => `unix://${path}`)) {
    try {
      await (await connect(host, env, PING_TIMEOUT_MS)).ping();
      return { client: await connect(host, env), host };
    } catch (cause) {
      if (cause instanceof PgError) throw cause;
      if (named) {
        throw new PgError('ENGINE_UNREACHABLE', `no ${kind} engine answers at ${host}: ${(cause as Error).message}`, {
          hint:
            kind === 'docker' ? 'start it, or correct DOCKER_HOST (or the docker context)' : 'correct CONTAINER_HOST',
          cause,
        });
      }
    }
  }
  return null;
}

/** No engine answers, and none was named by the environment. */
export function noEngine(kind: EngineKind): PgError {
  const hint =
    kind === 'docker'
      ? 'start it (systemctl start docker), or set DOCKER_HOST'
      : 'start it (podman system service), or set CONTAINER_HOST';
  return new PgError('ENGINE_UNREACHABLE', `no ${kind} engine answers on this machine`, { hint });
}

function usualSockets(kind: EngineKind, env: Env): string[] {
  const run = env['XDG_RUNTIME_DIR'];
  if (kind === 'docker') return ['/var/run/docker.sock', ...(run ? [join(run, 'docker.sock')] : [])];
  return [...(run ? [join(run, 'podman/podman.sock')] : []), '/run/podman/podman.sock'];
}

/** The endpoint of `docker context use NAME` (~/.docker/contexts/meta/SHA256(NAME)/meta.json). */
function contextHost(env: Env): string | undefined {
  const directory = env['DOCKER_CONFIG'] ?? join(env['HOME'] ?? homedir(), '.docker');
  try {
    const config = JSON.parse(readFileSync(join(directory, 'config.json'), 'utf8')) as { currentContext?: unknown };
    const name = env['DOCKER_CONTEXT'] || config.currentContext;
    if (typeof name !== 'string' || name === '' || name === 'default') return undefined;
    const id = createHash('sha256').update(name).digest('hex');
    const meta = JSON.parse(readFileSync(join(directory, 'contexts/meta', id, 'meta.json'), 'utf8')) as {
      Endpoints?: { docker?: { Host?: unknown } };
    };
    const host = meta.Endpoints?.docker?.Host;
    return typeof host === 'string' && host !== '' ? host : undefined;
  } catch {
    return undefined;
  }
}

async function connect(host: string, env: Env, timeout?: number): Promise<Docker> {
  // Loaded when there is an engine to ask: it takes 0.1 s.
  const { default: Docker } = await import('dockerode');
  const unix = /^unix:\/\/(.+)$/.exec(host);
  const limit = timeout === undefined ? {} : { timeout };
  if (unix?.[1]) return new Docker({ socketPath: unix[1], ...limit });
  const url = /^(tcp|https?):\/\/(\[[^\]]+\]|[^:/]+)(?::(\d+))?\/?$/.exec(host);
  if (!url) {
    throw new PgError('ENGINE_UNREACHABLE', `'${host}' is no address of an engine that pg can reach`, {
      hint: 'unix:///path/to/socket and tcp://host:port are understood; for ssh, forward the socket (ssh -L)',
    });
  }
  const isTls = url[1] === 'https' || Boolean(env['DOCKER_TLS_VERIFY']);
  return new Docker({
    host: (url[2] as string).replace(/^\[|\]$/g, ''),
    port: Number(url[3] ?? (isTls ? 2376 : 2375)),
    ...limit,
    protocol: isTls ? 'https' : 'http',
    ...(isTls ? certificates(env) : {}),
  });
}

function certificates(env: Env): { ca?: Buffer; cert?: Buffer; key?: Buffer } {
  const directory = env['DOCKER_CERT_PATH'] ?? join(env['HOME'] ?? homedir(), '.docker');
  const read = (name: string): Buffer | undefined => {
    const path = join(directory, name);
    return existsSync(path) ? readFileSync(path) : undefined;
  };
  const [ca, cert, key] = [read('ca.pem'), read('cert.pem'), read('key.pem')];
  return { ...(ca ? { ca } : {}), ...(cert ? { cert } : {}), ...(key ? { key } : {}) };
}

/** What `engine` has under `name`, null when nothing; its size in bytes as the engine counts it. */
export async function inspectImage(
  engine: Engine,
  name: string,
): Promise<{ sizeBytes: number; platform: Platform } | null> {
  try {
    const { Size, Os, Architecture, ...more } = await engine.client.getImage(engineName(name)).inspect();
    const { Variant } = more as { Variant?: string };
    return {
      sizeBytes: Size,
      platform: { os: Os, architecture: Architecture, ...(Variant ? { variant: Variant } : {}) },
    };
  } catch (error) {
    if ((error as { statusCode?: number }).statusCode === 404) return null;
    throw engineError(engine, error);
  }
}

/**
 * Takes image `name` (a name as Docker reads it, or an image ID) out of `engine` as `docker save` would. Throws
 * IMAGE_NOT_FOUND, ENGINE_UNREACHABLE, and what an archive throws.
 */
export async function saveFromEngine(
  engine: Engine,
  kind: EngineKind,
  name: string,
  options: SourceOptions,
): Promise<ImageSource> {
  const where = `the local ${kind === 'docker' ? 'Docker' : 'podman'} engine (${engine.host})`;
  const image = await inspectImage(engine, name);
  if (image === null) {
    throw new PgError('IMAGE_NOT_FOUND', `${where} has no image '${name}'`, { hint: `see '${kind} images'` });
  }
  const taskId = `engine:${name}`;
  options.progress?.start(taskId, `saving ${name} from ${kind}`, image.sizeBytes);
  const stream = await engine.client
    .getImage(engineName(name))
    .get()
    .catch((error: unknown) => {
      throw engineError(engine, error);
    });
  const onAbort = (): void => {
    (stream as NodeJS.ReadableStream & { destroy(error: Error): void }).destroy(options.signal?.reason as Error);
  };
  options.signal?.addEventListener('abort', onAbort, { once: true });
  try {
    options.signal?.throwIfAborted();
    const file = await spool(savedBytes(stream, engine, options.signal), options.tempDir, (bytes) =>
      options.progress?.advance(taskId, bytes),
    );
    options.progress?.done(taskId);
    const files = await TarFiles.over(file, `'${name}' in ${where}`);
    // Saved by digest or ID, it comes without a name.
    const fallback = IMAGE_ID.test(name) ? null : engineName(name);
    return new DockerArchiveSource('docker-daemon', files, null, `'${name}' in ${where}`, fallback);
  } finally {
    options.signal?.removeEventListener('abort', onAbort);
  }
}

async function* savedBytes(
  stream: NodeJS.ReadableStream,
  engine: Engine,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of stream) yield chunk as unknown as Uint8Array;
  } catch (error) {
    signal?.throwIfAborted();
    throw engineError(engine, error);
  }
}

/** Image IDs go as they are; names written out in full, which every engine reads in the same way. */
function engineName(name: string): string {
  return IMAGE_ID.test(name) ? name : formatReference(parseImageName(name));
}

function engineError(engine: Engine, cause: unknown): PgError {
  const { reason, json, message } = cause as { reason?: string; json?: { message?: string }; message?: string };
  const why = json?.message ?? reason ?? message ?? String(cause);
  return new PgError('ENGINE_UNREACHABLE', `the engine at ${engine.host} does not give the image: ${why}`, { cause });
}
