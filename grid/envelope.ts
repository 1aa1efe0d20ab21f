import { decode, encode, Tagged } from 'cborg';
import { PgError } from '../mdm/error.ts';
import { linkOf, protocolOfLink, type ProtocolName } from './protocol.ts';

/** IANA CBOR tag "grid". */
const GRID_TAG = 1735551332;
/** The IPLD CID tag. */
const CID_TAG = 42;

/** What may stand in an envelope: no floats, no undefined, no other tags; integers are exact (below 2^53). */
export type Value = null | boolean | number | string | Uint8Array | Value[] | { [key: string]: Value };
export type Body = { [key: string]: Value };

export type EnvelopeType = 'request' | 'reply' | 'error';
const TYPES: readonly EnvelopeType[] = ['request', 'reply', 'error'];

/** A control message. */
export interface Envelope {
  protocol: ProtocolName;
  type: EnvelopeType;
  /** Chosen by the requester, given back in the reply; 0 in an error that is about the whole connection. */
  id: number;
  /** What is asked; in a reply, what was asked. */
  name: string;
  body: Body;
}

/** The error of a message that is not what the specification says. */
export function badMessage(what: string, cause?: unknown): PgError {
  return new PgError('BAD_MESSAGE', `not a valid message: ${what}`, cause === undefined ? {} : { cause });
}

/** `1735551332([42(pCID), type, id, name, body])` in deterministic CBOR. */
export function encodeEnvelope(envelope: Envelope): Uint8Array {
  const { protocol, type, id, name, body } = envelope;
  return encode(new Tagged(GRID_TAG, [new Tagged(CID_TAG, linkOf(protocol)), TYPES.indexOf(type), id, name, body]));
}

/**
 * The envelope in `bytes`, which must be the one deterministic encoding of it: it is encoded again and compared, because the decoder
 * alone accepts unsorted keys.
 * Errors: BAD_MESSAGE; UNKNOWN_PROTOCOL when its pCID is none that this node speaks.
 */
export function decodeEnvelope(bytes: Uint8Array): Envelope {
  let value: unknown;
  let again: Uint8Array;
  try {
    value = decode(bytes, {
      strict: true,
      allowIndefinite: false,
      allowUndefined: false,
      allowInfinity: false,
      allowNaN: false,
      allowBigInt: false,
      rejectDuplicateMapKeys: true,
      tags: Tagged.preserve(GRID_TAG, CID_TAG),
    });
    again = encode(value);
  } catch (cause) {
    throw badMessage('not deterministic CBOR', cause);
  }
  if (Buffer.compare(bytes, again) !== 0) throw badMessage('not encoded deterministically');
  if (!(value instanceof Tagged) || value.tag !== GRID_TAG || !Array.isArray(value.value)) {
    throw badMessage('not a grid envelope');
  }
  const [link, type, id, name, body, ...rest] = value.value as unknown[];
  if (!(link instanceof Tagged) || link.tag !== CID_TAG || !(link.value instanceof Uint8Array)) {
    throw badMessage('an envelope without a protocol');
  }
  const protocol = protocolOfLink(link.value);
  if (protocol === undefined) {
    throw new PgError('UNKNOWN_PROTOCOL', 'the other node speaks a protocol that this one does not know', {
      hint: 'both nodes must run the same version of pg: compare pg --version',
    });
  }
  const typeName = typeof type === 'number' ? TYPES[type] : undefined;
  if (typeName === undefined || !isUint(id) || typeof name !== 'string' || rest.length > 0) {
    throw badMessage('an envelope with other slots');
  }
  if (!isMap(body) || !isPlain(body)) throw badMessage('a body with values that have no place in it');
  return { protocol, type: typeName, id, name, body };
}

const isUint = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

const isMap = (value: unknown): value is Body =>
  typeof value === 'object' &&
  value !== null &&
  !Array.isArray(value) &&
  Object.getPrototypeOf(value) === Object.prototype;

/** Whether there is nothing in `value` but what `Value` allows. */
function isPlain(value: unknown): value is Value {
  if (value === null || typeof value === 'boolean' || typeof value === 'string' || value instanceof Uint8Array)
    return true;
  if (typeof value === 'number') return Number.isSafeInteger(value);
  if (Array.isArray(value)) return value.every(isPlain);
  return isMap(value) && Object.values(value).every(isPlain);
}

/** The text under `key`; BAD_MESSAGE when there is none. */
export function textOf(body: Body, key: string): string {
  const value = body[key];
  if (typeof value !== 'string') throw badMessage(`'${key}' is not text`);
  return value;
}

/** The unsigned integer under `key`; BAD_MESSAGE when there is none. */
export function uintOf(body: Body, key: string): number {
  const value = body[key];
  if (!isUint(value)) throw badMessage(`'${key}' is not an unsigned integer`);
  return value;
}

/** The true or false under `key`; BAD_MESSAGE when there is none. */
export function flagOf(body: Body, key: string): boolean {
  const value = body[key];
  if (typeof value !== 'boolean') throw badMessage(`'${key}' is not true or false`);
  return value;
}

/** The byte string under `key`, of exactly `length` bytes if that is given; BAD_MESSAGE otherwise. */
export function bytesOf(body: Body, key: string, length?: number): Uint8Array {
  const value = body[key];
  if (!(value instanceof Uint8Array) || (length !== undefined && value.length !== length)) {
    throw badMessage(`'${key}' is not ${length ?? 'a string of'} bytes`);
  }
  return value;
}

/** The map under `key`; BAD_MESSAGE when there is none. */
export function mapOf(body: Body, key: string): Body {
  const value = body[key];
  if (!isMap(value)) throw badMessage(`'${key}' is not a map`);
  return value;
}

/** The list of maps under `key`; BAD_MESSAGE when it is not one. */
export function mapsOf(body: Body, key: string): Body[] {
  const value = body[key];
  if (!Array.isArray(value) || !value.every(isMap)) throw badMessage(`'${key}' is not a list of maps`);
  return value;
}
