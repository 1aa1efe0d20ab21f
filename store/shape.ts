/**
 * What JSON that comes from a file, a peer or a command looks like: whoever wrote it may have been another program, or a disk that forgets. A check says where a value is not
 * what it must be (`.ports[0].hostPort`; empty: the value itself), or undefined when it is. Members that no shape names are left alone: a later pg may have added them.
 */
export type Check = (value: unknown) => string | undefined;

const when =
  (holds: (value: unknown) => boolean): Check =>
  (value) =>
    holds(value) ? undefined : '';

export const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

export const text: Check = when((value) => typeof value === 'string');
export const flag: Check = when((value) => typeof value === 'boolean');
/** Finite. */
export const number: Check = when((value) => Number.isFinite(value));
/** 0 to 2^53 - 1. */
export const uint: Check = when((value) => Number.isSafeInteger(value) && (value as number) >= 0);
/** 32 bytes in hex. */
export const hex32: Check = when((value) => typeof value === 'string' && /^[0-9a-f]{64}$/.test(value));

export const uintUpTo = (most: number): Check =>
  when((value) => uint(value) === undefined && (value as number) <= most);
export const oneOf = (...values: unknown[]): Check => when((value) => values.includes(value));

/** It may be left out. */
export const optional =
  (check: Check): Check =>
  (value) =>
    value === undefined ? undefined : check(value);

export const nullable =
  (check: Check): Check =>
  (value) =>
    value === null ? undefined : check(value);

export const listOf =
  (check: Check): Check =>
  (value) => {
    if (!Array.isArray(value)) return '';
    for (const [i, item] of value.entries()) {
      const wrong = check(item);
      if (wrong !== undefined) return `[${i}]${wrong}`;
    }
    return undefined;
  };

/** A map from any text to such values. */
export const mapOf =
  (check: Check): Check =>
  (value) => {
    if (!isMap(value)) return '';
    for (const [key, item] of Object.entries(value)) {
      const wrong = check(item);
      if (wrong !== undefined) return `.${key}${wrong}`;
    }
    return undefined;
  };

/** A map with these members. */
export const shaped =
  (members: Record<string, Check>): Check =>
  (value) => {
    if (!isMap(value)) return '';
    for (const [key, check] of Object.entries(members)) {
      const wrong = check(Object.hasOwn(value, key) ? value[key] : undefined);
      if (wrong !== undefined) return `.${key}${wrong}`;
    }
    return undefined;
  };
