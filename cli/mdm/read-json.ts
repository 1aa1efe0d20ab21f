import { createReadStream } from 'node:fs';
import { PgError } from '../../mdm/error.ts';

/** Most bytes of a JSON document, most values in it and how deep they lie: what is not ours takes no more memory. */
const MOST_BYTES = 256 * 2 ** 20;
const MOST_VALUES = 4_000_000;
const MOST_DEPTH = 8;

export const badJson = (message: string): PgError => new PgError('MDM_BAD_JSON', message);

/** The JSON document in a file, or on standard input (`-`). `MDM_BAD_JSON`, `MDM_NO_SUCH_FILE`. */
export async function readJson(path: string): Promise<unknown> {
  const bytes = await readLimited(path);
  checkShape(bytes);
  try {
    return JSON.parse(bytes.toString('utf8')) as unknown;
  } catch (error) {
    throw badJson(`${path} is not JSON: ${(error as Error).message.slice(0, 200)}`);
  }
}

async function readLimited(path: string): Promise<Buffer> {
  const parts: Buffer[] = [];
  let length = 0;
  try {
    for await (const part of path === '-' ? process.stdin : createReadStream(path, { highWaterMark: 1 << 20 })) {
      parts.push(part as Buffer);
      length += (part as Buffer).length;
      if (length > MOST_BYTES) throw badJson(`${path} is longer than ${MOST_BYTES} bytes`);
    }
  } catch (cause) {
    if (cause instanceof PgError) throw cause;
    throw new PgError('MDM_NO_SUCH_FILE', `cannot read ${path}: ${(cause as Error).message}`, { cause });
  }
  return Buffer.concat(parts, length);
}

/** Counts values and depth before anything is made of them: a few bytes of JSON are many of memory. */
function checkShape(bytes: Buffer): void {
  let [depth, values, inString] = [0, 1, false];
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i]!;
    if (inString) {
      if (byte === 0x5c) i++;
      else if (byte === 0x22) inString = false;
    } else if (byte === 0x22) inString = true;
    else if (byte === 0x5b || byte === 0x7b) depth++;
    else if (byte === 0x5d || byte === 0x7d) depth--;
    if (!inString && (byte === 0x2c || byte === 0x5b || byte === 0x7b)) values++;
    if (depth > MOST_DEPTH || values > MOST_VALUES) {
      throw badJson(`the JSON is deeper than ${MOST_DEPTH} levels, or has more than ${MOST_VALUES} values`);
    }
  }
}

/** One object of a document, read field by field; `MDM_BAD_JSON` says which is not as it should be. */
export class JsonObject {
  readonly #fields: Record<string, unknown>;
  readonly #where: string;

  constructor(value: unknown, where: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw badJson(`${where} is not an object`);
    this.#fields = value as Record<string, unknown>;
    this.#where = where;
  }

  /** The field as it is; undefined when there is none. */
  get(name: string): unknown {
    return Object.hasOwn(this.#fields, name) ? this.#fields[name] : undefined;
  }

  /** Refuses fields other than these: a misspelt one would be ignored. */
  only(names: readonly string[]): this {
    const other = Object.keys(this.#fields).find((name) => !names.includes(name));
    if (other === undefined) return this;
    throw badJson(`${this.#where} has a field '${other.slice(0, 40)}'; it may have: ${names.join(', ')}`);
  }

  bad(name: string, what: string): PgError {
    return badJson(`${this.#where}.${name} is not ${what}`);
  }

  string(name: string): string {
    const value = this.get(name);
    if (typeof value !== 'string') throw this.bad(name, 'a string');
    return value;
  }

  boolean(name: string, otherwise: boolean): boolean {
    const value = this.get(name) ?? otherwise;
    if (typeof value !== 'boolean') throw this.bad(name, 'true or false');
    return value;
  }

  array(name: string): unknown[] {
    const value = this.get(name);
    if (!Array.isArray(value)) throw this.bad(name, 'a list');
    return value;
  }

  object(name: string): JsonObject {
    return new JsonObject(this.get(name), `${this.#where}.${name}`);
  }

  hex(name: string, length?: number): Uint8Array {
    const bytes = hexBytes(this.string(name));
    if (bytes === undefined) throw this.bad(name, 'bytes in hex');
    if (length !== undefined && bytes.length !== length) throw this.bad(name, `${length} bytes in hex`);
    return bytes;
  }

  /** A u64: a number up to 2^53, or digits in a string. */
  u64(name: string): bigint {
    const value = this.get(name);
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 2 ** 53) return BigInt(value);
    if (typeof value === 'string' && /^[0-9]{1,20}$/.test(value) && BigInt(value) < 2n ** 64n) return BigInt(value);
    throw new PgError(
      'MDM_BAD_INPUT',
      `${this.#where}.${name} is not a u64: a whole number up to 2^53, or up to 2^64 - 1 as digits in a string`,
    );
  }
}

/** The bytes that are written in hex; undefined when `text` is not hex. */
export function hexBytes(text: string): Uint8Array | undefined {
  const bytes = Buffer.from(text, 'hex');
  return bytes.length * 2 === text.length ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length) : undefined;
}

export const toHex = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
