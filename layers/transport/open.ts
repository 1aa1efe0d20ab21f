/** From the text a user writes to the source it means (containers-transports(5)). */
import { existsSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { PgError } from '../../mdm/error.ts';
import { formatReference, parseImageName, type Reference } from '../reference.ts';
import { resolveBareName } from './bare-name.ts';
import { openContainersStorage } from './containers-storage.ts';
import { DirectorySource } from './directory.ts';
import { DockerArchiveSource } from './docker-archive.ts';
import { findEngine, noEngine, saveFromEngine } from './docker-daemon.ts';
import { DirectoryFiles, unreadable } from './files.ts';
import { OciLayoutSource } from './oci-layout.ts';
import type { ImageSource, SourceOptions, TransportName } from './source.ts';
import { TarFiles } from './tar-files.ts';

const TRANSPORTS: readonly TransportName[] = [
  'docker-archive',
  'oci',
  'oci-archive',
  'dir',
  'docker-daemon',
  'podman-daemon',
  'containers-storage',
  'docker',
];
/** Known elsewhere, not here. */
const OTHER_TRANSPORTS = ['ostree', 'sif', 'tarball', 'atomic'];

/**
 * Opens `docker-archive:PATH[:REF]`, `oci:DIR[:REF]`, `oci-archive:PATH[:REF]`, `dir:DIR`, `docker-daemon:NAME`,
 * `podman-daemon:NAME`, `containers-storage:NAME`, `docker://REF`, or a bare name, which is looked for as bare-name.ts says. REF may be `@N`, the N-th image, where
 * there are several. Close what it gives. Throws TRANSPORT_UNKNOWN, REFERENCE_INVALID, FILE_UNREADABLE,
 * ENGINE_UNREACHABLE, IMAGE_NOT_FOUND and what archives throw; a registry is not asked before `manifest()`.
 */
export async function openSource(source: string, options: SourceOptions = {}): Promise<ImageSource> {
  const { transport, rest } = splitTransport(source);
  switch (transport) {
    case 'docker':
      return await openRegistry(parseImageName(rest), options);
    case 'docker-daemon':
    case 'podman-daemon': {
      const kind = transport === 'docker-daemon' ? 'docker' : 'podman';
      const engine = await findEngine(kind, options.env ?? process.env);
      if (engine === null) throw noEngine(kind);
      return saveFromEngine(engine, kind, rest, options);
    }
    case 'containers-storage':
      return openContainersStorage(rest, options.env ?? process.env);
    case 'dir':
      return new DirectorySource(new DirectoryFiles(await requireDirectory(rest)));
    case 'oci': {
      const [path, selector] = splitSelector(rest);
      return new OciLayoutSource('oci', new DirectoryFiles(await requireDirectory(path)), selector);
    }
    case 'oci-archive': {
      const [path, selector] = splitSelector(rest);
      return new OciLayoutSource('oci-archive', await TarFiles.open(path, options), selector);
    }
    case 'docker-archive': {
      const [path, selector] = splitSelector(rest);
      return new DockerArchiveSource(
        'docker-archive',
        await TarFiles.open(path, options),
        selector,
        `the archive ${path}`,
      );
    }
    case null:
      return openBareName(rest, options);
  }
}

/**
 * The transport a source begins with, null for a bare name. Throws TRANSPORT_UNKNOWN for what looks like something
 * else.
 */
export function splitTransport(source: string): { transport: TransportName | null; rest: string } {
  const colon = source.indexOf(':');
  const word = source.slice(0, Math.max(colon, 0));
  const rest = source.slice(colon + 1);
  // `docker:dind` is an image called docker; its transport is written docker://.
  if (word === 'docker' && rest.startsWith('//')) return { transport: 'docker', rest: rest.slice(2) };
  const transport = TRANSPORTS.find((name) => name === word && name !== 'docker');
  if (transport !== undefined) {
    if (rest !== '') return { transport, rest };
    throw new PgError('TRANSPORT_UNKNOWN', `'${source}' says nothing after ${word}:`, {
      hint: `write ${word}: and a ${/^(.*-daemon|containers-storage)$/.test(word) ? 'name' : 'path'}`,
    });
  }
  if (OTHER_TRANSPORTS.includes(word)) {
    throw new PgError('TRANSPORT_UNKNOWN', `pg does not read images from ${word}:`, {
      hint: `save it first, for example: skopeo copy ${source} oci-archive:image.tar`,
    });
  }
  if (/^[a-z+]+:\/\//.test(source)) {
    throw new PgError('TRANSPORT_UNKNOWN', `'${source.slice(0, 200)}' is no source of images`, {
      hint: 'registries are written docker://HOST/NAME:TAG',
    });
  }
  if (/^[./]/.test(source)) {
    const guess = existsSync(source) && !/\.tar/.test(source) ? 'oci' : 'docker-archive';
    throw new PgError('TRANSPORT_UNKNOWN', `'${source}' is a path; say what is there`, {
      hint: `${guess}:${source}, or oci-archive:, oci:, dir:`,
    });
  }
  return { transport: null, rest: source };
}

async function openBareName(name: string, options: SourceOptions): Promise<ImageSource> {
  const found = await resolveBareName(name, options);
  const source: ImageSource =
    found.origin === 'registry'
      ? await openRegistry(found.reference, options)
      : await saveFromEngine(found.engine, found.origin, formatReference(found.reference), options);
  source.why = found.why;
  return source;
}

/** What speaks to registries is loaded when one is to be asked: an archive is there sooner without. */
async function openRegistry(reference: Reference, options: SourceOptions): Promise<ImageSource> {
  const { RegistrySource } = await import('./docker-registry.ts');
  return new RegistrySource(reference, options);
}

/** PATH[:REF] at the first colon, as skopeo does, unless a file has that colon in its name. */
function splitSelector(rest: string): [path: string, selector: string | null] {
  const colon = rest.indexOf(':');
  if (colon < 0 || (!existsSync(rest.slice(0, colon)) && existsSync(rest))) return [rest, null];
  const selector = rest.slice(colon + 1);
  return [rest.slice(0, colon), selector === '' ? null : selector];
}

async function requireDirectory(path: string): Promise<string> {
  const found = await stat(path).catch((error: unknown) => {
    throw unreadable(path, error);
  });
  if (found.isDirectory()) return path;
  throw new PgError('FILE_UNREADABLE', `${path} is not a directory`, {
    hint: `did you mean oci-archive:${path} or docker-archive:${path}?`,
  });
}
