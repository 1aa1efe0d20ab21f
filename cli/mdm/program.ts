import { createReadStream, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import type { Payload } from '../../mdm/batch-arriving.ts';
import type { Cost } from '../../mdm/cost.ts';
import { PgError } from '../../mdm/error.ts';
import { checkSize, type Instruction, makeInstruction, type State } from '../../mdm/instruction.ts';
import { ROOT_BYTES } from '../../mdm/merkle.ts';
import { hexBytes, JsonObject, readJson, toHex } from './read-json.ts';

/** A batch as JSON (docs/formats/mdm-json.md). */
export interface Program {
  /** The state it is for; undefined: whatever the file has. */
  initial: State | undefined;
  instructions: Instruction[];
  payloads: ProgramPayload[];
}

/** A payload: bytes in the program itself, or a file that is read when its instruction's turn comes. */
export type ProgramPayload = Uint8Array | { path: string } | undefined;

/** Names of the inputs, in their order; all are u64 but `root`. */
const FIELDS: ReadonlyMap<string, readonly string[]> = new Map([
  ['Read', ['offset', 'length']],
  ['ReadRoot', ['root', 'offset', 'length']],
  ['Write', ['offset', 'length']],
  ['WriteRoot', ['root', 'sectorIndex', 'offset', 'length']],
  ['Copy', ['length', 'destination', 'source']],
  ['Swap', ['length', 'a', 'b']],
  ['Truncate', ['newSize']],
]);

/** Reads a program; `MDM_BAD_JSON`, and `MDM_BAD_INPUT` for a number that is no u64. */
export async function readProgram(path: string): Promise<Program> {
  const document = new JsonObject(await readJson(path), 'the program').only(['initial', 'instructions']);
  const initial = document.get('initial') === undefined ? undefined : readState(document.object('initial'));
  const home = path === '-' ? process.cwd() : dirname(resolve(path));
  const program: Program = { initial, instructions: [], payloads: [] };
  for (const [i, item] of document.array('instructions').entries()) {
    const where = `instructions[${i}]`;
    const object = new JsonObject(item, where).only(['name', 'inputs', 'proofWanted', 'payload']);
    program.instructions.push(readInstruction(object));
    const text = object.get('payload');
    program.payloads.push(text === undefined || text === null ? undefined : readPayload(object, home));
  }
  return program;
}

/** `{root, size}`; `MDM_SIZE_TOO_LARGE`. */
export function readState(object: JsonObject): State {
  const state = { root: object.hex('root', ROOT_BYTES), size: Number(object.u64('size')) };
  checkSize(state.size);
  return state;
}

export const stateToJson = ({ root, size }: State): { root: string; size: number } => ({ root: toHex(root), size });

/** An instruction without its payload: its inputs by name, or all of them in hex. */
export function readInstruction(object: JsonObject): Instruction {
  const name = object.string('name');
  const proofRequired = object.boolean('proofWanted', false);
  if (typeof object.get('inputs') === 'string') return { name, inputs: object.hex('inputs'), proofRequired };
  const fields = FIELDS.get(name);
  // The machine refuses it by its name.
  if (fields === undefined) return { name, inputs: new Uint8Array(0), proofRequired };
  const inputs = object.object('inputs').only(fields);
  const values = fields.map((field) => (field === 'root' ? inputs.hex(field, ROOT_BYTES) : inputs.u64(field)));
  return makeInstruction(name, values, proofRequired);
}

function readPayload(object: JsonObject, home: string): ProgramPayload {
  const text = object.string('payload');
  if (text.startsWith('@')) return { path: resolve(home, text.slice(1)) };
  const bytes = payloadBytes(text);
  if (bytes === undefined) throw object.bad('payload', "hex, 'base64:...' or '@FILE'");
  return bytes;
}

/** Bytes in hex (`hex:` may stand before it) or base64 (`base64:` must); undefined when they are neither. */
export function payloadBytes(text: string): Uint8Array | undefined {
  if (!text.startsWith('base64:')) return hexBytes(text.startsWith('hex:') ? text.slice(4) : text);
  const digits = text.slice(7);
  const bytes = Buffer.from(digits, 'base64');
  return bytes.toString('base64') === digits ? new Uint8Array(bytes) : undefined;
}

/** How long the payload is, if that is known before it is read. */
export function payloadLength(payload: ProgramPayload): number | undefined {
  if (payload === undefined || payload instanceof Uint8Array) return payload?.length ?? 0;
  const stat = statSync(payload.path, { throwIfNoEntry: false });
  if (stat === undefined) throw new PgError('MDM_NO_SUCH_FILE', `there is no file ${payload.path} to be a payload`);
  return stat.isFile() ? stat.size : undefined;
}

/** The payload as the machine takes it: a file in pieces, as they come off the disk or out of a pipe. */
export function openPayload(payload: ProgramPayload): Payload {
  if (payload === undefined || payload instanceof Uint8Array) return payload;
  return createReadStream(payload.path, { highWaterMark: 1 << 20 }) as AsyncIterable<Uint8Array>;
}

/** `accesses=N,read=N,written=N,compute=N`; what is not named has no limit. `MDM_BAD_BUDGET`. */
export function parseBudget(text: string): Cost {
  const budget: Cost = { accesses: Infinity, read: Infinity, written: Infinity, compute: Infinity };
  for (const word of text.split(',')) {
    const match = /^(accesses|read|written|compute)=([0-9]{1,20})$/.exec(word);
    if (match === null) {
      throw new PgError('MDM_BAD_BUDGET', `'${word}' is no part of a budget`, {
        hint: 'a budget is accesses=N,read=N,written=N,compute=N or some of them',
      });
    }
    budget[match[1] as keyof Cost] = Number(match[2]);
  }
  return budget;
}
