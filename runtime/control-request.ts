import { PgError } from '../mdm/error.ts';
import {
  type Check,
  flag,
  hex32,
  isMap,
  listOf,
  mapOf,
  nullable,
  number,
  optional,
  shaped,
  text,
  uint,
  uintUpTo,
} from '../store/shape.ts';
import type { Request } from './control.ts';

/*
 * What a shim is asked, checked before anything is done: whoever may open the socket is root, but a command of another version, or something that is no command at
 * all, must not get a container into a state that no request leads to.
 */

/** One that is false may be left out. */
const maybe = optional(flag);
const signal = uintUpTo(64);
/** Of a terminal: TIOCSWINSZ has 16 bits for each. */
const terminalSize = shaped({ rows: uintUpTo(0xffff), columns: uintUpTo(0xffff) });
const attach = shaped({ stdin: maybe, stdout: maybe, stderr: maybe, size: optional(terminalSize), stdinOnce: maybe });
const exec = shaped({
  args: (value) => listOf(text)(value) ?? ((value as string[]).length > 0 ? undefined : ''),
  tty: maybe,
  stdin: maybe,
  user: nullable(text),
  workdir: nullable(text),
  env: listOf(text),
  privileged: maybe,
  atomic: maybe,
});

const REQUESTS: { [Op in Request['op']]: Check } = {
  start: shaped({ roots: shaped({ data: text, run: text, config: text }), id: hex32, attach: nullable(attach) }),
  attach: shaped({ attach }),
  exec: shaped({ exec, attach: nullable(attach) }),
  state: shaped({}),
  wait: shaped({}),
  kill: shaped({ signal }),
  stop: shaped({ signal: nullable(signal), timeoutSec: nullable(number) }),
  stats: shaped({}),
  pids: shaped({}),
  commit: shaped({}),
  changes: shaped({}),
  namespace: shaped({ claim: shaped({ size: uint, epoch: uint, root: hex32, label: text }) }),
  checkpoint: shaped({}),
  clean: shaped({}),
  budget: shaped({ budget: nullable(mapOf(number)) }),
  replaceFs: shaped({ program: shaped({ node: text, script: text }) }),
  root: shaped({}),
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
  if (!Object.hasOwn(REQUESTS, op)) {
    throw new PgError(
      'UNKNOWN_REQUEST',
      `the shim of this container is of another pg, which does not know '${op.slice(0, 80)}'`,
      { hint: 'pg restart CONTAINER has this pg run it' },
    );
  }
  const wrong = REQUESTS[op as Request['op']](value);
  if (wrong !== undefined) throw badRequest(`${op}: ${wrong} is not what it must be`);
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
  if (terminalSize(value) !== undefined) throw badRequest('a size that is none');
  return value as { rows: number; columns: number };
}

/** PgError('BAD_REQUEST'). */
export function badRequest(what: string): PgError {
  return new PgError('BAD_REQUEST', `not a request that a shim understands: ${what}`);
}
