import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';

/**
 * What a program did to the disk below a directory, as strace(1) saw it: every call that changes or syncs a file or a name, of all its threads and
 * children, and between them the marks that it set. An action was under way between `start` and `end`, which count lines of the trace.
 */
export type Action = { start: number; end: number } & (
  | { kind: 'open'; path: string; truncates: boolean; creates: boolean }
  | { kind: 'write'; path: string; offset: number; bytes: Buffer }
  | { kind: 'truncate'; path: string; size: number }
  | { kind: 'fallocate'; path: string; mode: number; offset: number; length: number }
  | { kind: 'sync'; path: string }
  | { kind: 'sync all' }
  | { kind: 'rename'; path: string; to: string }
  | { kind: 'unlink'; path: string }
  | { kind: 'mkdir'; path: string }
  | { kind: 'mark'; text: string }
);

const CALLS = [
  'write,writev,pwrite64,pwritev,pwritev2,fallocate,ftruncate,truncate,copy_file_range,sendfile,fdatasync,fsync,sync,syncfs',
  'open,openat,creat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,mkdir,mkdirat,access,faccessat,faccessat2',
].join(',');

const MARK = '/pg-crash-mark/';
/** How a line of the acknowledged writer begins, which is as good as a mark. */
const SAID = '["';

/** A traced program tells its observer where it is: a call on a path that cannot be, which the trace has in its place among the others. */
export function mark(text: string): void {
  existsSync(MARK + text);
}

/** Runs a command to its end; everything it did below `dir` (and its marks), in the order in which it was done. `file` takes the trace. */
export function traced(command: readonly string[], dir: string, file: string): Action[] {
  const flags = ['-f', '--seccomp-bpf', '-y', '-xx', '-s', String(16 << 20), '-o', file, '-e', `trace=${CALLS}`];
  const result = spawnSync('strace', [...flags, ...command], { encoding: 'utf8', timeout: 120_000 });
  assert.equal(result.status, 0, `${command.join(' ')}: ${result.stderr || result.error}`);
  return parse(readFileSync(file, 'latin1').split('\n'), dir);
}

function parse(lines: readonly string[], dir: string): Action[] {
  const actions: Action[] = [];
  const begun = new Map<string, { text: string; start: number }>();
  for (const [number, line] of lines.entries()) {
    const [, thread, rest] = /^(\d+)\s+(.*)$/.exec(line) ?? [];
    if (thread === undefined || rest === undefined) continue;
    const unfinished = / <unfinished \.\.\.>$/.exec(rest);
    if (unfinished !== null) {
      begun.set(thread, { text: rest.slice(0, unfinished.index), start: number });
      continue;
    }
    const resumed = /^<\.\.\. \w+ resumed>/.exec(rest);
    const before = resumed === null ? undefined : begun.get(thread);
    const whole = before === undefined ? rest : before.text + rest.slice(resumed![0].length);
    const start = before?.start ?? number;
    const action = actionOf(whole, dir);
    if (action !== undefined) actions.push({ start, end: number, ...action });
  }
  return placed(actions);
}

/** write(2) goes on where the one before it ended, or at the start of a file just opened. */
function placed(actions: Action[]): Action[] {
  const places = new Map<string, number>();
  for (const action of actions) {
    if (action.kind === 'open') places.set(action.path, 0);
    if (action.kind !== 'write' || action.offset >= 0) continue;
    action.offset = places.get(action.path) ?? 0;
    places.set(action.path, action.offset + action.bytes.length);
  }
  return actions;
}

type Bare = Action extends infer A ? (A extends Action ? Omit<A, 'start' | 'end'> : never) : never;

function actionOf(text: string, dir: string): Bare | undefined {
  const [, name, list, answer] = /^(\w+)\((.*)\)\s+= (-?\d+)/s.exec(text) ?? [];
  if (name === undefined || list === undefined || answer === undefined) return undefined;
  const result = Number(answer);
  const words = list.split(', ');
  const paths = [...list.matchAll(/"((?:\\x[0-9a-f]{2})*)"/g)].map((match) => unescape(match[1]!).toString('latin1'));
  if (name.startsWith('access') || name.startsWith('faccessat'))
    return paths[0]?.startsWith(MARK) ? { kind: 'mark', text: paths[0].slice(MARK.length) } : undefined;
  if (result < 0) return undefined;
  if (name === 'write' && paths[0]?.startsWith(SAID) && words[0]!.startsWith('1<'))
    return { kind: 'mark', text: paths[0] };
  const action = fileAction(name, words, result) ?? nameAction(name, list, paths, words);
  if (action === undefined || action.kind === 'mark' || action.kind === 'sync all') return action;
  return isBelow(action.path, dir) ? action : undefined;
}

const isBelow = (path: string, dir: string): boolean => path === dir || path.startsWith(`${dir}/`);

/** Calls on descriptors: `21<PATH>`. */
function fileAction(name: string, words: readonly string[], result: number): Bare | undefined {
  const path = pathOf(words[0] ?? '');
  if (path === undefined) return undefined;
  const number = (i: number): number => Number(words[i]);
  switch (name) {
    case 'pwrite64':
      return { kind: 'write', path, offset: number(3), bytes: unescape(words[1]!).subarray(0, result) };
    case 'write':
      // Where, `placed` knows.
      return { kind: 'write', path, offset: -1, bytes: unescape(words[1]!).subarray(0, result) };
    case 'ftruncate':
      return { kind: 'truncate', path, size: number(1) };
    case 'fallocate':
      return { kind: 'fallocate', path, mode: modeOf(words[1]!), offset: number(2), length: number(3) };
    case 'fdatasync':
    case 'fsync':
      return { kind: 'sync', path };
    case 'syncfs':
      return { kind: 'sync all' };
    case 'writev':
    case 'pwritev':
    case 'pwritev2':
    case 'copy_file_range':
    case 'sendfile':
      // Of files below the directory these would have to be understood; `whole` finds out when one is.
      return undefined;
    default:
      return undefined;
  }
}

function nameAction(name: string, list: string, paths: readonly string[], words: readonly string[]): Bare | undefined {
  const [path, to] = paths;
  if (name === 'sync') return { kind: 'sync all' };
  if (path === undefined) return undefined;
  switch (name) {
    case 'open':
    case 'openat':
    case 'creat':
      if (!/O_CREAT|O_TRUNC/.test(list)) return undefined;
      return { kind: 'open', path, truncates: list.includes('O_TRUNC'), creates: list.includes('O_CREAT') };
    case 'rename':
    case 'renameat':
    case 'renameat2':
      return { kind: 'rename', path, to: to! };
    case 'truncate':
      return { kind: 'truncate', path, size: Number(words[1]) };
    case 'unlink':
    case 'unlinkat':
    case 'rmdir':
      return { kind: 'unlink', path };
    case 'mkdir':
    case 'mkdirat':
      return { kind: 'mkdir', path };
    default:
      return undefined;
  }
}

function pathOf(descriptor: string): string | undefined {
  const escaped = /^\d+<((?:\\x[0-9a-f]{2})*)>/.exec(descriptor)?.[1];
  return escaped === undefined
    ? undefined
    : unescape(escaped)
        .toString('latin1')
        .replace(/ \(deleted\)$/, '');
}

/** `\x68\x69`, quoted or not. */
function unescape(text: string): Buffer {
  return Buffer.from(text.replaceAll(/\\x|"|\.\.\.$/g, ''), 'hex');
}

const FALLOC = {
  FALLOC_FL_KEEP_SIZE: 1,
  FALLOC_FL_PUNCH_HOLE: 2,
  FALLOC_FL_COLLAPSE_RANGE: 8,
  FALLOC_FL_ZERO_RANGE: 16,
};

function modeOf(text: string): number {
  let mode = 0;
  for (const word of text.split('|')) {
    if (word !== '0') mode |= FALLOC[word as keyof typeof FALLOC] ?? assert.fail(`fallocate mode ${word}`);
  }
  return mode;
}
