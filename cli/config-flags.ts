import { Flags } from '@oclif/core';
import { PgError } from '../mdm/error.ts';

const repeated = { multiple: true, multipleNonGreedy: true } as const;
const helpGroup = 'CONFIG';

/** What is said of the config of an image that is made here; each is an instruction of a Dockerfile. */
export const configFlags = {
  change: Flags.string({
    char: 'c',
    ...repeated,
    helpGroup,
    helpValue: 'INSTRUCTION',
    description:
      'CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR, as in a Dockerfile',
  }),
  cmd: Flags.string({ helpGroup, description: 'a JSON array of words, or words for a shell' }),
  entrypoint: Flags.string({ helpGroup, description: 'a JSON array of words, or words for a shell' }),
  env: Flags.string({ char: 'e', ...repeated, helpGroup, helpValue: 'NAME=VALUE', description: 'a variable' }),
  label: Flags.string({ char: 'l', ...repeated, helpGroup, helpValue: 'NAME=VALUE', description: 'a label' }),
  user: Flags.string({ helpGroup, helpValue: 'USER[:GROUP]', description: 'who runs it' }),
  workdir: Flags.string({ helpGroup, helpValue: 'DIR', description: 'where it runs' }),
  expose: Flags.string({ ...repeated, helpGroup, helpValue: 'PORT[/PROTOCOL]', description: 'a port it listens on' }),
  volume: Flags.string({ ...repeated, helpGroup, helpValue: 'DIR', description: 'a directory kept apart' }),
  'stop-signal': Flags.string({ helpGroup, helpValue: 'SIGNAL', description: 'what ends it' }),
};

/** The flags as instructions of a Dockerfile, those of `--change` first. PgError `BAD_FLAG`. */
export function changesOf(flags: {
  change?: string[] | undefined;
  cmd?: string | undefined;
  entrypoint?: string | undefined;
  env?: string[] | undefined;
  label?: string[] | undefined;
  user?: string | undefined;
  workdir?: string | undefined;
  expose?: string[] | undefined;
  volume?: string[] | undefined;
  'stop-signal'?: string | undefined;
}): string[] {
  const one = (word: string, value: string | undefined): string[] => (value === undefined ? [] : [`${word} ${value}`]);
  const pairs = (word: string, values: string[] | undefined): string[] =>
    (values ?? []).map((pair) => `${word} ${quoted(word, pair)}`);
  return [
    ...(flags.change ?? []),
    ...one('ENTRYPOINT', flags.entrypoint),
    ...one('CMD', flags.cmd),
    ...pairs('ENV', flags.env),
    ...pairs('LABEL', flags.label),
    ...one('USER', flags.user),
    ...one('WORKDIR', flags.workdir),
    ...(flags.expose ?? []).map((port) => `EXPOSE ${port}`),
    ...(flags.volume ?? []).map((path) => `VOLUME ${JSON.stringify([path])}`),
    ...one('STOPSIGNAL', flags['stop-signal']),
  ];
}

function quoted(word: string, pair: string): string {
  const at = pair.indexOf('=');
  if (at > 0 && /^[^\s"'\\]+$/.test(pair.slice(0, at)))
    return `${pair.slice(0, at)}="${pair.slice(at + 1).replaceAll(/["\\]/g, '\\$&')}"`;
  throw new PgError('BAD_FLAG', `--${word.toLowerCase()} ${pair}: it is NAME=VALUE`);
}
