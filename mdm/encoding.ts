import type { Batch } from './batch.ts';
import { type Instruction, machineError, MAX_INPUT_BYTES, NAME_BYTES } from './instruction.ts';
import { ROOT_BYTES } from './merkle.ts';

/**
 * A batch as bytes, without its payloads, which follow it in whatever way the carrier has (docs/formats/mdm.md, "A
 * batch as bytes"). One batch has one encoding: `decodeBatch` takes nothing that `encodeBatch` would not have written.
 */

const HEAD_BYTES = ROOT_BYTES + 8 + 4;
const INSTRUCTION_HEAD_BYTES = NAME_BYTES + 1 + 2;

/**
 * The bytes of `batch`. `MDM_BAD_ENCODING` for a name that is not 1 to 16 printable ASCII characters,
 * `MDM_INPUT_TOO_LARGE` for inputs over 4,096 bytes.
 */
export function encodeBatch(batch: Batch): Uint8Array {
  for (const { name, inputs } of batch.instructions) {
    if (!/^[\x21-\x7e]{1,16}$/.test(name))
      throw machineError('MDM_BAD_ENCODING', `'${name}' cannot be an instruction's name`);
    if (inputs.length > MAX_INPUT_BYTES) {
      throw machineError('MDM_INPUT_TOO_LARGE', `inputs have at most ${MAX_INPUT_BYTES} bytes, not ${inputs.length}`);
    }
  }
  const length = batch.instructions.reduce((n, { inputs }) => n + INSTRUCTION_HEAD_BYTES + inputs.length, HEAD_BYTES);
  const bytes = Buffer.alloc(length);
  bytes.set(batch.initial.root);
  bytes.writeBigUInt64LE(BigInt(batch.initial.size), ROOT_BYTES);
  bytes.writeUInt32LE(batch.instructions.length, ROOT_BYTES + 8);
  let at = HEAD_BYTES;
  for (const { name, inputs, proofRequired } of batch.instructions) {
    bytes.write(name, at, 'latin1');
    bytes.writeUInt8(proofRequired ? 1 : 0, at + NAME_BYTES);
    bytes.writeUInt16LE(inputs.length, at + NAME_BYTES + 1);
    bytes.set(inputs, at + INSTRUCTION_HEAD_BYTES);
    at += INSTRUCTION_HEAD_BYTES + inputs.length;
  }
  return bytes;
}

/**
 * The batch that `encodeBatch` wrote; `MDM_BAD_ENCODING` when the bytes are not one, or more than one. Names and inputs
 * are for the machine to judge.
 */
export function decodeBatch(encoded: Uint8Array): Batch {
  const bytes = Buffer.from(encoded.buffer, encoded.byteOffset, encoded.length);
  if (bytes.length < HEAD_BYTES) throw cutShort();
  const initial = {
    root: new Uint8Array(bytes.subarray(0, ROOT_BYTES)),
    size: Number(bytes.readBigUInt64LE(ROOT_BYTES)),
  };
  const count = bytes.readUInt32LE(ROOT_BYTES + 8);
  const instructions: Instruction[] = [];
  let at = HEAD_BYTES;
  while (instructions.length < count) {
    if (bytes.length < at + INSTRUCTION_HEAD_BYTES) throw cutShort();
    const name = /^([\x21-\x7e]+)\0*$/.exec(bytes.toString('latin1', at, at + NAME_BYTES))?.[1];
    const proofRequired = bytes.readUInt8(at + NAME_BYTES);
    const length = bytes.readUInt16LE(at + NAME_BYTES + 1);
    at += INSTRUCTION_HEAD_BYTES;
    if (name === undefined || proofRequired > 1 || length > MAX_INPUT_BYTES) {
      throw machineError('MDM_BAD_ENCODING', `instruction ${instructions.length} is not one`);
    }
    if (bytes.length < at + length) throw cutShort();
    instructions.push({
      name,
      inputs: new Uint8Array(bytes.subarray(at, at + length)),
      proofRequired: proofRequired === 1,
    });
    at += length;
  }
  if (at < bytes.length) throw machineError('MDM_BAD_ENCODING', `${bytes.length - at} bytes follow the batch`);
  return { initial, instructions };
}

const cutShort = () => machineError('MDM_BAD_ENCODING', 'the batch is cut short');
