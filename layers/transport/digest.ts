/**
 * OCI digests (image-spec descriptor.md, "Digests") and the check of bytes against them.
 *
 * The pattern is strict because a digest becomes part of a path or URL: nothing but a known algorithm and its
 * lower-case hex digits.
 */
import { createHash, type Hash } from 'node:crypto';
import { PgError } from '../../mdm/error.ts';

const DIGEST = /^(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$/;

/** What an exact run of bytes must be. */
export interface Expected {
  /** null: only the size is known. */
  digest: string | null;
  sizeBytes: number;
}

/** Whether `text` is a digest of an algorithm that pg checks (sha256, sha512). */
export function isDigest(text: unknown): text is string {
  return typeof text === 'string' && DIGEST.test(text);
}

/** Algorithm and hex digits of a digest. Throws DIGEST_INVALID; `where` says for people what carried it. */
export function splitDigest(digest: unknown, where: string): { algorithm: 'sha256' | 'sha512'; hex: string } {
  if (!isDigest(digest)) {
    const shown = typeof digest === 'string' ? `'${digest.slice(0, 160)}'` : typeof digest;
    throw new PgError('DIGEST_INVALID', `${where} has ${shown} for a digest`, {
      hint: 'digests are sha256: or sha512: and lower-case hex digits; the image is damaged or of a faulty tool',
    });
  }
  const colon = digest.indexOf(':');
  return { algorithm: digest.slice(0, colon) as 'sha256' | 'sha512', hex: digest.slice(colon + 1) };
}

/** `sha256:hex` of `bytes`, or with the algorithm of another digest. */
export function digestOf(bytes: Uint8Array, algorithm: 'sha256' | 'sha512' = 'sha256'): string {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`;
}

/** Checks a small document held in memory. `what` names it in the error: `the config of nginx:latest`. */
export function verifyBytes(bytes: Uint8Array, expected: Expected, what: string): void {
  if (bytes.length !== expected.sizeBytes) throw sizeMismatch(what, expected, bytes.length);
  verifyDigest(bytes, expected.digest, what);
}

/** Checks only the digest. */
export function verifyDigest(bytes: Uint8Array, digest: string | null, what: string): void {
  if (digest === null) return;
  const actual = digestOf(bytes, splitDigest(digest, what).algorithm);
  if (actual !== digest) throw digestMismatch(what, digest, actual);
}

/**
 * Hands `chunks` through and checks them on the way: never more bytes than promised, and an error instead of the end
 * where they are fewer (TRUNCATED), more (SIZE_MISMATCH) or others (DIGEST_MISMATCH). `what` names the blob in the
 * error.
 */
export async function* verified(
  chunks: AsyncIterable<Uint8Array>,
  expected: Expected,
  what: string,
): AsyncGenerator<Uint8Array> {
  const { algorithm } = expected.digest === null ? { algorithm: null } : splitDigest(expected.digest, what);
  const hash: Hash | null = algorithm === null ? null : createHash(algorithm);
  let seen = 0;
  for await (const chunk of chunks) {
    seen += chunk.length;
    if (seen > expected.sizeBytes) throw sizeMismatch(what, expected, seen);
    hash?.update(chunk);
    yield chunk;
  }
  if (seen < expected.sizeBytes) throw truncated(what, expected, seen);
  if (hash === null) return;
  const actual = `${algorithm}:${hash.digest('hex')}`;
  if (actual !== expected.digest) throw digestMismatch(what, expected.digest as string, actual);
}

export function digestMismatch(what: string, expected: string, actual: string): PgError {
  return new PgError('DIGEST_MISMATCH', `${what} is damaged: expected ${expected}, got ${actual}`, {
    hint: 'nothing of it was used; fetch or copy the image again, and check the medium if it happens again',
  });
}

function sizeMismatch(what: string, expected: Expected, actual: number): PgError {
  const over = actual > expected.sizeBytes;
  return new PgError(
    over ? 'SIZE_MISMATCH' : 'TRUNCATED',
    `${what}${named(expected)} should be ${expected.sizeBytes} bytes, got ${over ? 'at least ' : 'only '}${actual}`,
    { hint: 'nothing of it was used; fetch or copy the image again' },
  );
}

function truncated(what: string, expected: Expected, actual: number): PgError {
  return new PgError('TRUNCATED', `${what}${named(expected)} ends after ${actual} of ${expected.sizeBytes} bytes`, {
    hint: 'nothing of it was used; fetch or copy the image again',
  });
}

function named(expected: Expected): string {
  return expected.digest === null ? '' : ` (${expected.digest})`;
}
