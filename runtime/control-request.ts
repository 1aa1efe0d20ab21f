import { PgError } from '../mdm/error.ts';
import type { Request } from './control.ts';

/**
 * What a shim is asked, checked before anything is done: whoever may open the socket is root, but a command of another version, or something that is no command at
 * all, must not get a container into a state that no request leads to.
 */
type Check = (value: unknown) => boolean;
type Shape = Record<string, Check>;

const isText: Check = (value) => typeof value === 'string';
/** One that is false may be left out. */
const isFlag: Check = (value) => value === undefined || typeof value === 'boolean';
const isUint: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0;
const isSignal: Check = (value) => isUint(value) && (value as number) <= 64;
const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const areTexts: Check = (value) => Array.isArray(value) && value.every(isText);
const optional =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value);
const nullable =
  (check: Check): Check =>
  (value) =>
    value === null || check(value);
const shaped =
  (shape: Shape): Check =>
  (value) =>
    isMap(value) &&
    Object.entries(shape).every(([key, check]) => check(Object.hasOwn(value, key) ? value[key] : undefined));

const isTerminalSide: Check = (value) => isUint(value) && (value as number) <= 0xffff;
/** Of a terminal: TIOCSWINSZ has 16 bits for each. */
const isTerminalSize: Check = shaped({ rows: isTerminalSide, columns: isTerminalSide });
const isAttach = shaped({
  stdin: isFlag,
  stdout: isFlag,
  stderr: isFlag,
  size: optional(isTerminalSize),
  stdinOnce: isFlag,
});
const isExec = shaped({
  args: (value) => areTexts(value) && (value as string[]).length > 0,
  tty: isFlag,
  stdin: isFlag,
  user: nullable(isText),
  workdir: nullable(isText),
  env: areTexts,
  privileged: isFlag,
  atomic: isFlag,
});
const isNumber: Check = (value) => Number.isFinite(value);

const FIELDS: { [Op in Request['op']]: Shape } = {
  start: {
    roots: shaped({ data: isText, run: isText, config: isText }),
    id: (value) => isText(value) && /^[0-9a-f]{64}$/.test(value as string),
    attach: nullable(isAttach),
  },
  attach: { attach: isAttach },
  exec: { exec: isExec, attach: nullable(isAttach) },
  state: {},
  wait: {},
  kill: { signal: isSignal },
  stop: { signal: nullable(isSignal), timeoutSec: nullable(isNumber) },
  stats: {},
  pids: {},
  commit: {},
  changes: {},
  namespace: {
    claim: shaped({
      size: isUint,
      epoch: isUint,
      root: (value) => isText(value) && /^[0-9a-f]{64}$/.test(value as string),
      label: isText,
    }),
  },
  checkpoint: {},
  clean: {},
  budget: { budget: nullable((value) => isMap(value) && Object.values(value).every(nullable(isNumber))) },
  replaceFs: { program: shaped({ node: isText, script: isText }) },
  root: {},
};

/**
 * The request in a line from a control socket. Errors: BAD_REQUEST when it is none; UNKNOWN_REQUEST when it is one of another pg.
 */
export function parseRequest(line: string): Request {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw badRequest('it is not JSON');
  }
  if (!isMap(value) || typeof value['op'] !== 'string') throw badRequest('it has no op');
  const op = value['op'];
  if (!Object.hasOwn(FIELDS, op)) {
    throw new PgError(
      'UNKNOWN_REQUEST',
      `the shim of this container is of another pg, which does not know '${op.slice(0, 80)}'`,
      {
        hint: 'pg restart CONTAINER has this pg run it',
      },
    );
  }
  for (const [key, check] of Object.entries(FIELDS[op as Request['op']]))
    if (!check(Object.hasOwn(value, key) ? value[key] : undefined))
      throw badRequest(`'${key}' of '${op}' is not what it must be`);
  return value as unknown as Request;
}

/** The size of a terminal, from a frame; BAD_REQUEST. */
export function parseTerminalSize(payload: Buffer): { rows: number; columns: number } {
  let value: unknown;
  try {
    value = JSON.parse(payload.toString());
  } catch {
    throw badRequest('a size that is not JSON');
  }
  if (!isTerminalSize(value)) throw badRequest('a size that is none');
  return value as { rows: number; columns: number };
}

/** PgError('BAD_REQUEST'). */
export function badRequest(what: string): PgError {
  return new PgError('BAD_REQUEST', `not a request that a shim understands: ${what}`);
}
