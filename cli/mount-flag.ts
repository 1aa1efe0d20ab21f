import { isAbsolute, posix, resolve } from 'node:path';
import { randomBytes } from 'node:crypto';
import { PgError } from '../mdm/error.ts';
import type { VolumeMount } from '../runtime/record.ts';

const bad = (text: string, why: string): PgError =>
  new PgError('BAD_USAGE', `invalid argument "${text}" for "--mount" flag: ${why}`, {
    hint: '--mount type=bind,source=/srv/data,target=/data,readonly',
  });

const NAMES: Record<string, string> = { src: 'source', dst: 'target', destination: 'target', ro: 'readonly' };
const KNOWN = ['type', 'source', 'target', 'readonly', 'tmpfs-size', 'tmpfs-mode'];

/** The mounts that docker's `--mount KEY=VALUE,...` words describe. PgError('BAD_USAGE'). */
export function parseMounts(words: readonly string[]): {
  volumes: VolumeMount[];
  tmpfs: { target: string; options: string[] }[];
} {
  const volumes: VolumeMount[] = [];
  const tmpfs: { target: string; options: string[] }[] = [];
  for (const word of words) {
    const fields = parseFields(word);
    const target = fields.get('target');
    if (target === undefined) throw bad(word, 'target is required');
    if (!isAbsolute(target) || posix.normalize(target) === '/')
      throw bad(word, `'${target}' is no path to mount on: it must be absolute, and not /`);
    if (fields.get('type') === 'tmpfs') tmpfs.push({ target, options: tmpfsOptions(word, fields) });
    else volumes.push(volume(word, fields, target));
  }
  return { volumes, tmpfs };
}

function parseFields(word: string): Map<string, string> {
  const fields = new Map<string, string>();
  for (const part of word.split(',')) {
    const at = part.indexOf('=');
    const key = at < 0 ? part : part.slice(0, at);
    const name = NAMES[key] ?? key;
    if (!KNOWN.includes(name)) throw bad(word, `unknown field '${key}'`);
    if (at < 0 && name !== 'readonly') throw bad(word, `the field '${key}' wants a value`);
    fields.set(name, at < 0 ? 'true' : part.slice(at + 1));
  }
  return fields;
}

function volume(word: string, fields: Map<string, string>, target: string): VolumeMount {
  const type = fields.get('type') ?? 'volume';
  const source = fields.get('source');
  const readOnly = isTrue(word, fields.get('readonly'));
  if (fields.has('tmpfs-size') || fields.has('tmpfs-mode')) throw bad(word, 'tmpfs options are for type=tmpfs');
  if (type === 'bind') {
    if (source === undefined) throw bad(word, 'a bind mount needs a source');
    return { kind: 'bind', source: resolve(source), target, readOnly };
  }
  if (type !== 'volume') throw bad(word, `type '${type}' is not one of bind, volume and tmpfs`);
  const name = source ?? randomBytes(32).toString('hex');
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(name)) throw bad(word, `'${name}' is no name of a volume`);
  return { kind: 'volume', source: name, target, readOnly };
}

function tmpfsOptions(word: string, fields: Map<string, string>): string[] {
  if (fields.has('source')) throw bad(word, 'a tmpfs has no source');
  const [size, mode] = [fields.get('tmpfs-size'), fields.get('tmpfs-mode')];
  return [
    ...(size === undefined ? [] : [`size=${size}`]),
    ...(mode === undefined ? [] : [`mode=${mode}`]),
    ...(isTrue(word, fields.get('readonly')) ? ['ro'] : []),
  ];
}

function isTrue(word: string, value: string | undefined): boolean {
  if (value === undefined || value === 'false' || value === '0') return false;
  if (value === 'true' || value === '1') return true;
  throw bad(word, `readonly is true or false, not '${value}'`);
}
