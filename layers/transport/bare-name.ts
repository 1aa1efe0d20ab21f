/**
 * Where a bare name (`nginx:latest`) comes from: the local Docker engine if one answers and has it, else the registry
 * that the name leads to. Whether pg has it already is for the caller to look first.
 */
import { isPgError } from '../../mdm/error.ts';
import { familiarReference, parseImageName, type Reference } from '../reference.ts';
import { findEngine, inspectImage, noEngine, type Engine } from './docker-daemon.ts';
import { platformFitness } from './platform.ts';
import type { BareNameOrigin, SourceOptions } from './source.ts';

export type BareName =
  | { origin: 'docker' | 'podman'; reference: Reference; engine: Engine; why: string }
  | { origin: 'registry'; reference: Reference; why: string };

/**
 * Decides where `name` is to be taken from; with `options.from`, there or nowhere. `why` says what decided, for people.
 * Throws REFERENCE_INVALID, ENGINE_UNREACHABLE (only when that engine was asked for).
 */
export async function resolveBareName(name: string, options: SourceOptions = {}): Promise<BareName> {
  const reference = parseImageName(name);
  const short = familiarReference(reference);
  const fromRegistry = (why: string): BareName => ({
    origin: 'registry',
    reference,
    why,
  });
  const env = options.env ?? process.env;
  const from: BareNameOrigin | undefined = options.from;
  if (from === 'registry') return fromRegistry('as asked');
  const kind = from ?? 'docker';
  const engine = await findEngine(kind, env).catch((error: unknown) => {
    if (from === undefined && isPgError(error)) return null;
    throw error;
  });
  if (engine === null && from === undefined) return fromRegistry('no local Docker engine answers');
  if (engine === null) throw noEngine(kind);
  if (from !== undefined) return { origin: kind, reference, engine, why: 'as asked' };
  const image = await inspectImage(engine, name);
  if (image === null) return fromRegistry(`the local Docker engine has no ${short}`);
  if (options.platform !== undefined && platformFitness(options.platform, image.platform) === 0) {
    return fromRegistry(`the local Docker engine has ${short} for another platform`);
  }
  return { origin: kind, reference, engine, why: 'found there first' };
}
