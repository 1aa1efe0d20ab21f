import { PgError } from '../mdm/error.ts';
import type { ImageConfig } from './transport/source.ts';

type Config = NonNullable<ImageConfig['config']>;

const KNOWN = 'CMD ENTRYPOINT ENV EXPOSE LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR'.split(' ');

/**
 * What instructions of a Dockerfile make of an image's config, as `docker commit --change` takes them. An ENTRYPOINT takes the command of the image away
 * unless a CMD is among them. PgError BAD_CHANGE.
 */
export function changeConfig(config: Config, changes: readonly string[]): Config {
  const changed = { ...config };
  const parsed = changes.map(split);
  for (const [word, rest, whole] of parsed) applyChange(changed, word, rest, whole);
  const names = parsed.map(([word]) => word);
  if (names.includes('ENTRYPOINT') && !names.includes('CMD')) delete changed.Cmd;
  return changed;
}

function bad(whole: string, why: string): PgError {
  return new PgError('BAD_CHANGE', `--change '${whole}': ${why}`, {
    hint: `as in a Dockerfile: ${KNOWN.join(', ')}; for example --change 'CMD ["nginx", "-g", "daemon off;"]'`,
  });
}

function split(change: string): [word: string, rest: string, whole: string] {
  const [, word, rest] = /^\s*([A-Za-z]+)\s+(.*\S)\s*$/s.exec(change) ?? [];
  if (word === undefined || rest === undefined) throw bad(change, 'it is an instruction and what it says');
  return [word.toUpperCase(), rest, change];
}

function applyChange(config: Config, word: string, rest: string, whole: string): void {
  switch (word) {
    case 'CMD':
      config.Cmd = command(config, rest);
      return;
    case 'ENTRYPOINT':
      config.Entrypoint = command(config, rest);
      return;
    case 'ENV':
      config.Env = withVariables(config.Env ?? [], pairs(rest, whole));
      return;
    case 'LABEL':
      config.Labels = { ...config.Labels, ...Object.fromEntries(pairs(rest, whole)) };
      return;
    case 'EXPOSE':
      config.ExposedPorts = {
        ...config.ExposedPorts,
        ...Object.fromEntries(ports(rest, whole).map((port) => [port, {}])),
      };
      return;
    case 'VOLUME':
      config.Volumes = {
        ...config.Volumes,
        ...Object.fromEntries((jsonList(rest) ?? words(rest)).map((path) => [path, {}])),
      };
      return;
    case 'ONBUILD':
      config['OnBuild'] = [...((config['OnBuild'] as string[] | null | undefined) ?? []), rest];
      return;
    case 'STOPSIGNAL':
      config.StopSignal = rest;
      return;
    case 'USER':
      config.User = rest;
      return;
    case 'WORKDIR':
      config.WorkingDir = rest.startsWith('/') ? rest : `${(config.WorkingDir ?? '').replace(/\/$/, '')}/${rest}`;
      return;
    default:
      throw bad(whole, `${word} changes no image`);
  }
}

/** `["a", "b"]`, else undefined. */
function jsonList(text: string): string[] | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return Array.isArray(value) && value.every((word) => typeof word === 'string') ? value : undefined;
  } catch {
    return undefined;
  }
}

const command = (config: Config, text: string): string[] =>
  jsonList(text) ?? [...(config.Shell ?? ['/bin/sh', '-c']), text];

/** `NAME=VALUE NAME="VALUE WITH SPACES"`, or `NAME VALUE`. */
function pairs(text: string, whole: string): [string, string][] {
  const found = words(text);
  if (!found[0]!.includes('=')) {
    const [, name, value] = /^(\S+)\s+(.*)$/s.exec(text) ?? [];
    if (name === undefined || value === undefined) throw bad(whole, 'it is NAME=VALUE');
    return [[name, value]];
  }
  return found.map((word) => {
    const at = word.indexOf('=');
    if (at <= 0) throw bad(whole, `${word} is not NAME=VALUE`);
    return [word.slice(0, at), word.slice(at + 1)];
  });
}

/** Words as a shell parts them: quotes keep spaces, a backslash keeps the next character. */
function words(text: string): string[] {
  return [...text.matchAll(/(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+/gs)].map(([word]) =>
    word.replaceAll(
      /\\(.)|"((?:[^"\\]|\\.)*)"|'([^']*)'/gs,
      (_, escaped?: string, double?: string, single?: string) =>
        escaped ?? double?.replaceAll(/\\(.)/gs, '$1') ?? single ?? '',
    ),
  );
}

function withVariables(env: readonly string[], added: readonly [string, string][]): string[] {
  const byName = new Map(env.map((word) => [word.split('=', 1)[0]!, word]));
  for (const [name, value] of added) byName.set(name, `${name}=${value}`);
  return [...byName.values()];
}

function ports(text: string, whole: string): string[] {
  return words(text).map((word) => {
    if (!/^\d{1,5}(\/(tcp|udp|sctp))?$/.test(word)) throw bad(whole, `${word} is no port`);
    return word.includes('/') ? word : `${word}/tcp`;
  });
}
